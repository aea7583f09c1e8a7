import { Catch, Controller, type ExceptionFilter, type INestApplication, UseFilters } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { MessagePattern, Payload, RpcException, Transport } from '@nestjs/microservices';
import { ExpressAdapter } from '@nestjs/platform-express';
import { logLevel, type Message } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { EMPTY, type Observable } from 'rxjs';
import { BATCHABLE } from '../../src/messaging/kafka.transport.js';
import { digestOf } from '../../src/messaging/message-identity.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { brokers, KafkaPeer } from '../support/kafka.js';
import {
  count,
  counters,
  createCountersDatabase,
  messagesModule,
  ParsedValue,
  startMessagesHost,
} from '../support/messages-host.js';
import type { TestDatabase } from '../support/test-database.js';

const run = randomUUID();
const TIME = 1_700_000_000_000;
const placeId = (topic: string, offset: number) => `${topic}-0-${offset}-${TIME}`;

/** What comes first, and what comes then and is another message. */
interface Case {
  first: Pair;
  then: Pair;
}
type Pair = Pick<Message, 'key' | 'headers'> & { name?: string };

/** Ids are one consumer's, whatever their topic. `then` is sent to offset 1, or 2 where there is a `between`. */
const CASES: Record<string, (topic: string) => Case & { between?: Pair }> = {
  'the same id': (topic) => ({
    first: { headers: { 'message-id': `x ${topic}` } },
    then: { headers: { 'message-id': `x ${topic}` }, name: 'other' },
  }),
  'the same id, and the place of what comes then taken as an id as well': (topic) => ({
    first: { headers: { 'message-id': `x ${topic}` } },
    between: { headers: { 'message-id': placeId(topic, 2) }, name: 'between' },
    then: { headers: { 'message-id': `x ${topic}` }, name: 'other' },
  }),
  'the place of what comes then as its id': (topic) => ({
    first: { headers: { 'message-id': placeId(topic, 1) } },
    then: { headers: {}, name: 'other' },
  }),
  'the place of what comes then as its id, and the same bytes': (topic) => ({
    first: { headers: { 'message-id': placeId(topic, 1) } },
    then: { headers: {} },
  }),
  'the name that a conflict gets as its id': (topic) => ({
    first: { headers: { 'message-id': `conflict ${placeId(topic, 2)}` } },
    between: { headers: { 'message-id': placeId(topic, 2) }, name: 'between' },
    then: { headers: {}, name: 'other' },
  }),
  'the same id and bytes, and another key': (topic) => ({
    first: { headers: { 'message-id': `x ${topic}` }, key: 'a' },
    then: { headers: { 'message-id': `x ${topic}` }, key: 'b' },
  }),
  'the hash of a long id as its id, and the same bytes': (topic) => ({
    first: { headers: { 'message-id': `sha256 ${digestOf(topic.repeat(9))}` } },
    then: { headers: { 'message-id': topic.repeat(9) } },
  }),
  'source and id that are split elsewhere, and the same bytes': (topic) => ({
    first: { headers: { ce_source: `${topic}-a`, ce_id: 'b c' } },
    then: { headers: { ce_source: `${topic}-a b`, ce_id: 'c' } },
  }),
  'a source in front of the id, and the same bytes': (topic) => ({
    first: { headers: { ce_id: `${topic}-a b` } },
    then: { headers: { ce_source: `${topic}-a`, ce_id: 'b' } },
  }),
  'an id that is no text, and the same bytes': (topic) => ({
    first: { headers: { 'message-id': Buffer.concat([Buffer.from(topic), Buffer.of(0xff)]) } },
    then: { headers: { 'message-id': Buffer.concat([Buffer.from(topic), Buffer.of(0xfe)]) } },
  }),
};
const names = Object.keys(CASES);
const topicOf = (kind: string, name: string) => `${kind}-${names.indexOf(name)}-${run}`;
const knownTopics = ['place', 'id', 'event'].map((name) => `known-${name}-${run}`);
const REFUSES = `refuses-${run}`;
const groupId = `host-${run}`;
const topicsOf = (kind: string) => names.map((name) => topicOf(kind, name));

@Catch()
class SilentFilter implements ExceptionFilter {
  catch(): Observable<never> {
    return EMPTY;
  }
}

const counted = async ({ name }: { name: string }) => {
  await count(name);
  return { counted: name };
};

@Controller()
class TransportController {
  @MessagePattern([...topicsOf('batched'), ...knownTopics], BATCHABLE)
  @Transactional()
  batched(@Payload(ParsedValue) payload: { name: string }) {
    return counted(payload);
  }

  @MessagePattern(REFUSES)
  refuses(): never {
    throw new RpcException({ code: 'REFUSED', message: 'refused', retryable: false });
  }

  @MessagePattern(topicsOf('alone'))
  @Transactional()
  alone(@Payload(ParsedValue) payload: { name: string }) {
    return counted(payload);
  }

  @MessagePattern(topicsOf('silent'))
  @Transactional()
  @UseFilters(SilentFilter)
  silent(@Payload(ParsedValue) payload: { name: string }) {
    return counted(payload);
  }
}

