import { Controller, Logger, UseFilters } from '@nestjs/common';
import { Ctx, KafkaContext, MessagePattern, Payload } from '@nestjs/microservices';
import { randomUUID } from 'node:crypto';
import { MessageErrorFilter } from '../../src/errors/error-responses.js';
import { BATCHABLE } from '../../src/messaging/kafka.transport.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { connectPeer } from '../support/kafka.js';
import {
  count,
  counters,
  createCountersDatabase,
  type MessagesHost,
  type MessagesHostOptions,
  ParsedValue,
  startMessagesHost,
  OnEvent,
} from '../support/messages-host.js';
import { onServer } from '../support/test-database.js';

const run = randomUUID();
const topic = (name: string) => `${name}-${run}`;
const [COUNT, ANEW, COUNT_OR_NOT, FAIL, CUT, HIDE] = [
  topic('count'),
  topic('anew'),
  topic('count-or-not'),
  topic('fail'),
  topic('cut'),
  topic('hide'),
];
const groupId = `group-${run}`;

const hosts: MessagesHost[] = [];
const calls: string[] = [];
let cuts = 0;
/** Sends what is to be healthy beside the failing message. */
let beside: () => Promise<void>;

@Controller()
class CountersController {
  @MessagePattern([COUNT, ANEW], BATCHABLE)
  @Transactional()
  async count(@Payload(ParsedValue) { name }: { name: string }) {
    await count(name);
    return { counted: name };
  }

  @MessagePattern(COUNT_OR_NOT, { ...BATCHABLE, digestHeaders: ['operation'] })
  @Transactional()
  async countOrNot(@Payload(ParsedValue) { name }: { name: string }, @Ctx() context: KafkaContext) {
    const operation = String(context.getMessage().headers!.operation);
    if (operation === 'count') await count(name);
    return { operation };
  }

  @MessagePattern(CUT, BATCHABLE)
  @Transactional()
  @UseFilters(MessageErrorFilter)
  async cut(@Payload(ParsedValue) { name }: { name: string }) {
    await count(name);
    if (cuts-- > 0)
      await currentTransaction()!.query({ text: 'SELECT pg_terminate_backend(pg_backend_pid())' });
    return { counted: name };
  }

  @MessagePattern(HIDE)
  hide(): never {
    throw new TypeError('could not count');
  }

  @OnEvent(FAIL)
  async fail(@Payload(ParsedValue) { name }: { name: string }) {
    calls.push(name);
    if (name !== 'bad') return;
    await beside();
    throw new TypeError('again and again');
  }
}

const start = async (transport: MessagesHostOptions['transport'] = {}) => {
  const host = await startMessagesHost(database, {
    controllers: [CountersController],
    transport: { groupId, ...transport },
  });
  hosts.push(host);
  return host;
};
const stop = async () => {
  for (const { app } of hosts.splice(0)) await app.close();
};
const committed = async () =>
  Number((await peer.admin.fetchOffsets({ groupId, topics: [COUNT] }))[0]!.partitions[0]!.offset);

const peer = duringTests(() => connectPeer());
const database = duringTests(() => createCountersDatabase());
afterEach(stop);

// @trap a topic is deleted and made anew
it('messages without an id in a topic that was deleted and made anew are no repetition of those in the old one', async () => {
  await start();
  await peer.ask(ANEW, '{"name":"anew"}', { key: 'k' });
  await stop();
  await peer.admin.deleteTopics({ topics: [ANEW] });
  await eventually(async () => !(await peer.admin.listTopics()).includes(ANEW));
  await start({ onOffsetOutOfRange: 'earliest' });
  // The same bytes, key, partition and offset as before. The producer has to learn that there is another topic.
  await eventually(() =>
    peer.emit(ANEW, { key: 'k', value: '{"name":"anew"}' }).then(
      () => true,
      () => false,
    ),
  );
  await eventually(async () => (await counters(database)).anew === 2);
});

// @trap the inbox is pruned before a late redelivery
it('the inbox forgets what is old and below the committed offset, and nothing else; what it forgot is applied again when it is sent again', async () => {
  const { store } = await start();
  const headers = { 'message-id': 'late' };
  const ids = async () => {
    const text = `SELECT message_id FROM message_inbox WHERE message_id IN ('late', 'next')`;
    return (await database.query<{ message_id: string }>(text)).map(({ message_id }) => message_id);
  };
  await peer.ask(COUNT, '{"name":"late"}', { headers });
  await peer.ask(COUNT, '{"name":"next"}', { headers: { 'message-id': 'next' } });
  const offset = BigInt(await eventually(async () => (await committed()) === 2 && 2));
  const below = [{ topic: COUNT, partition: 0, offset: offset - 1n }];
  const DAY = 24 * 60 * 60 * 1000;

  expect(await store.inbox.prune(groupId, below, DAY)).toBe(0);
  expect(await store.inbox.prune('another group', below, 0)).toBe(0);
  expect(await store.inbox.prune(groupId, [{ ...below[0]!, partition: 1 }], 0)).toBe(0);
  await peer.ask(COUNT, '{"name":"late"}', { headers });
  expect(await counters(database)).toMatchObject({ late: 1, next: 1 });

  expect(await store.inbox.prune(groupId, below, 0)).toBe(1);
  expect(await ids()).toEqual(['next']);
  await peer.ask(COUNT, '{"name":"late"}', { headers });
  expect(await counters(database)).toMatchObject({ late: 2, next: 1 });
});

