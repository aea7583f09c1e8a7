import { BadRequestException, Controller } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import type { KafkaMessage } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { KAFKA_CLIENTS } from '../../src/messaging/kafka/clients.js';
import type { KafkaTransportOptions } from '../../src/messaging/kafka/transport-options.js';
import { KafkaTransport } from '../../src/messaging/kafka.transport.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { broker, connectPeer } from '../support/kafka.js';
import {
  count,
  counters,
  createCountersDatabase,
  type MessagesHost,
  startMessagesHost,
} from '../support/messages-host.js';
import { fetchRaw, type RawRecord, sendRaw } from '../support/raw-records.js';
import type { TestDatabase } from '../support/test-database.js';

const MEGABYTE = 1_000_000;
let database: TestDatabase;
let host: MessagesHost | undefined;
let topic: string;
let held: Promise<void> | undefined;

interface Asked {
  what?: string;
  name: string;
}

async function answer({ what, name }: Asked): Promise<unknown> {
  if (what === 'held') await held;
  if (what === 'large') return { text: 'x'.repeat(2 * MEGABYTE) };
  if (what === 'no JSON') return { number: 1n };
  if (what === 'bad') throw new BadRequestException('not for us');
  return { name };
}

function controllerOf(named: string) {
  @Controller()
  class Handlers {
    @MessagePattern(named)
    @Transactional()
    async inTransaction(@Payload() value: Asked) {
      const answered = await answer(value);
      await count(value.name);
      return answered;
    }

    @MessagePattern(`${named}-plain`)
    plain(@Payload() value: Asked) {
      return answer(value);
    }
  }
  return Handlers;
}

async function start(transport: Partial<KafkaTransportOptions> = {}): Promise<MessagesHost> {
  host = await startMessagesHost(database, { controllers: [controllerOf(topic)], transport });
  const { transport: started } = host;
  await eventually(() => started.unavailableReason === undefined, 30_000);
  return host;
}
const value = (name: string, what = 'good') => JSON.stringify({ name, what });
const letters = () =>
  database.query<{ code: string; key: Buffer | null; value: Buffer | null }>(
    'SELECT code, key, value FROM message_dead_letter ORDER BY seq',
  );
const expectHandled = async (name = randomUUID()) => {
  await peer.emit(topic, { key: 'bystander', value: value(name) });
  await eventually(async () => (await counters(database))[name] === 1);
};
/** Of a batch. */
const ATTRIBUTES_AT = 21;
const manyHeaders = (number: number): RawRecord['headers'] =>
  Array.from({ length: number }, (_, n) => [`h${n}`, 'v'] as const);

const peer = duringTests(() => connectPeer());
beforeEach(async () => {
  topic = `transport-${randomUUID()}`;
  held = undefined;
  host = undefined;
  database = await createCountersDatabase();
});
afterEach(async () => {
  await host?.app.close();
  await database.drop();
});

