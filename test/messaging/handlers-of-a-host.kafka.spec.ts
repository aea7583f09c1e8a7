import { Controller, type INestApplication } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { Ctx, KafkaContext, MessagePattern, Payload, Transport } from '@nestjs/microservices';
import { type Consumer, type KafkaMessage, logLevel } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { KafkaTransport } from '../../src/messaging/kafka.transport.js';
import type { KafkaTransportOptions } from '../../src/messaging/kafka/transport-options.js';
import { MessageStore } from '../../src/messaging/message-store.js';
import { Outbox } from '../../src/messaging/outbox.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import { outgoingHeaders } from '../../src/tracing/trace-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { brokers, connectPeer } from '../support/kafka.js';
import {
  count,
  createCountersDatabase,
  messagesModule,
  OnEvent,
  ParsedValue,
} from '../support/messages-host.js';
import { onServer, type TestDatabase } from '../support/test-database.js';

const run = randomUUID();
const topic = (name: string) => `${name}-${run}`;
const TOPICS = ['count', 'count-by-name', 'plain', 'slow', 'flaky', 'event', 'published', 'traced'].map(
  topic,
);

let database: TestDatabase;
let lastTransport: KafkaTransport;
let host: INestApplication;
let seen: string[] = [];
let release: () => void = () => undefined;
const listeners: Consumer[] = [];

const counted = async (name: string) =>
  (await database.query<{ value: number }>('SELECT value FROM counters WHERE name = $1', [name]))[0]?.value;

@Controller()
class HostController {
  constructor(private readonly outbox: Outbox) {}

  @MessagePattern(topic('count'))
  @Transactional()
  async count(@Payload(ParsedValue) { name }: { name: string }) {
    await count(name);
    seen.push(name);
    return { counted: name };
  }

  @MessagePattern(topic('count-by-name'))
  @Transactional({ conflictKey: (input: unknown) => (input as { name: string }).name })
  async countByName(@Payload(ParsedValue) { name }: { name: string }) {
    await count(name);
    this.outbox.publish({
      aggregateType: 'counter',
      aggregateId: name,
      type: 'counter.counted',
      topic: topic('published'),
      payload: { value: { name } },
    });
    return { counted: name };
  }

  @OnEvent(topic('event'))
  @Transactional()
  async first(@Payload(ParsedValue) { name }: { name: string }) {
    await count(`${name} first`);
  }

  @OnEvent(topic('event'))
  @Transactional()
  async second(@Payload(ParsedValue) { name }: { name: string }) {
    await count(`${name} second`);
  }

  @MessagePattern(topic('traced'))
  @Transactional({ conflictKey: () => 'one after another' })
  async traced() {
    seen.push(JSON.stringify(outgoingHeaders()));
    return {};
  }

  @OnEvent(topic('slow'))
  async slow(@Payload(ParsedValue) { name }: { name: string }, @Ctx() context: KafkaContext) {
    if (name === 'slow') await new Promise<void>((resolve) => (release = resolve));
    seen.push(`${String(context.getMessage().key)} ${name}`);
  }

  @OnEvent(topic('flaky'))
  flaky(@Payload(ParsedValue) { name }: { name: string }) {
    seen.push(name);
    if (name === 'bad') throw new TypeError('undefined is not a function');
  }
}

async function startHost(connect: (app: INestApplication) => void): Promise<void> {
  host = await NestFactory.create(messagesModule(database, [HostController]), new ExpressAdapter(), {
    logger: false,
    abortOnError: false,
  });
  connect(host);
  await host.startAllMicroservices();
  await host.init();
}

const listen = async (to: string, take: (message: KafkaMessage) => void) =>
  listeners.push(await peer.consume([to], take));
const ours =
  (options: Partial<KafkaTransportOptions> = {}) =>
  (app: INestApplication) =>
    app.connectMicroservice({
      strategy: (lastTransport = new KafkaTransport({
        client: { brokers: brokers(), clientId: 'host' },
        groupId: `host-${randomUUID()}`,
        concurrency: 3,
        topics: { partitions: 1, replication: undefined },
        store: app.get(MessageStore, { strict: false }),
        ...options,
      })),
    });
const stock = (app: INestApplication) =>
  app.connectMicroservice({
    transport: Transport.KAFKA,
    options: {
      client: { brokers: brokers(), clientId: 'host', logLevel: logLevel.NOTHING },
      consumer: { groupId: `host-${randomUUID()}`, maxWaitTimeInMs: 100 },
      subscribe: { fromBeginning: true },
    },
  });