// @trap the sender’s reply topic is gone
it('a sender whose reply topic is gone by then gets the first answer when it asks again', async () => {
  await start();
  const headers = { 'message-id': randomUUID() };
  const gone = { kafka_correlationId: 'nobody', kafka_replyTopic: topic('gone') };
  await peer.emit(COUNT, { key: 'k', value: '{"name":"asked twice"}', headers: { ...headers, ...gone } });
  await eventually(async () => (await counters(database))['asked twice'] === 1);
  const reply = await peer.ask(COUNT, '{"name":"asked twice"}', { key: 'k', headers });
  expect(reply).toEqual({ value: '{"counted":"asked twice"}', error: undefined });
  expect(await counters(database)).toMatchObject({ 'asked twice': 1 });
});

it('a sender whose handler makes something else of a database that is away is told to try again, too', async () => {
  await start();
  const name = new URL(database.url).pathname.slice(1);
  await onServer(async (query) => {
    await query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    await query(`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '${name}' AND application_name = 'nestjs-people'`); // prettier-ignore
  });
  const { error } = await peer.ask(HIDE, '{"name":"hidden"}');
  await onServer((query) => query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`));
  expect(error).toMatchObject({ code: 'DATABASE_UNAVAILABLE', retryable: true });
});

// @trap a sender is told that it failed for good when only the database was away
it('a sender whose transaction is cut off is told to try again, and is answered then', async () => {
  await start();
  cuts = 1;
  const headers = { 'message-id': randomUUID() };
  const ask = () => peer.ask(CUT, '{"name":"cut off"}', { key: 'k', headers });
  expect((await ask()).error).toMatchObject({ code: 'DATABASE_UNAVAILABLE', retryable: true });
  expect(await counters(database)).not.toHaveProperty('cut off');
  expect((await ask()).value).toBe('{"counted":"cut off"}');
  expect(await counters(database)).toMatchObject({ 'cut off': 1 });
});

it('a message that comes again is answered, and is no error in the log', async () => {
  await start();
  const errors: unknown[] = [];
  const quiet = () => undefined;
  Logger.overrideLogger({ log: quiet, warn: quiet, error: (message: unknown) => errors.push(message) });
  const headers = { 'message-id': randomUUID() };
  for (let n = 0; n < 2; n++)
    expect((await peer.ask(CUT, '{"name":"comes again"}', { key: 'k', headers })).error).toBeUndefined();
  Logger.overrideLogger(false);
  expect(errors).toEqual([]);
  expect(await counters(database)).toMatchObject({ 'comes again': 1 });
});

describe('the same id', () => {
  const send = (operation: string, headers: Record<string, string>, name = 'one id') =>
    peer.ask(COUNT_OR_NOT, JSON.stringify({ name }), { key: 'k', headers: { operation, ...headers } });

  // @trap the same id, another operation
  it('with another of the headers that the handler reads is a conflict, and changes nothing', async () => {
    await start();
    const id = { 'message-id': randomUUID() };
    expect((await send('skip', id)).value).toBe('{"operation":"skip"}');
    expect((await send('count', id)).error).toMatchObject({ code: 'MESSAGE_ID_CONFLICT', retryable: false });
    expect((await send('skip', id)).value).toBe('{"operation":"skip"}');
    expect(await counters(database)).not.toHaveProperty('one id');
  });

  it('with another trace is the same message', async () => {
    await start();
    const id = { 'message-id': randomUUID() };
    for (const traceparent of ['00-1-1-01', '00-2-2-01'])
      expect((await send('count', { ...id, traceparent }, 'another trace')).value).toBe(
        '{"operation":"count"}',
      );
    expect(await counters(database)).toMatchObject({ 'another trace': 1 });
  });

  // @trap an id conflict that nobody waits for
  it('of a message that asks for no reply, with another value, becomes a dead letter that says so', async () => {
    await start();
    const headers = { 'message-id': randomUUID() };
    for (const name of ['first', 'second'])
      await peer.emit(COUNT, { value: JSON.stringify({ name }), headers });
    const [letter] = await eventually(async () => {
      const letters = await database.query<{ code: string; value: Buffer }>('SELECT code, value FROM message_dead_letter WHERE topic = $1', [COUNT]); // prettier-ignore
      return letters.length > 0 && letters;
    });
    expect([letter!.code, String(letter!.value)]).toEqual(['MESSAGE_ID_CONFLICT', '{"name":"second"}']);
    expect(await counters(database)).toMatchObject({ first: 1 });
    expect(await counters(database)).not.toHaveProperty('second');
  });
});

// @trap healthy messages reset the count of attempts
it('a message that always fails is dead-lettered after its attempts, however many healthy ones pass by meanwhile', async () => {
  let sent = 0;
  beside = () => peer.emit(FAIL, { key: `key ${sent % 3}`, value: `{"name":"healthy ${++sent}"}` });
  await start({ maxAttempts: 4 });
  await peer.emit(FAIL, { key: 'bad', value: '{"name":"bad"}' });
  const [letter] = await eventually(async () => {
    const letters = await database.query<{ attempts: number }>(
      'SELECT attempts FROM message_dead_letter WHERE topic = $1',
      [FAIL],
    );
    return letters.length > 0 && letters;
  });
  expect(letter!.attempts).toBe(4);
  await eventually(() => calls.length === 8);
  expect(calls.filter((name) => name === 'bad')).toHaveLength(4);
  // Between two attempts somebody else was handled.
  expect(calls.slice(0, calls.indexOf('bad', calls.indexOf('bad') + 1))).toContain('healthy 1');
});
