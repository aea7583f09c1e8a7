import { Controller } from '@nestjs/common';
import { Payload } from '@nestjs/microservices';
import type { KafkaMessage } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { relayStatements } from '../../src/messaging/outbox/statements.js';
import { Outbox } from '../../src/messaging/outbox.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import {
  count,
  counters,
  createCountersDatabase,
  ParsedValue,
  startMessagesHost,
  OnEvent,
} from '../support/messages-host.js';
import { startPeopleApp } from '../support/people-app.js';

const run = randomUUID();
const GROUP = `group-${run}`;
const APPLIED = `applied-${run}`;
const LATER = `later-${run}`;

const events: KafkaMessage[] = [];

const peer = duringTests(() => new KafkaPeer());
const app = duringTests(() => startKafkaApp(peer, { KAFKA_GROUP_ID: GROUP }));
/** Another instance of the service, on the same database. */
const other = duringTests(() =>
  startPeopleApp({ KAFKA_BROKERS: process.env.TEST_KAFKA_BROKERS!, KAFKA_GROUP_ID: GROUP }, app.database),
);
beforeAll(async () => {
  const seen = new Set<string>();
  await peer.consume(['people.events'], (event) => {
    const id = String(event.headers?.ce_id);
    // It may come again: when another of those that were sent with it was refused.
    if (!seen.has(id)) events.push(event);
    seen.add(id);
  });
});

const namesOf = (id: string) =>
  events.filter(({ key }) => String(key) === id).map(({ value }) => JSON.parse(String(value)).name as string);
const waiting = (id: string) =>
  app.database.query<{ type: string; last_error: string | null }>(
    'SELECT type, last_error FROM message_outbox WHERE aggregateid = $1 ORDER BY seq',
    [id],
  );

/** Two ids whose events are in one shard: the relay reads them one after the other. */
async function idsOfOneShard(): Promise<[string, string]> {
  const [ids] = await app.database.query<{ a: string; b: string }>(
    `WITH ids AS (SELECT id, abs(hashtext(id::text) % 16) AS shard FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 100)) new)
     SELECT a.id AS a, b.id AS b FROM ids a JOIN ids b USING (shard) WHERE a.id <> b.id LIMIT 1`,
  );
  return [ids!.a, ids!.b];
}

// @trap an event with a lower number commits later
it('an event that commits later than one with a higher number is sent as well, and in the order of its aggregate', async () => {
  const [late, early] = await idsOfOneShard();
  let release!: () => void;
  const held = new Promise<void>((resolve) => (release = resolve));
  let isWritten!: () => void;
  const written = new Promise<void>((resolve) => (isWritten = resolve));
  const unit = app.transactions.run({}, async () => {
    await app.people.create({ id: late, name: 'created' });
    isWritten();
    await held;
  });
  await written;
  await app.people.create({ id: early, name: 'early' });
  await eventually(() => namesOf(early).length === 1);
  expect(namesOf(late)).toEqual([]);
  release();
  await unit;
  await app.people.update(late, { name: 'updated' });
  await eventually(() => namesOf(late).length === 2);
  expect(namesOf(late)).toEqual(['created', 'updated']);
});

// @trap two relays
it('two instances send the events of each person in the order of its changes', async () => {
  const ids = Array.from({ length: 20 }, () => randomUUID());
  const names = Array.from({ length: 15 }, (_, n) => String(n));
  await Promise.all(
    ids.map(async (id) => {
      await app.people.create({ id, name: names[0]! });
      for (const [n, name] of names.slice(1).entries())
        await (n % 2 ? app : other).people.update(id, { name });
    }),
  );
  await eventually(() => ids.every((id) => namesOf(id).length >= names.length), 20_000);
  for (const id of ids) expect(namesOf(id)).toEqual(names);
});

it('units that change one person at once publish in the order in which they held its row', async () => {
  const { id } = await app.people.create({ name: 'before' });
  const names = Array.from({ length: 30 }, (_, n) => `change ${n}`);
  await Promise.all(names.map((name, n) => (n % 2 ? app : other).people.update(id, { name })));
  await eventually(() => namesOf(id).length === names.length + 1);
  expect(namesOf(id).at(-1)).toBe((await app.people.get(id)).name);
  expect(namesOf(id).slice(1).sort()).toEqual([...names].sort());
});