const peer = duringTests(() => connectPeer());
beforeEach(async () => {
  seen = [];
  await peer.createTopics(TOPICS);
  database = await createCountersDatabase();
});
afterEach(async () => {
  await host.close();
  await database.drop();
  // One that consumes a topic as it goes starts again and again, also after it was told to end.
  await Promise.all(listeners.splice(0).map((consumer) => consumer.disconnect()));
  const ours = (await peer.admin.listTopics()).filter((name) => name.includes(run));
  await peer.admin.deleteTopics({ topics: ours });
  await eventually(async () => !(await peer.admin.listTopics()).some((name) => name.includes(run)));
});

describe.each([
  ['our transport', ours()],
  ['our transport without a store', (app: INestApplication) => ours({ store: undefined as never })(app)],
  ['Nest’s own', stock],
])('a @Transactional handler behind %s', (_, connect) => {
  it('is applied once per message, and answers the second as the first', async () => {
    await startHost(connect);
    for (const name of ['count', 'count-by-name']) {
      const headers = { 'message-id': randomUUID() };
      const value = JSON.stringify({ name });
      const first = await peer.ask(topic(name), value, { headers });
      expect(JSON.parse(first.value!)).toEqual({ counted: name });
      expect(await peer.ask(topic(name), value, { headers })).toEqual(first);
      expect(await counted(name)).toBe(1);
    }
  });

  it('is part of the trace that its message came with', async () => {
    await startHost(connect);
    const headers = {
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      'x-request-id': 'r',
    };
    await peer.ask(topic('traced'), '{}', { headers });
    expect(seen).toEqual([JSON.stringify(headers)]);
  });

  // @trap several handlers of one message
  it('shares a message with another handler, each once', async () => {
    await startHost(connect);
    const headers = { 'message-id': randomUUID() };
    for (const _ of [1, 2]) await peer.emit(topic('event'), { value: '{"name":"shared"}', headers });
    await peer.ask(topic('count'), '{"name":"behind"}');
    await eventually(
      async () => (await counted('shared second')) === 1 && (await counted('shared first')) === 1,
    );
    await eventually(async () => {
      const [row] = await database.query<{ rows: number }>('SELECT count(*)::int AS rows FROM message_inbox');
      return row!.rows === 3;
    });
    expect([await counted('shared first'), await counted('shared second')]).toEqual([1, 1]);
  });
});

it('an event of the host’s own is sent once its unit of work is committed', async () => {
  const published: string[] = [];
  await listen(topic('published'), ({ key, headers }) =>
    published.push(`${String(headers?.ce_type)} ${String(key)}`),
  );
  await startHost(ours());
  const name = randomUUID();
  await peer.ask(topic('count-by-name'), JSON.stringify({ name }));
  await eventually(() => published.includes(`counter.counted ${name}`));
});

it('events of a process that has no relay are sent by that of another, which is notified', async () => {
  const published: string[] = [];
  await listen(topic('published'), ({ value }) => published.push(String(value)));
  await startHost(ours({ outboxPollMs: 3_600_000 }));
  const other = await NestFactory.createApplicationContext(messagesModule(database, []), { logger: false, abortOnError: false }); // prettier-ignore
  const transactions = other.get(TransactionRunner, { strict: false });
  for (const value of [1, 2, 3]) {
    await transactions.run({}, async () =>
      other.get(Outbox, { strict: false }).publish({
        ...{ aggregateType: 'counter', aggregateId: 'a', type: 'counter.counted', topic: topic('published') },
        payload: { value },
      }),
    );
    await eventually(() => published.includes(String(value)));
  }
  await other.close();
});

// @trap messages are done in another order than they came
it('one key whose handler takes its time delays no other key of its partition, and its offset stays', async () => {
  await startHost(ours());
  await peer.emit(topic('slow'), { key: 'a', value: '{"name":"slow"}' });
  await peer.emit(topic('slow'), { key: 'a', value: '{"name":"behind"}' });
  for (const key of ['b', 'c', 'd']) await peer.emit(topic('slow'), { key, value: '{"name":"fast"}' });
  await eventually(() => seen.length === 3);
  expect(seen).toEqual(['b fast', 'c fast', 'd fast']);
  release();
  await eventually(() => seen.length === 5);
  expect(seen.slice(3)).toEqual(['a slow', 'a behind']);
});

