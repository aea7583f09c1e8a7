import { Controller, type Type } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import { randomUUID } from 'node:crypto';
import { BATCHABLE } from '../../src/messaging/kafka.transport.js';
import { ClaimTakenError } from '../../src/transactions/transaction-errors.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { barrier, eventually } from '../support/barrier.js';
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
import { watchRetries } from '../support/retries.js';
import type { TestDatabase } from '../support/test-database.js';

const run = randomUUID();
const [HELD, BLOCKED, ANY, OTHER] = ['held', 'blocked', 'any-1', 'other'].map((name) => `${name}-${run}`) as [
  string,
  string,
  string,
  string,
];
/** The shortest that brokers allow is 6,000. */
const SESSION_MS = 6000;
const PAST_SESSION_MS = 7500;

let database: TestDatabase;
const hosts: MessagesHost[] = [];
let calls: string[] = [];
let release: () => void;
let released: Promise<void>;
let bothHold: () => Promise<void>;

@Controller()
class HoldsController {
  @OnEvent(HELD)
  async hold(@Payload(ParsedValue) { name }: { name: string }) {
    calls.push(name);
    if (name.startsWith('held') && calls.filter((call) => call === name).length === 1) await released;
  }
}

@Controller()
class BlocksController {
  @OnEvent(BLOCKED)
  @Transactional()
  async block(@Payload(ParsedValue) { name }: { name: string }) {
    calls.push(name);
    await count(name);
    // Nothing else runs in this process meanwhile, heartbeats included.
    if (name === 'blocks') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAST_SESSION_MS);
  }
}

function crossing(topic: string) {
  @Controller()
  class CrossesController {
    @MessagePattern(topic, BATCHABLE)
    @Transactional()
    async cross(@Payload(ParsedValue) { names: [first, second] }: { names: string[] }) {
      await count(first!);
      if (first === 'holder') return released;
      if (!second) return undefined;
      if (currentTransaction()!.attempt === 1) await bothHold();
      await count(second);
    }
  }
  return CrossesController;
}

@Controller()
class AnyController {
  @OnEvent(new RegExp(`^any-\\d-${run}$`))
  @Transactional()
  async any(@Payload(ParsedValue) { name }: { name: string }) {
    await count(name);
  }
}

const start = async (controller: Type, transport: MessagesHostOptions['transport'] = {}) => {
  const host = await startMessagesHost(database, { controllers: [controller], transport });
  hosts.push(host);
  await eventually(() => host.transport.unavailableReason === undefined, 20_000);
  return host;
};

const peer = duringTests(() => connectPeer());
beforeEach(async () => {
  calls = [];
  released = new Promise((resolve) => (release = resolve));
  database = await createCountersDatabase();
});
afterEach(async () => {
  release();
  await Promise.all(hosts.splice(0).map(({ app }) => app.close()));
  await database.drop();
});

// @trap a commit of the old owner sets back the new one’s
it('a message that is held while its partition moves to another instance does not set back what that one has committed', async () => {
  await peer.createTopics([HELD], 2);
  const groupId = `group-${randomUUID()}`;
  const committed = async () => {
    const [found] = await peer.admin.fetchOffsets({ groupId, topics: [HELD] });
    return new Map(found!.partitions.map(({ partition, offset }) => [partition, offset]));
  };
  await start(HoldsController, { groupId, concurrency: 4 });
  for (const partition of [0, 1])
    for (const name of [`held ${partition}`, `behind ${partition}`])
      await peer.emit(HELD, { partition, key: name, value: JSON.stringify({ name }) });
  await eventually(() => calls.length === 4);
  // None moves as long as the first of each is held.
  expect([...(await committed()).values()].some((offset) => Number(offset) > 0)).toBe(false);

  await start(HoldsController, { groupId, concurrency: 4 });
  const moved = await eventually(
    async () => [...(await committed())].find(([, offset]) => offset === '2'),
    20_000,
  );
  const [other] = [0, 1].filter((partition) => partition !== moved[0]);
  release();
  await eventually(async () => (await committed()).get(other!) === '2');
  expect((await committed()).get(moved[0])).toBe('2');
});

// @trap a handler that takes longer than the session
it('an instance whose handler takes longer than the session stays in the group, and is given the message once', async () => {
  const groupId = `group-${randomUUID()}`;
  const topic = `slow-${run}`;
  @Controller()
  class WaitsController {
    @OnEvent(topic)
    async wait(@Payload(ParsedValue) { name }: { name: string }) {
      calls.push(name);
      if (name === 'slow') await released;
    }
  }
  await start(WaitsController, { groupId, sessionTimeoutMs: SESSION_MS });
  const members = async () =>
    (await peer.admin.describeGroups([groupId])).groups[0]!.members.map(({ memberId }) => memberId);
  const before = await members();
  for (const name of ['slow', 'behind'])
    await peer.emit(topic, { key: 'k', value: JSON.stringify({ name }) });
  await eventually(() => calls.length === 1);
  const since = Date.now();
  await eventually(() => Date.now() - since > PAST_SESSION_MS);
  release();
  await eventually(() => calls.length === 2);
  expect(calls).toEqual(['slow', 'behind']);
  expect(await members()).toEqual(before);
});