// @trap an event that is too large
it('an event that is too large for its topic is sent as a reference, in its place, and nothing waits', async () => {
  const [large] = await idsOfOneShard();
  await app.people.create({ id: large, name: 'large', data: { text: 'x'.repeat(1_048_560) } });
  await app.people.update(large, { name: 'behind', data: null });
  await eventually(() => events.filter(({ key }) => String(key) === large).length === 2);
  const [reference, behind] = events.filter(({ key }) => String(key) === large);
  const dataref = `/people/${large}`;
  expect(JSON.parse(String(reference!.value))).toEqual({ id: large, dataref });
  expect(String(reference!.headers!.ce_dataref)).toBe(dataref);
  expect(String(reference!.headers!.ce_type)).toBe('person.created');
  expect(String(behind!.value)).toContain('"behind"');
  expect(behind!.headers!.ce_dataref).toBeUndefined();
  await eventually(async () => (await waiting(large)).length === 0);
});

describe('an event that the brokers refuse delays its own aggregate and no other:', () => {
  // @trap an event whose topic does not exist
  it('one whose topic does not exist; it is sent once there is one', async () => {
    const outbox = app.app.get(Outbox, { strict: false });
    const [lost, beside] = await idsOfOneShard();
    await app.transactions.run({}, async () =>
      outbox.publish({ aggregateType: 'x', aggregateId: lost, type: 'x.happened', topic: LATER }),
    );
    await eventually(async () => (await waiting(lost))[0]?.last_error);
    await app.people.create({ id: beside, name: 'beside' });
    await eventually(() => namesOf(beside).length === 1);
    await peer.createTopics([LATER]);
    await eventually(async () => (await waiting(lost)).length === 0, 20_000);
    const [{ high } = { high: '' }] = await peer.admin.fetchTopicOffsets(LATER);
    expect(high).toBe('1');
  });
});

// @trap very many events that were sent
it('what is sent is deleted, and the relay does not read what is left of 200,000 rows', async () => {
  const query = <Row extends object>(text: string) => app.database.query<Row>(text);
  await eventually(async () => (await query('SELECT FROM message_outbox')).length === 0);
  // As the relay leaves them. Not to be seen by it: in one transaction.
  await query(`BEGIN`);
  await query(
    `INSERT INTO message_outbox (aggregatetype, aggregateid, type, topic, payload)
     SELECT 'x', n::text, 'x', 'x', '{}' FROM generate_series(1, 200000) n`,
  );
  await query('DELETE FROM message_outbox');
  await query('COMMIT');
  const { pending, select } = relayStatements(app.dataSource);
  const blocksRead = async ({ text }: { text: string }) => {
    const [row] = await query<{ 'QUERY PLAN': [{ Plan: Record<string, number> }] }>(
      `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ${text.replaceAll('$1', '0')}`,
    );
    const { 'Shared Hit Blocks': hit = 0, 'Shared Read Blocks': read = 0 } = row!['QUERY PLAN'][0].Plan;
    return hit + read;
  };
  await eventually(async () => {
    // As autovacuum does it; it leaves rows alone that a snapshot of somebody else may still need.
    await query('VACUUM message_outbox');
    return (await blocksRead(pending())) < 40 && (await blocksRead(select(0))) < 40;
  }, 40_000);
});

@Controller()
class AppliesController {
  @OnEvent(APPLIED)
  @Transactional()
  async apply(@Payload(ParsedValue) { name }: { name: string }) {
    await count(name);
  }
}

// @trap killed between sending an event and deleting its row
it('an event that is sent again because its row could not be deleted has the id of the first, and is applied once', async () => {
  const database = await createCountersDatabase();
  // The first of the relay's transactions fails when its events are with the broker.
  await database.query(`CREATE SEQUENCE failures`);
  await database.query(
    `CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS
     $$ BEGIN IF nextval('failures') = 1 THEN RAISE 'not now'; END IF; RETURN NULL; END $$`,
  );
  await database.query(
    `CREATE TRIGGER fail_once AFTER DELETE ON message_outbox FOR EACH ROW EXECUTE FUNCTION fail_once()`,
  );
  const groupId = `group-${randomUUID()}`;
  const host = await startMessagesHost(database, {
    controllers: [AppliesController],
    transport: { groupId },
  });
  const { transactions, outbox } = host.store;
  await transactions.run({}, async () =>
    outbox.publish({
      ...{ aggregateType: 'x', aggregateId: 'a', type: 'x.happened', topic: APPLIED },
      payload: { value: { name: 'applied' } },
    }),
  );
  await eventually(() => host.transport.unavailableReason === undefined);
  const committed = async () =>
    (await peer.admin.fetchOffsets({ groupId, topics: [APPLIED] }))[0]!.partitions[0]!.offset;
  await eventually(async () => (await committed()) === '2');
  expect(await counters(database)).toEqual({ applied: 1 });
  const ids: string[] = [];
  const consumer = await peer.consume([APPLIED], ({ headers }) => ids.push(String(headers?.ce_id)));
  await eventually(() => ids.length === 2);
  expect(new Set(ids).size).toBe(1);
  await consumer.disconnect();
  await host.app.close();
  await database.drop();
});
