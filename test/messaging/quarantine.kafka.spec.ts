import { Controller } from '@nestjs/common';
import { Ctx, KafkaContext, MessagePattern, Payload } from '@nestjs/microservices';
import { randomUUID } from 'node:crypto';
import { BATCHABLE, KafkaTransport } from '../../src/messaging/kafka.transport.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { connectPeer } from '../support/kafka.js';
import { type MessagesHost, ParsedValue, startMessagesHost } from '../support/messages-host.js';
import { createDatabase } from '../support/test-database.js';

const run = randomUUID();
const [TOGETHER, ALONE] = [`together-${run}`, `alone-${run}`];
const groupId = `group-${run}`;

const hosts: MessagesHost[] = [];
/** Messages that can't be handled at the moment. */
const broken = new Set<string>();
/** What a message waits for once it has begun, and those that have. */
const held = new Map<string, Promise<void>>();
const begun: string[] = [];

async function apply(name: string, key: string): Promise<string> {
  begun.push(name);
  await held.get(name);
  if (broken.has(name)) throw new TypeError(`${name} is broken`);
  await currentTransaction()!.query({ text: 'INSERT INTO applied (key, name) VALUES ($1, $2)', values: [key, name] }); // prettier-ignore
  return name;
}

@Controller()
class NamesController {
  @MessagePattern(TOGETHER, BATCHABLE)
  @Transactional()
  together(@Payload(ParsedValue) { name }: { name: string }, @Ctx() context: KafkaContext) {
    return apply(name, String(context.getMessage().key));
  }

  @MessagePattern(ALONE)
  @Transactional()
  alone(@Payload(ParsedValue) { name }: { name: string }, @Ctx() context: KafkaContext) {
    return apply(name, String(context.getMessage().key));
  }
}

const start = async (quarantineKeys = true) => {
  const host = await startMessagesHost(database, {
    controllers: [NamesController],
    transport: { groupId, quarantineKeys, maxAttempts: 1, topics: { partitions: 2, replication: undefined } },
  });
  hosts.push(host);
  await eventually(() => host.transport.unavailableReason === undefined);
  return host;
};
const stop = async () => {
  for (const { app } of hosts.splice(0)) await app.close();
};
const letters = () => hosts[0]!.store.deadLetters;
const applied = async (key: string) => {
  const rows = await database.query<{ name: string }>('SELECT name FROM applied WHERE key = $1 ORDER BY n', [key]); // prettier-ignore
  return rows.map(({ name }) => name);
};
const waiting = async (key: string) =>
  (await letters().list({ key })).map(({ messageId, state, code }) => `${messageId} ${state} ${code}`);
const quarantines = async () => (await database.query('SELECT FROM message_quarantine')).length;

const peer = duringTests(() => connectPeer());
const database = duringTests(() => createDatabase());
beforeAll(async () => {
  await database.query('CREATE TABLE applied (n int GENERATED ALWAYS AS IDENTITY, key text, name text)');
});
beforeEach(() => broken.clear());
afterEach(async () => {
  await stop();
  await database.query('DELETE FROM message_quarantine; DELETE FROM message_dead_letter');
});