// @trap the event loop is blocked longer than the session
it('an instance whose event loop is blocked longer than its session is put out of the group, comes back by itself, and has applied each message once', async () => {
  await peer.createTopics([BLOCKED]);
  const groupId = `group-${randomUUID()}`;
  await start(BlocksController, { groupId, sessionTimeoutMs: SESSION_MS });
  const members = async () =>
    (await peer.admin.describeGroups([groupId])).groups[0]!.members.map(({ memberId }) => memberId);
  const [before] = await members();
  for (const name of ['blocks', 'behind'])
    await peer.emit(BLOCKED, { key: 'k', value: JSON.stringify({ name }) });
  await eventually(async () => (await counters(database)).behind === 1, 20_000);
  const [after] = await eventually(async () => {
    const found = await members();
    return found.length === 1 && found[0] !== before && found;
  }, 20_000);
  expect(after).not.toBe(before);
  await peer.emit(BLOCKED, { key: 'k', value: '{"name":"afterwards"}' });
  await eventually(async () => (await counters(database)).afterwards === 1, 20_000);
  expect(await counters(database)).toEqual({ blocks: 1, behind: 1, afterwards: 1 });
});

// @trap a deadlock between batches
it.each([
  ['two messages of two batches of one', 1],
  ['two messages in the midst of two batches', 2],
])('%s that lock the same rows crosswise both end, each applied once', async (_, batchSize) => {
  const topic = `cross-${batchSize}-${run}`;
  bothHold = barrier(2);
  await start(crossing(topic), { concurrency: 2, batchSize });
  const sent = [['holder'], ['holder'], ['plain'], ['x', 'y'], ['plain too'], ['y', 'x']];
  const messages = sent.map((names, key) => ({ key: String(key), value: JSON.stringify({ names }) }));
  const all = batchSize === 1 ? messages.filter((_message, n) => n % 2 === 1 && n > 1) : messages;
  const { retries } = await watchRetries(async () => {
    await peer.emitAll(topic, all);
    if (batchSize > 1) release();
    await eventually(async () => {
      const { x, y } = await counters(database);
      return x === 2 && y === 2;
    });
  });
  // In a batch the wait for a lock may be over first: then the message is handled by itself.
  if (batchSize === 1) expect(retries.map(({ code }) => code)).toContain('40P01');
  const [left] = await database.query<{ letters: number; handled: number }>(
    'SELECT (SELECT count(*)::int FROM message_dead_letter) AS letters, (SELECT count(*)::int FROM message_inbox) AS handled',
  );
  expect(left).toEqual({ letters: 0, handled: all.length });
});

// @trap a deadlock of two who claim the same messages
it('two instances that claim the same messages in opposite orders never lock each other out', async () => {
  const { store } = await start(AnyController);
  const claim = async (messages: { consumer: string; messageId: string; digest: string }[]) =>
    store.transactions
      .run({ claim: store.inbox.claim(messages) }, (transaction) => transaction.query({ text: 'SELECT' }))
      .then(
        () => 'claimed',
        (error: unknown) => (error instanceof ClaimTakenError ? 'taken' : error),
      );
  const { retries } = await watchRetries(async () => {
    for (let round = 0; round < 1000; round++) {
      const messages = Array.from({ length: 20 }, (_, n) => ({
        ...{ consumer: 'both', messageId: `${round} ${n}`, digest: '' },
      }));
      const outcomes = await Promise.all([claim(messages), claim([...messages].reverse())]);
      expect(outcomes.sort()).toEqual(['claimed', 'taken']);
    }
  });
  expect(retries).toEqual([]);
});

it('a handler with a regular expression takes the messages of every topic that matches, and of no other', async () => {
  await peer.createTopics([ANY, OTHER]);
  await start(AnyController);
  await peer.emit(OTHER, { value: '{"name":"other"}' });
  await peer.emit(ANY, { value: '{"name":"any"}' });
  await eventually(async () => (await counters(database)).any === 1);
  await peer.emit(ANY, { value: 'no JSON' });
  await eventually(async () => (await database.query('SELECT FROM message_dead_letter')).length === 1);
  expect(await counters(database)).toEqual({ any: 1 });
});
