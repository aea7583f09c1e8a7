import { Controller, UseFilters } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import type { KafkaMessage } from 'kafkajs';
import { randomBytes, randomUUID } from 'node:crypto';
import { driverFactory, KAFKA_CLIENTS } from '../../src/messaging/kafka/clients.js';
import {
  type KafkaDriver,
  type KafkaProducer,
  RecordRefusedError,
} from '../../src/messaging/kafka-driver.js';
import { MessageErrorFilter } from '../../src/errors/error-responses.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { broker, connectPeer, errorOf } from '../support/kafka.js';
import {
  codeOfLetter,
  count,
  counters,
  createCountersDatabase,
  startConsumingHost,
} from '../support/messages-host.js';
import { type RawRecord, sendRaw } from '../support/raw-records.js';

const PARTITIONS = 4;
type Header = readonly [string, Buffer | string | null];

const int = (number: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(number);
  return bytes;
};

describe.each(KAFKA_CLIENTS)('requests, by %s', (driver) => {
  const run = randomUUID();
  const topic = `asked-${run}`;
  const elsewhere = `beside-${run}`;
  const replies = `answers-${run}`;
  /** What sending to these meets, whatever is sent. */
  const refused = { missing: `missing-${run}`, forbidden: `forbidden-${run}`, dead: `leaderless-${run}` };
  const answers: (KafkaMessage & { partition: number })[] = [];
  const groupId = `replies-${run}`;

  @Controller()
  @UseFilters(MessageErrorFilter)
  class Handlers {
    @MessagePattern(topic)
    @Transactional()
    async take(@Payload() { name }: { name: string }) {
      await count(name);
      return { counted: name };
    }

    @MessagePattern(elsewhere)
    beside(@Payload() input: unknown) {
      return input;
    }

    @MessagePattern(`${topic}-odd`)
    odd() {
      return { value: 'a value', headers: { odd: 5 } };
    }
  }

  const peer = duringTests(() => connectPeer());
  beforeAll(async () => {
    await peer.createTopics([topic, elsewhere, `${topic}-odd`]);
    await peer.createTopics([replies], PARTITIONS);
  });
  const database = duringTests(() => createCountersDatabase());
  const host = duringTests(async () => {
    const create = await driverFactory(driver);
    return startConsumingHost(database, {
      controllers: [Handlers],
      transport: {
        ...{ groupId, replyTimeoutMs: 1 },
        driver: (settings, logger) => refusing(create(settings, logger), refused),
      },
    });
  });
  beforeAll(async () => {
    await peer.consume([replies], (answer) => answers.push(answer));
  });

  const ask = async (headers: Header[], to = topic, rest: RawRecord = {}): Promise<string> => {
    const name = randomUUID();
    await sendRaw(broker(), to, [{ key: name, value: JSON.stringify({ name }), ...rest, headers }]);
    return name;
  };
  const answerTo = (id: Buffer | string) =>
    eventually(() =>
      answers.find(({ headers }) => Buffer.from(id).equals(headers!.kafka_correlationId as Buffer)),
    );
  const wasHandled = async (name: string) => (await counters(database))[name] === 1;
  const expectBystander = async () => {
    const { value } = await peer.ask(elsewhere, '{"by":"stander"}');
    expect(JSON.parse(value!)).toEqual({ by: 'stander' });
    expect(host.transport.unavailableReason).toBeUndefined();
  };
  /** All of the topic is done, so no message of it waits for its reply. */
  const isAllDone = async () => {
    const [all] = await peer.admin.fetchTopicOffsets(topic);
    const [found] = await peer.admin.fetchOffsets({ groupId, topics: [topic] });
    return found!.partitions[0]!.offset === all!.high;
  };

  // @trap a correlation id of any bytes
  it.each([
    ['a UUID’s bytes', Buffer.from(randomUUID().replaceAll('-', ''), 'hex')],
    ['bytes that are text as well', Buffer.from('sixteen letters!')],
    ['a byte order mark', Buffer.from([0xef, 0xbb, 0xbf, 0x61])],
    ['half a surrogate pair', Buffer.from([0xed, 0xa0, 0x80])],
    ['a NUL', Buffer.from([0])],
    ['what looks like JSON', Buffer.from('{"a":[1')],
    ['1,000 bytes', Buffer.concat([Buffer.from([0xff]), randomBytes(999)])],
  ])('a correlation id of %s comes back byte for byte', async (_, id) => {
    const name = await ask([['kafka_correlationId', id], ['kafka_replyTopic', replies]]); // prettier-ignore
    expect(JSON.parse(String((await answerTo(id)).value))).toEqual({ counted: name });
    await expectBystander();
  });

  it.each<[string, Buffer | string, number]>([
    ['3, as text', '3', 3],
    ['0, as text', '0', 0],
    ['3, as an int', int(3), 3],
    ['0, as an int', int(0), 0],
    ['0002, as text of four digits', '0002', 2],
  ])('a reply to partition %s is there', async (_, partition, expected) => {
    for (let n = 0; n < 3; n++) {
      const id = randomUUID();
      await ask([['kafka_correlationId', id], ['kafka_replyTopic', replies], ['kafka_replyPartition', partition]]); // prettier-ignore
      expect((await answerTo(id)).partition).toBe(expected);
    }
    await expectBystander();
  });

  // @trap a reply partition as an int, or one that is not there
  it.each<[string, Header[]]>([
    ['is empty', [['kafka_replyPartition', '']]],
    ['is null', [['kafka_replyPartition', null]]],
    ['the topic has not, as text', [['kafka_replyPartition', '1234']]],
    ['the topic has not, as an int', [['kafka_replyPartition', int(PARTITIONS)]]],
  ])('a reply to a partition that %s goes to another', async (_, more) => {
    const id = randomUUID();
    const name = await ask([['kafka_correlationId', id], ['kafka_replyTopic', replies], ...more]);
    expect(JSON.parse(String((await answerTo(id)).value))).toEqual({ counted: name });
    expect(await wasHandled(name)).toBe(true);
    await expectBystander();
    await eventually(isAllDone);
  });

  const tooLong = randomBytes(2000);
  const many = Array.from({ length: 1500 }, (_, n) => [`h${n}`, 'v'] as const);
  // @trap a reply address that can’t be read
  it.each<[string, string, Header[], Buffer?]>([
    ['a partition that is no number', 'INVALID_INPUT', [['kafka_replyPartition', 'x']]],
    ['a partition below 0, as an int', 'INVALID_INPUT', [['kafka_replyPartition', int(-1)]]],
    ['a partition of eight bytes', 'INVALID_INPUT', [['kafka_replyPartition', Buffer.alloc(8)]]],
    ['a correlation id of 2,000 bytes', 'INVALID_INPUT', [], tooLong],
    ['too many headers', 'RECORD_TOO_LARGE', many],
  ])(
    '%s: not handled, told to the sender, and a dead letter',
    async (_, code, more, id = Buffer.from(randomUUID())) => {
      const name = await ask([['kafka_correlationId', id], ['kafka_replyTopic', replies], ...more]); // prettier-ignore
      const answer = await answerTo(id);
      expect(errorOf(answer)).toMatchObject({ code });
      expect(answer.value).toBeNull();
      expect(await eventually(() => codeOfLetter(database, name))).toBe(code);
      expect(await wasHandled(name)).toBe(false);
      await expectBystander();
    },
  );

  // @trap a reply address that alone is out of reach
  it.each(Object.keys(refused) as (keyof typeof refused)[])(
    'a reply topic that is %s holds up nobody: the effect stays, the offset moves on',
    async (which) => {
      const name = await ask([['kafka_correlationId', 'c'], ['kafka_replyTopic', refused[which]]]); // prettier-ignore
      await eventually(() => wasHandled(name));
      await expectBystander();
      const id = randomUUID();
      await ask([['kafka_correlationId', id], ['kafka_replyTopic', replies]]); // prettier-ignore
      await answerTo(id);
      await eventually(isAllDone);
    },
  );

  it('an answer with a header that no record can have is told as an error', async () => {
    const { error } = await peer.ask(`${topic}-odd`, '{}');
    expect(error).toMatchObject({ code: 'REPLY_FAILED', retryable: false });
    await expectBystander();
  });
});

/** A driver whose brokers refuse one topic, and have no leader for another. */
function refusing(
  driver: KafkaDriver,
  { forbidden, dead }: Record<'forbidden' | 'dead', string>,
): KafkaDriver {
  const refusingProducer = (producer: KafkaProducer): KafkaProducer => ({
    raw: producer.raw,
    close: () => producer.close(),
    send: async (records) => {
      for (const { topic } of records) {
        if (topic === forbidden) throw new RecordRefusedError('forbidden', false, { reason: 'not-allowed' });
        if (topic === dead) throw new Error('It has no leader at the moment.');
      }
      return producer.send(records);
    },
  });
  return {
    raw: driver.raw,
    createMissingTopics: (topics, settings) => driver.createMissingTopics(topics, settings),
    consume: (settings, listener) => driver.consume(settings, listener),
    producer: async () => refusingProducer(await driver.producer()),
  };
}
