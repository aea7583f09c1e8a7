import { Controller, UseFilters } from '@nestjs/common';
import { KafkaRetriableException, MessagePattern, Payload } from '@nestjs/microservices';
import { randomUUID } from 'node:crypto';
import { MessageErrorFilter } from '../../src/errors/error-responses.js';
import { driverFactory } from '../../src/messaging/kafka/clients.js';
import type { KafkaDriver } from '../../src/messaging/kafka-driver.js';
import { BATCHABLE } from '../../src/messaging/kafka.transport.js';
import type { KafkaTransportOptions } from '../../src/messaging/kafka/transport-options.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually as soon } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { connectPeer } from '../support/kafka.js';
import { type MessagesHost, ParsedValue, startMessagesHost } from '../support/messages-host.js';
import { createDatabase } from '../support/test-database.js';

/** Thousands of messages take their time on a machine that has much else to do. */
const eventually: typeof soon = (condition, atMostMs = 0) => soon(condition, Math.max(50_000, atMostMs));

const run = randomUUID();
const [TOGETHER, ALONE, TIMED, PLAIN, SPLIT] = ['together', 'alone', 'timed', 'plain', 'split'].map((name) => `${name}-${run}`) as [string, string, string, string, string]; // prettier-ignore
const groupId = `group-${run}`;
const BUFFER = 40;
const BACKLOG = 150;

const hosts: MessagesHost[] = [];
/** Messages that can't be handled at the moment, but later. */
const blocked = new Set<string>();
/** Messages that never can be. */
const bad = new Set<string>();
/** What a message waits for once it has begun, and how often each has begun. */
const held = new Map<string, Promise<void>>();
const begun = new Map<string, number>();
/** What was handled outside of transactions, in order. */
const plain: string[] = [];

async function begin(name: string): Promise<void> {
  begun.set(name, (begun.get(name) ?? 0) + 1);
  await held.get(name);
  if (bad.has(name)) throw new TypeError(`${name} is bad`);
  if (blocked.has(name)) throw new KafkaRetriableException(`${name} is blocked`);
}

async function apply(name: string): Promise<string> {
  await begin(name);
  await currentTransaction()!.query({ text: 'INSERT INTO applied (name) VALUES ($1)', values: [name] });
  return name;
}

interface Value {
  name: string;
}

@Controller()
class NamesController {
  @MessagePattern(TOGETHER, BATCHABLE)
  @Transactional()
  together(@Payload(ParsedValue) { name }: Value) {
    return apply(name);
  }

  @MessagePattern(ALONE)
  @Transactional()
  alone(@Payload(ParsedValue) { name }: Value) {
    return apply(name);
  }

  @MessagePattern(TIMED)
  @UseFilters(MessageErrorFilter)
  @Transactional({ statementTimeoutMs: 50 })
  async timed(@Payload(ParsedValue) { name }: Value) {
    const isBlocked = blocked.has(name);
    if (!isBlocked) return apply(name);
    begun.set(name, (begun.get(name) ?? 0) + 1);
    await currentTransaction()!.query({ text: 'SELECT pg_sleep(1)' });
  }

  @MessagePattern([PLAIN, SPLIT])
  async plain(@Payload(ParsedValue) { name }: Value) {
    await begin(name);
    plain.push(name);
  }
}

const start = async (options: Partial<KafkaTransportOptions> = {}) => {
  const host = await startMessagesHost(database, {
    controllers: [NamesController],
    transport: { groupId, bufferMessages: BUFFER, maxAttempts: 1, ...options },
  });
  hosts.push(host);
  await eventually(() => host.transport.unavailableReason === undefined, 30_000);
  return host;
};
const stop = async () => {
  for (const { app } of hosts.splice(0)) await app.close();
};
const letters = () => hosts[0]!.store.deadLetters;
const applied = async (label: string) => {
  const rows = await database.query<{ name: string }>('SELECT name FROM applied WHERE starts_with(name, $1) ORDER BY n', [`${label} `]); // prettier-ignore
  return rows.map(({ name }) => name);
};
const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => String(from + n)); // prettier-ignore
/** Messages without a key are called `no key <which>`. */
const message = (label: string, name: string, text = '') => ({
  key: label.startsWith('no key') ? null : label,
  value: JSON.stringify({ name: `${label} ${name}`, text }),
  headers: { 'message-id': `${label} ${name}` },
});
const namesOf = (label: string, names: string[]) => names.map((name) => `${label} ${name}`);
const send = (topic: string, key: string, names: string[], text?: string) =>
  peer.emitAll(topic, names.map((name) => message(key, name, text))); // prettier-ignore