describe.each([
  ['that share a transaction', TOGETHER],
  ['with one of their own', ALONE],
])('of messages %s', (_, topic) => {
  let key: string;
  const names = (...all: string[]) => all.map((name) => `${key} ${name}`);
  /** In one request, so that they may come in one batch. */
  const send = (...sent: string[]) =>
    peer.emitAll(
      topic,
      names(...sent).map((name) => ({
        key: name.startsWith('other') ? name : key,
        value: JSON.stringify({ name }),
        headers: { 'message-id': name },
      })),
    );
  const breakDown = (...these: string[]) => names(...these).forEach((name) => broken.add(name));
  const states = (...expected: [name: string, state: string][]) =>
    expected.map(([name, state]) => `${key} ${name} ${state}`);
  /** 1 is handled, 2 is a dead letter, 3 and 4 are parked. */
  const quarantine = async () => {
    breakDown('2');
    await send('1', '2', '3', '4');
    await eventually(async () => (await waiting(key)).length === 3);
  };

  beforeEach(() => {
    key = randomUUID();
  });

  it('those behind a dead letter of their key are parked and listed; other keys, and messages without one, go on', async () => {
    await start();
    await quarantine();
    const other = randomUUID();
    for (const its of [other, null])
      await peer.emit(topic, { key: its, value: JSON.stringify({ name: `beside ${String(its)}` }) });
    await eventually(async () => (await applied(other)).length === 1 && (await applied('null')).length > 0);
    expect(await waiting(key)).toEqual(
      states(['2', 'dead error'], ['3', 'parked KEY_QUARANTINED'], ['4', 'parked KEY_QUARANTINED']),
    );
    expect(await applied(key)).toEqual(names('1'));
    await database.query(`DELETE FROM applied WHERE key = 'null'`);
  });

  // @trap messages behind a dead letter overtake it
  it('a replayed dead letter, what is parked, and what comes then are applied in the order they came', async () => {
    await start();
    await quarantine();
    broken.clear();
    expect(await letters().replay({ key, error: 'error' })).toBe(1);
    await send('5');
    await eventually(async () => (await applied(key)).length === 5);
    await eventually(async () => (await quarantines()) === 0);
    await send('6');
    await eventually(async () => (await applied(key)).length === 6);
    expect(await applied(key)).toEqual(names('1', '2', '3', '4', '5', '6'));
    expect(await waiting(key)).toEqual([]);
  });

  it('what comes while the parked ones are handled goes behind them', async () => {
    await start();
    await quarantine();
    broken.clear();
    let release!: () => void;
    held.set(`${key} 3`, new Promise((resolve) => (release = resolve)));
    await letters().replay({ key });
    await eventually(() => begun.includes(`${key} 3`));
    await send('5');
    release();
    await eventually(async () => (await applied(key)).length === 5);
    expect(await applied(key)).toEqual(names('1', '2', '3', '4', '5'));
  });

  it('a discarded dead letter lets what is parked be handled; a discarded parked one is not', async () => {
    await start();
    await quarantine();
    expect(await letters().discard({ id: `${key} 3` })).toBe(1);
    expect(await quarantines()).toBe(1);
    expect(await letters().discard({ id: `${key} 2` })).toBe(1);
    await eventually(async () => (await quarantines()) === 0);
    expect(await applied(key)).toEqual(names('1', '4'));
    expect(await waiting(key)).toEqual([]);
  });

  it('a parked one that can not be handled either stops its line again, in its place', async () => {
    await start();
    await quarantine();
    broken.clear();
    breakDown('3');
    await letters().replay({ key });
    await eventually(async () => (await waiting(key)).some((text) => text.includes('3 dead')));
    await send('5');
    await eventually(async () => (await waiting(key)).length === 3);
    expect(await waiting(key)).toEqual(
      states(['3', 'dead error'], ['4', 'parked KEY_QUARANTINED'], ['5', 'parked KEY_QUARANTINED']),
    );
    expect(await applied(key)).toEqual(names('1', '2'));
    broken.clear();
    await letters().replay({ id: `${key} 3` });
    await eventually(async () => (await applied(key)).length === 5);
    expect(await applied(key)).toEqual(names('1', '2', '3', '4', '5'));
  });

  it('one that comes twice is parked once and applied once, before and after', async () => {
    await start();
    await quarantine();
    await send('1', '3', '3', '4', '2');
    await send('5');
    await eventually(async () => (await waiting(key)).some((text) => text.includes('5 parked')));
    expect(await waiting(key)).toHaveLength(4);
    broken.clear();
    await letters().replay({ key });
    await eventually(async () => (await applied(key)).length === 5);
    await send('4', '6');
    await eventually(async () => (await applied(key)).length === 6);
    expect(await applied(key)).toEqual(names('1', '2', '3', '4', '5', '6'));
  });

  it('one with the id of another is not taken for it: it is parked, and then told apart', async () => {
    await start();
    await quarantine();
    await peer.emit(topic, { key, value: '{"name":"false"}', headers: { 'message-id': `${key} 1` } });
    await eventually(async () => (await waiting(key)).length === 4);
    broken.clear();
    await letters().replay({ key });
    await eventually(async () =>
      (await waiting(key)).some((text) => text.endsWith('dead MESSAGE_ID_CONFLICT')),
    );
    expect(await waiting(key)).toHaveLength(1);
    expect(await applied(key)).toEqual(names('1', '2', '3', '4'));
  });

  it('one with the id and the bytes of a parked one, and another header, is not taken for it', async () => {
    await start();
    await quarantine();
    const headers = { 'message-id': `${key} 3`, operation: 'another' };
    await peer.emit(topic, { key, value: JSON.stringify({ name: `${key} 3` }), headers });
    await eventually(async () => (await waiting(key)).length === 4);
  });

  it('one without an id is not taken for another that has its place as an id', async () => {
    await start();
    await quarantine();
    const message = { key, value: JSON.stringify({ name: `${key} same` }), timestamp: '1700000000000' };
    const { partition, offset } = (await letters().list({ key })).at(-1)!;
    // The one that takes the name comes between.
    const place = `${topic}-${partition}-${BigInt(offset) + 2n}-${message.timestamp}`;
    const headers = { 'message-id': place };
    await peer.emit(topic, { ...message, headers });
    await peer.emit(topic, message);
    await eventually(async () => (await waiting(key)).length === 5);
    broken.clear();
    await letters().replay({ key });
    await eventually(async () =>
      (await waiting(key)).some((text) => text.endsWith('dead MESSAGE_ID_CONFLICT')),
    );
    expect(await applied(key)).toEqual(names('1', '2', '3', '4', 'same'));
  });

  it('a request is told to come again once the key is released, and then is handled', async () => {
    await start();
    await quarantine();
    const ask = () => peer.ask(topic, JSON.stringify({ name: `${key} 5` }), { key, headers: { 'message-id': `${key} 5` } }); // prettier-ignore
    expect((await ask()).error).toMatchObject({ code: 'KEY_QUARANTINED', retryable: true });
    broken.clear();
    await letters().replay({ key });
    await eventually(async () => (await quarantines()) === 0);
    expect((await ask()).value).toContain(`${key} 5`);
    expect(await applied(key)).toEqual(names('1', '2', '3', '4', '5'));
  });

  it('an instance that comes later knows what is quarantined, and handles what is released, whatever its own option', async () => {
    await start();
    await quarantine();
    await stop();
    await send('5');
    await start(false);
    await eventually(async () => (await waiting(key)).length === 4);
    expect(await applied(key)).toEqual(names('1'));
    broken.clear();
    await letters().replay({ key });
    await eventually(async () => (await applied(key)).length === 5);
    expect(await applied(key)).toEqual(names('1', '2', '3', '4', '5'));
  });

  it('one that was handled, and could not be marked so, is not applied again', async () => {
    await start();
    await quarantine();
    broken.clear();
    await database.query(
      `CREATE SEQUENCE failures;
       CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         IF NEW.state = 'replayed' AND nextval('failures') = 1 THEN RAISE 'not this time'; END IF; RETURN NEW; END $$;
       CREATE TRIGGER fail_once BEFORE UPDATE ON message_dead_letter FOR EACH ROW EXECUTE FUNCTION fail_once()`,
    );
    await letters().replay({ key });
    await eventually(async () => (await quarantines()) === 0);
    expect((await database.query<{ failures: string }>('SELECT last_value AS failures FROM failures'))[0]!.failures).not.toBe('1'); // prettier-ignore
    await database.query('DROP FUNCTION fail_once CASCADE; DROP SEQUENCE failures');
    expect(await applied(key)).toEqual(names('1', '2', '3', '4'));
  });
});