describe.each(KAFKA_CLIENTS)('by %s', (driver) => {
  // @trap an answer that is too large
  it('an answer that its topic does not take is told as an error, to a handler that is applied once as to any', async () => {
    await start({ driver });
    for (const to of [topic, `${topic}-plain`]) {
      const { error } = await peer.ask(to, value('large', 'large'));
      expect(error).toMatchObject({ code: 'REPLY_TOO_LARGE', retryable: false });
    }
    expect((await counters(database)).large).toBe(1);
  });

  it('an answer of which no reply can be made is told as an error', async () => {
    await start({ driver });
    const { error } = await peer.ask(`${topic}-plain`, value('none', 'no JSON'));
    expect(error).toMatchObject({ code: 'REPLY_FAILED', retryable: false });
  });

  it.each(['gzip', 'snappy', 'lz4', 'zstd'])('a batch that the broker keeps compressed by %s is handled', async (codec) => {
    await start({ driver });
    // The broker compresses by Java's codecs what it is sent.
    const configEntries = [{ name: 'compression.type', value: codec }];
    await peer.admin.alterConfigs({ validateOnly: false, resources: [{ type: 2, name: topic, configEntries }] });
    const number = ['none', 'gzip', 'snappy', 'lz4', 'zstd'].indexOf(codec);
    const sendOf = async (names: string[]) => {
      const offset = await sendRaw(broker(), topic, names.map((name) => ({ key: name, value: value(name) })));
      return (await fetchRaw(broker(), topic, offset)).readInt16BE(ATTRIBUTES_AT) & 7;
    };
    await eventually(async () => (await sendOf([randomUUID()])) === number);
    const names = Array.from({ length: 20 }, () => randomUUID());
    expect(await sendOf(names)).toBe(number);
    for (const name of names) await eventually(async () => (await counters(database))[name] === 1);
    expect(await letters()).toEqual([]);
  }); // prettier-ignore

  it('a record with too many headers is replayed with all of them, once the limit is raised', async () => {
    const groupId = `raised-${randomUUID()}`;
    await start({ driver, groupId });
    const name = randomUUID();
    await sendRaw(broker(), topic, [{ key: 'k', value: value(name), headers: manyHeaders(1500) }]);
    await expectHandled();
    await eventually(async () => (await letters()).length === 1);
    // So that the first host has nothing under way when it closes.
    const busy = `SELECT FROM message_outbox UNION ALL SELECT FROM message_outbox_lease WHERE leased_until > now()`;
    await eventually(async () => (await database.query(busy)).length === 0);
    await host!.app.close();
    const { store } = await start({ driver, groupId, limits: { headers: 2000 } });
    expect(await store.deadLetters.replay({ error: 'RECORD_TOO_LARGE' })).toBe(1);
    await eventually(async () => (await counters(database))[name] === 1);
  });

  it('without a store: a hostile record is sent to the dead letter topic as far as that takes it, and its partition goes on', async () => {
    const found: KafkaMessage[] = [];
    const plain = `${topic}-plain`;
    await peer.createTopics([plain]);
    host = await startMessagesHost(database, { controllers: [controllerOf(topic)] });
    await host.app.close();
    const transport = new KafkaTransport({
      client: { brokers: [broker()] },
      ...{ driver, groupId: `storeless-${randomUUID()}`, concurrency: 3 },
      topics: { partitions: 1, replication: undefined },
    });
    transport.addHandler(plain, async (data: unknown) => Promise.resolve(data));
    await transport.listen(() => undefined);
    try {
      await eventually(() => transport.unavailableReason === undefined, 30_000);
      await peer.consume([`${plain}-dlt`], (letter) => found.push(letter));
      await sendRaw(broker(), plain, [{ key: 'k', value: '{}', headers: manyHeaders(10_000) }]);
      await sendRaw(broker(), plain, [{ key: 'x'.repeat(900_000), value: '{}' }]);
      expect((await peer.ask(plain, '{"name":"behind"}')).error).toBeUndefined();
      await eventually(() => found.length === 2);
      for (const letter of found)
        expect(String(letter.headers!['kafka_dlt-exception-fqcn'])).toBe('RECORD_TOO_LARGE');
    } finally {
      await transport.close();
    }
    host = undefined;
  });
});

it('a dead letter that the store does not take as it is: its place is kept, and nothing waits for it', async () => {
  await database.query(
    'ALTER TABLE message_dead_letter ADD CONSTRAINT small CHECK (octet_length(value) < 100)',
  );
  await start();
  await peer.emit(topic, { key: 'bad', value: value('x'.repeat(200), 'bad') });
  await expectHandled();
  expect(await eventually(async () => (await letters())[0])).toMatchObject({
    key: null,
    value: null,
  });
});

it('replies go to topics of the allow-list alone, and to its own never, whatever the list says', async () => {
  await start({ replyTopics: ['other.*', `${topic}*`] });
  const headers = (to: string) => ({ kafka_correlationId: 'c', kafka_replyTopic: to });
  for (const to of ['elsewhere', topic, `${topic}-dlt`])
    await peer.emit(topic, { key: 'k', value: value('refused'), headers: headers(to) });
  await peer.emit(topic, { key: 'k', value: value('allowed'), headers: headers('other.replies') });
  await eventually(async () => (await counters(database)).allowed === 1);
  expect((await letters()).map(({ code }) => code)).toEqual(Array(3).fill('REPLY_TOPIC_REFUSED'));
  expect((await counters(database)).refused).toBeUndefined();
});

// @trap a partition stands still, and readiness is green
it('readiness tells of a partition of which nothing is done though messages wait, and no more once they go on', async () => {
  let release!: () => void;
  held = new Promise((resolve) => (release = resolve));
  const { transport } = await start({ concurrency: 1, stalledAfterMs: 200 });
  await peer.emit(topic, { key: 'slow', value: value('slow', 'held') });
  await peer.emit(topic, { key: 'other', value: value('other') });
  const reason = await eventually(() => transport.unavailableReason);
  expect(reason).toContain(`${topic}, partition 0: nothing was done for`);
  release();
  await eventually(async () => (await counters(database)).other === 1);
  await eventually(() => transport.unavailableReason === undefined);
});

it('a message that fails again and again, and what waits behind it, makes no reason of its partition', async () => {
  let release!: () => void;
  held = new Promise((resolve) => (release = resolve));
  const { transport } = await start({ concurrency: 2, stalledAfterMs: 1 });
  for (const _ of [1, 2, 3]) await peer.emit(topic, { key: 'slow', value: value('slow', 'held') });
  await expectHandled();
  for (let n = 0; n < 20; n++) {
    expect(transport.unavailableReason).toBeUndefined();
    await new Promise((resolve) => setImmediate(resolve));
  }
  release();
  await eventually(async () => (await counters(database)).slow === 3);
});