/** Sends the key's message 1, which fails, and what stands behind it. */
const block = async (topic: string, key: string, behind: number, text?: string) => {
  blocked.add(`${key} 1`);
  await send(topic, key, ['1'], text);
  await eventually(() => (begun.get(`${key} 1`) ?? 0) > 0);
  for (let from = 2; from <= behind + 1; from += 500)
    await send(topic, key, numbers(from, Math.min(from + 499, behind + 1)), text);
};
/** Sends one message of each of ten other keys, and waits for them; twice, as the first may be in a fetch that is under way. */
const othersGoOn = async (topic: string) => {
  for (const round of ['goes on', 'goes on again']) {
    const keys = numbers(1, 10).map(() => `other ${randomUUID()}`);
    await peer.emitAll(topic, keys.map((each) => message(each, round))); // prettier-ignore
    await eventually(async () => {
      const done = topic === PLAIN ? plain : (await Promise.all(keys.map(applied))).flat();
      return keys.every((each) => done.includes(`${each} ${round}`));
    }, 20_000);
  }
};
const rowsOf = async (what: string) => (await database.query<{ n: number }>(`SELECT count(*)::int AS n FROM ${what}`))[0]!.n; // prettier-ignore
const parked = () => rowsOf(`message_dead_letter WHERE state = 'parked'`);
const isEmpty = async () =>
  (await rowsOf('message_quarantine')) + (await rowsOf('message_dead_letter')) === 0;
/** True once the group has committed everything. */
const isCommitted = async (topic: string) => {
  const [[committed], ends] = await Promise.all([peer.admin.fetchOffsets({ groupId, topics: [topic] }), peer.admin.fetchTopicOffsets(topic)]); // prettier-ignore
  return ends.every(({ partition, high }) => high === '0' || committed!.partitions.some((at) => at.partition === partition && at.offset === high)); // prettier-ignore
};
const allApplied = async (topic: string, key: string, last: number) => {
  const done = async () => ([PLAIN, SPLIT].includes(topic) ? plain.filter((name) => name.startsWith(`${key} `)) : await applied(key)); // prettier-ignore
  await eventually(async () => (await done()).length >= last, 30_000);
  expect(await done()).toEqual(namesOf(key, numbers(1, last)));
};

let key: string;
const peer = duringTests(() => connectPeer());
const database = duringTests(() => createDatabase());
beforeAll(async () => {
  await peer.createTopics([SPLIT], 2);
  await database.query('CREATE TABLE applied (n int GENERATED ALWAYS AS IDENTITY, name text)');
});
beforeEach(() => {
  key = randomUUID();
});
afterEach(async () => {
  for (const set of [blocked, bad, held]) set.clear();
  await stop();
  await database.query(`DELETE FROM message_quarantine; DELETE FROM message_dead_letter`); // prettier-ignore
});

describe.each([
  ['that share a transaction', TOGETHER],
  ['with one of their own', ALONE],
  ['that time out in the database', TIMED],
  ['without one', PLAIN],
])('of messages %s', (_, topic) => {
  // @trap a message that is tried again for ever, with a backlog of its key
  it('a key whose head fails again and again, with more behind it than the buffer takes, delays no other; then all of it is handled, once and in order', async () => {
    await start();
    await block(topic, key, BACKLOG);
    await othersGoOn(topic);
    await eventually(() => isCommitted(topic));
    // Behind what waits.
    await send(topic, key, numbers(BACKLOG + 2, BACKLOG + 11));
    await othersGoOn(topic);
    blocked.clear();
    await allApplied(topic, key, BACKLOG + 11);
    await eventually(isEmpty);
  });

  it('messages without a key, likewise, delay no key', async () => {
    await start();
    const none = `no key ${key}`;
    await block(topic, none, BACKLOG);
    await othersGoOn(topic);
    blocked.clear();
    await allApplied(topic, none, BACKLOG + 1);
    await eventually(isEmpty);
  });

  it('a message that is being handled for long, with more behind it than the buffer takes, delays no other key', async () => {
    await start();
    let release!: () => void;
    held.set(`${key} 1`, new Promise((resolve) => (release = resolve)));
    await send(topic, key, numbers(1, BACKLOG));
    await othersGoOn(topic);
    release();
    await allApplied(topic, key, BACKLOG);
    expect(begun.get(`${key} 1`)).toBe(1);
    await eventually(isEmpty);
  });
});