// @trap a message that always fails
// @trap an error of the handler stops the consumer
it('a handler that throws whatever it likes is tried a few times, dead-lettered, and stops nobody', async () => {
  const dead: string[] = [];
  await startHost(ours({ maxAttempts: 3 }));
  await peer.emit(topic('flaky'), { key: 'a', value: '{"name":"bad"}' });
  await peer.emit(topic('flaky'), { key: 'a', value: '{"name":"behind"}' });
  await peer.emit(topic('flaky'), { key: 'b', value: '{"name":"beside"}' });
  await eventually(() => seen.includes('behind'));
  expect(seen.filter((name) => name === 'bad')).toHaveLength(3);
  expect(seen.indexOf('beside')).toBeLessThan(seen.lastIndexOf('bad'));
  await listen(`${topic('flaky')}-dlt`, ({ headers }) => dead.push(String(headers?.['people-attempts'])));
  await eventually(() => dead.length > 0);
  expect(dead).toEqual(['3']);
});

// @trap the database is away
it('while the database is away nothing is dead-lettered or lost, the place in the group is kept, and work goes on by itself', async () => {
  const groupId = `host-${randomUUID()}`;
  await startHost(ours({ groupId, sessionTimeoutMs: 6000 }));
  await peer.ask(topic('count'), '{"name":"before"}');
  const members = async () =>
    (await peer.admin.describeGroups([groupId])).groups[0]!.members.map(({ memberId }) => memberId);
  const before = await members();
  const name = new URL(database.url).pathname.slice(1);
  await onServer(async (query) => {
    await query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    await query(`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '${name}' AND application_name = 'nestjs-people'`); // prettier-ignore
  });
  for (let n = 0; n < 10; n++)
    await peer.emit(topic('count'), { key: String(n % 3), value: JSON.stringify({ name: `away ${n}` }) });
  // Longer than the group waits for a member that sends no heartbeats.
  const since = Date.now();
  await eventually(() => Date.now() - since > 8000, 20_000);
  expect(seen.filter((text) => text.startsWith('away'))).toEqual([]);
  await onServer((query) => query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`));
  await eventually(() => seen.filter((text) => text.startsWith('away')).length === 10);
  expect(await members()).toEqual(before);
  const [row] = await database.query<{ letters: number; counted: number }>(
    `SELECT (SELECT count(*)::int FROM message_dead_letter) AS letters, (SELECT count(*)::int FROM counters WHERE name LIKE 'away%' AND value = 1) AS counted`,
  );
  expect(row).toEqual({ letters: 0, counted: 10 });
});

describe('a group whose offset is not in the partition any more', () => {
  /** Commits offset 1, and lets the broker delete five records of which the group has seen none. */
  const leaveBehind = async (groupId: string) => {
    await startHost(ours({ groupId }));
    await peer.ask(topic('count'), '{"name":"before"}');
    await host.close();
    for (let n = 0; n < 5; n++) await peer.emit(topic('count'), { value: '{"name":"deleted"}' });
    const partitions = [{ partition: 0, offset: '5' }];
    // kafkajs knows the topic of this name that was deleted before, and learns of this one by failing.
    await eventually(() =>
      peer.admin.deleteTopicRecords({ topic: topic('count'), partitions }).then(
        () => true,
        () => false,
      ),
    );
  };
  const committed = async (groupId: string) =>
    (await peer.admin.fetchOffsets({ groupId, topics: [topic('count')] }))[0]!.partitions[0]!.offset;

  // @trap the committed offset is not there any more
  it('stops with what to do, and skips nothing', async () => {
    const groupId = `host-${randomUUID()}`;
    await leaveBehind(groupId);
    await startHost(ours({ groupId }));
    const reason = await eventually(
      () => /onOffsetOutOfRange/.exec(lastTransport.unavailableReason ?? '')?.input,
    );
    expect(reason).toContain('its offset 1 is not among those from 5 to 6');
    expect(await committed(groupId)).toBe('1');
    expect(await counted('deleted')).toBeUndefined();
  });

  it('goes on where it was told to', async () => {
    const groupId = `host-${randomUUID()}`;
    await leaveBehind(groupId);
    await startHost(ours({ groupId, onOffsetOutOfRange: 'earliest' }));
    await eventually(async () => (await counted('deleted')) === 1);
  });
});