@Controller()
class StockController {
  @MessagePattern(topicsOf('stock'))
  @Transactional()
  stock(@Payload(ParsedValue) payload: { name: string }) {
    return counted(payload);
  }
}
let database: TestDatabase;
const peer = new KafkaPeer();
const hosts: INestApplication[] = [];

beforeAll(async () => {
  await peer.connect();
  database = await createCountersDatabase();
  await peer.createTopics(topicsOf('stock'));
  const host = await startMessagesHost(database, {
    controllers: [TransportController],
    transport: { groupId },
  });
  hosts.push(host.app);
  await eventually(() => host.transport.unavailableReason === undefined, 60_000);
  const stock = await NestFactory.create(messagesModule(database, [StockController]), new ExpressAdapter(), {
    ...{ logger: false, abortOnError: false },
  });
  hosts.push(stock);
  stock.connectMicroservice({
    transport: Transport.KAFKA,
    options: {
      client: { brokers: brokers(), clientId: 'stock', logLevel: logLevel.NOTHING }, // prettier-ignore
      consumer: { groupId: `stock-${run}`, maxWaitTimeInMs: 100 },
      subscribe: { fromBeginning: true },
    },
  });
  await stock.startAllMicroservices();
  await stock.init();
}, 120_000);
afterAll(async () => {
  await Promise.all(hosts.map((host) => host.close()));
  await peer.close();
  await database.drop();
});

const lettersOf = async (topic: string) => {
  const text = 'SELECT value FROM message_dead_letter WHERE topic = $1 ORDER BY "offset"';
  return (await database.query<{ value: Buffer }>(text, [topic])).map(({ value }) => String(value));
};
const countOf = async (name: string) => (await counters(database))[name] ?? 0;
const message = (name: string, { key = 'k', headers = {} }: Pair): Message => ({
  ...{ key, headers, value: JSON.stringify({ name }), timestamp: String(TIME) },
});

describe.each(['batched', 'alone', 'silent', 'stock'])(
  '%s: a message whose id another one has taken by',
  (kind) => {
    // Nest's own parser has made text of headers before anybody sees them.
    const told = kind === 'stock' ? names.filter((name) => !name.includes('no text')) : names;
    // @trap an id that somebody else took first
    it.each(told)('%s is handled or a dead letter', async (name) => {
      const topic = topicOf(kind, name);
      const { first, between, then } = CASES[name]!(topic);
      const named = ({ name: own = 'first' }: Pair) => `${topic} ${own}`;
      await peer.emit(topic, message(named(first), first));
      await eventually(async () => (await countOf(named(first))) === 1);
      if (between) {
        await peer.emit(topic, message(named(between), between));
        await eventually(async () => (await countOf(named(between))) === 1);
      }
      await peer.emit(topic, message(named(then), then));
      const text = JSON.stringify({ name: named(then) });
      const before = named(then) === named(first) ? 1 : 0;
      await eventually(async () => {
        const handled = (await countOf(named(then))) - before;
        return handled + (await lettersOf(topic)).filter((letter) => letter === text).length > 0;
      });
      // Once, also when it is delivered again.
      const handled = (await countOf(named(then))) - before;
      expect(handled + (await lettersOf(topic)).length).toBe(1);
    });
  },
);

const EARLIER: [string, Pair['headers'], (topic: string) => string][] = [
  ['without an id', {}, (topic) => placeId(topic, 0)],
  ['with an id', { 'message-id': `order 7 ${run}` }, () => `order 7 ${run}`],
  ['that is a CloudEvent', { ce_source: `/orders-${run}`, ce_id: '7' }, () => `/orders-${run} 7`],
];
it.each(EARLIER)(
  'a message %s that an earlier release has handled is known when it comes again',
  async (what, headers, idOf) => {
    const topic = knownTopics[EARLIER.findIndex(([one]) => one === what)]!;
    const again = message(`${topic} again`, { headers });
    await database.query(
      `INSERT INTO message_inbox (consumer, message_id, digest, topic, partition, "offset") VALUES ($1, $2, $3, $4, 0, 0)`,
      [groupId, idOf(topic), digestOf(topic, Buffer.from('k'), Buffer.from(String(again.value))), topic],
    );
    await peer.emit(topic, again);
    await peer.emit(topic, message(`${topic} behind`, {}));
    await eventually(async () => (await countOf(`${topic} behind`)) === 1);
    expect(await countOf(`${topic} again`)).toBe(0);
    expect(await lettersOf(topic)).toEqual([]);
  },
);

it('a request that fails is told so, and not what another with its id was answered', async () => {
  const headers = { 'message-id': randomUUID() };
  const value = JSON.stringify({ name: `answered ${run}` });
  expect((await peer.ask(knownTopics[0]!, value, { headers })).error).toBeUndefined();
  const refused = await peer.ask(REFUSES, value, { headers });
  expect(refused).toMatchObject({ value: null, error: { code: 'REFUSED' } });
});