it('many keys whose heads fail, more than may run at once, and each with little behind it, delay no other', async () => {
  await start();
  const keys = numbers(1, 30).map(() => randomUUID());
  for (const each of keys) blocked.add(`${each} 1`);
  await peer.emitAll(ALONE, keys.flatMap((each) => numbers(1, 3).map((name) => message(each, name)))); // prettier-ignore
  await othersGoOn(ALONE);
  blocked.clear();
  for (const each of keys) await allApplied(ALONE, each, 3);
  await eventually(isEmpty);
});

it('what counts is bytes as well', async () => {
  await start({ bufferMessages: 5000, bufferBytes: 200_000 });
  await block(ALONE, key, 40, 'x'.repeat(10_000));
  await othersGoOn(ALONE);
  blocked.clear();
  await allApplied(ALONE, key, 41);
});

it('with the buffer that there is by default', async () => {
  await start({ bufferMessages: 5000 });
  await block(TOGETHER, key, 6000);
  await othersGoOn(TOGETHER);
  blocked.clear();
  await eventually(isEmpty, 60_000);
  expect(await applied(key)).toEqual(namesOf(key, numbers(1, 6001)));
}, 120_000);

it('a request of such a key is told to come again, whether it waited already or comes then', async () => {
  await start();
  blocked.add(`${key} 1`);
  await send(ALONE, key, ['1']);
  await eventually(() => (begun.get(`${key} 1`) ?? 0) > 0);
  const ask = () => peer.ask(ALONE, JSON.stringify({ name: `${key} asked` }), { key, headers: { 'message-id': `${key} asked` } }); // prettier-ignore
  const waiting = ask();
  await send(ALONE, key, numbers(2, BACKLOG));
  const refused = { code: 'KEY_WAITS', retryable: true };
  expect((await waiting).error).toMatchObject(refused);
  await eventually(async () => (await parked()) === BACKLOG);
  expect((await ask()).error).toMatchObject(refused);
  blocked.clear();
  await allApplied(ALONE, key, BACKLOG);
  await eventually(isEmpty);
  expect((await ask()).value).toContain(`${key} asked`);
});

it('an instance that comes later goes on where the line was, once each and in order', async () => {
  await start();
  await block(ALONE, key, BACKLOG);
  await eventually(async () => (await parked()) > BUFFER);
  await stop();
  await send(ALONE, key, numbers(BACKLOG + 2, BACKLOG + 20));
  blocked.clear();
  let release!: () => void;
  held.set(`${key} 70`, new Promise((resolve) => (release = resolve)));
  await start();
  await eventually(() => begun.has(`${key} 70`), 30_000);
  const stopping = stop();
  release();
  await stopping;
  await start();
  await allApplied(ALONE, key, BACKLOG + 20);
  await eventually(isEmpty);
});

it('when its offsets could not be committed all of it comes again, and each is handled once and in order', async () => {
  const create = await driverFactory('kafkajs');
  await start({ driver: (settings, logger) => neverCommits(create(settings, logger)) });
  const others = [randomUUID(), randomUUID()];
  await block(TOGETHER, key, BACKLOG);
  for (const each of others) await block(ALONE, each, BACKLOG);
  await othersGoOn(ALONE);
  await stop();
  await start();
  await othersGoOn(TOGETHER);
  blocked.clear();
  await allApplied(TOGETHER, key, BACKLOG + 1);
  for (const each of others) await allApplied(ALONE, each, BACKLOG + 1);
  await eventually(isEmpty);
});

it('partitions that go to another instance in the midst of it take their lines along', async () => {
  const topics = { partitions: 4, replication: undefined };
  await start({ topics });
  const keys = numbers(1, 8).map(() => randomUUID());
  for (const each of keys) await block(ALONE, each, 20);
  await eventually(async () => (await parked()) > 8 * 10);
  await start({ topics });
  for (const each of keys) await send(ALONE, each, numbers(22, 30));
  await othersGoOn(ALONE);
  blocked.clear();
  await eventually(() => begun.has(`${keys[0]} 5`), 30_000);
  await hosts.shift()!.app.close();
  for (const each of keys) await allApplied(ALONE, each, 30);
  await eventually(isEmpty);
});

it('one of the line that can not be handled is a dead letter, and the others go on', async () => {
  await start();
  bad.add(`${key} 3`);
  await block(TOGETHER, key, BACKLOG);
  await othersGoOn(TOGETHER);
  blocked.clear();
  await eventually(async () => (await applied(key)).length === BACKLOG, 20_000);
  expect(await applied(key)).toEqual(namesOf(key, numbers(1, BACKLOG + 1).filter((n) => n !== '3'))); // prettier-ignore
  await eventually(async () => (await parked()) === 0);
  expect(await letters().list({ key })).toMatchObject([{ state: 'dead', code: 'error' }]);
});