it('two instances hold back the same keys, wherever the partition of a key goes', async () => {
  await start();
  const keys = Array.from({ length: 8 }, () => randomUUID());
  const send = (name: string) =>
    peer.emitAll(
      ALONE,
      keys.map((key) => ({ key, value: JSON.stringify({ name: `${key} ${name}` }) })),
    );
  for (const key of keys) broken.add(`${key} 1`);
  await send('1');
  await eventually(async () => (await quarantines()) === keys.length);
  await start();
  await send('2');
  const parked = async () => (await letters().list()).filter(({ state }) => state === 'parked');
  await eventually(async () => (await parked()).length === keys.length);
  await hosts.shift()!.app.close();
  await send('3');
  await eventually(async () => (await parked()).length === 2 * keys.length);
  await start();
  broken.clear();
  for (const key of keys) await letters().replay({ key });
  await eventually(async () => (await quarantines()) === 0);
  for (const key of keys) expect(await applied(key)).toEqual(['1', '2', '3'].map((name) => `${key} ${name}`));
});

it('a dead letter is forgotten once it was settled long ago and has left the outbox, and not before', async () => {
  await start();
  await database.query(
    `WITH letters AS (
       INSERT INTO message_dead_letter (consumer, message_id, topic, partition, "offset", "timestamp", headers, code, message, attempts, state, settled_at)
       SELECT 'c', id, 't', 0, 0, '0', '[]', 'C', '', 1, state, now() - age
       FROM (VALUES ('waiting', 'dead', NULL), ('just settled', 'discarded', '1 hour'), ('old', 'discarded', '2 days'),
         ('old, not sent', 'replayed', '2 days')) l (id, state, age_text), LATERAL (SELECT age_text::interval) a (age)
       RETURNING seq, message_id)
     INSERT INTO message_outbox (aggregatetype, aggregateid, type, topic, dead_letter, next_attempt_at)
     SELECT 'replay', 'a', 'replay', 't', seq, now() + '1 hour' FROM letters WHERE message_id = 'old, not sent'`,
  );
  expect(await letters().prune(24 * 60 * 60 * 1000)).toBe(1);
  const left = await database.query<{ id: string }>(
    'SELECT message_id AS id FROM message_dead_letter ORDER BY seq',
  );
  expect(left.map(({ id }) => id)).toEqual(['waiting', 'just settled', 'old, not sent']);
  await database.query('DELETE FROM message_outbox');
});

it('needs a store, and says so', () => {
  const options = {
    client: { brokers: ['localhost:9092'] },
    groupId,
    concurrency: 1,
    topics: { partitions: 1, replication: undefined },
  };
  expect(() => new KafkaTransport({ ...options, quarantineKeys: true })).toThrow(
    /quarantineKeys needs a store/,
  );
});