it('with quarantineKeys the others wait for that dead letter to be replayed', async () => {
  await start({ quarantineKeys: true });
  bad.add(`${key} 3`);
  await block(TOGETHER, key, BACKLOG);
  await othersGoOn(TOGETHER);
  blocked.clear();
  await eventually(async () => (await letters().list({ key, error: 'error' })).length === 1, 20_000);
  await send(TOGETHER, key, [String(BACKLOG + 2)]);
  await eventually(async () => (await parked()) === BACKLOG - 1);
  expect(await applied(key)).toEqual(namesOf(key, ['1', '2']));
  bad.clear();
  await letters().replay({ key, error: 'error' });
  await allApplied(TOGETHER, key, BACKLOG + 2);
});

it('the line is listed with its reason; when its head is discarded the rest goes on', async () => {
  await start();
  await block(ALONE, key, BACKLOG);
  await eventually(async () => (await parked()) === BACKLOG + 1);
  const list = await letters().list({ key });
  expect(list.every(({ state, code }) => state === 'parked' && code === 'KEY_WAITS')).toBe(true);
  expect(list.map(({ messageId }) => messageId)).toEqual(numbers(1, BACKLOG + 1).map((n) => `${key} ${n}`)); // prettier-ignore
  await letters().discard({ id: `${key} 1` });
  await eventually(async () => (await applied(key)).length === BACKLOG, 20_000);
  expect(await applied(key)).toEqual(namesOf(key, numbers(2, BACKLOG + 1)));
});

it('while the store takes nothing aside, what waits stays in memory, and nothing is lost', async () => {
  await start();
  await database.query(
    `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$;
     CREATE TRIGGER refuse BEFORE INSERT ON message_quarantine FOR EACH ROW EXECUTE FUNCTION refuse()`,
  );
  await block(ALONE, key, BACKLOG);
  await eventually(() => (begun.get(`${key} 1`) ?? 0) > 3);
  expect(await isEmpty()).toBe(true);
  await database.query('DROP FUNCTION refuse CASCADE');
  await othersGoOn(ALONE);
  blocked.clear();
  await allApplied(ALONE, key, BACKLOG + 1);
});

it('where that is chosen, a message that only ever fails for a reason that may pass becomes a dead letter, also out of the line', async () => {
  await start({ maxTransientAttempts: 4 });
  await block(ALONE, key, BACKLOG);
  await eventually(async () => (await applied(key)).length === BACKLOG, 30_000);
  // What was parked is marked a little after it was applied.
  const left = await eventually(async () => {
    const found = await letters().list({ key });
    return found.length === 1 && found;
  });
  expect(left).toMatchObject([{ state: 'dead', attempts: 4 }]);
  expect(begun.get(`${key} 1`)).toBe(4);
});

it('without a store only the partition of the key that waits is paused', async () => {
  await start({ store: undefined });
  const [at, beside] = [0, 1].map((partition) => (name: string) => ({ ...message(`${key} of ${partition}`, name), partition })); // prettier-ignore
  blocked.add(`${key} of 0 1`);
  await peer.emitAll(SPLIT, numbers(1, BACKLOG).map(at!)); // prettier-ignore
  await eventually(() => (begun.get(`${key} of 0 1`) ?? 0) > 1);
  for (const part of [numbers(1, 100), numbers(101, 200)]) {
    await peer.emitAll(SPLIT, part.map(beside!)); // prettier-ignore
    await eventually(() => plain.includes(`${key} of 1 ${part.at(-1)}`), 20_000);
  }
  blocked.clear();
  await allApplied(SPLIT, `${key} of 0`, BACKLOG);
  await allApplied(SPLIT, `${key} of 1`, 200);
});

/** The driver, whose consumers' commits come to nothing, as those of a process that ends before them. */
function neverCommits(driver: KafkaDriver): KafkaDriver {
  return {
    raw: driver.raw,
    createMissingTopics: (topics, settings) => driver.createMissingTopics(topics, settings),
    producer: () => driver.producer(),
    consume: async (settings, listener) => {
      const consumer = await driver.consume(settings, listener);
      return {
        raw: consumer.raw,
        pause: (partitions) => consumer.pause(partitions),
        resume: (partitions) => consumer.resume(partitions),
        commit: () => Promise.resolve(),
        close: () => consumer.close(),
      };
    },
  };
}
