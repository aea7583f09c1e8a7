import { Logger } from '@nestjs/common';
import { jest } from '@jest/globals';
import { Kafka, logLevel } from 'kafkajs';
import { randomBytes, randomUUID } from 'node:crypto';
import { KafkaTransport } from '../../src/messaging/kafka.transport.js';
import { eventually } from '../support/barrier.js';
import { brokers, KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';
import { createDatabase, onServer, openDatabase, type TestDatabase } from '../support/test-database.js';

const CREATE = 'people.create';
const environment = {
  KAFKA_GROUP_ID: `restored-${randomUUID()}`,
  KAFKA_TOPIC_PARTITIONS: '1',
  KAFKA_QUARANTINE_KEYS: 'on',
  KAFKA_BROKERS: brokers().join(','),
};
const peer = new KafkaPeer();
const databases: TestDatabase[] = [];
let app: PeopleApp | undefined;
afterEach(async () => {
  await app?.close();
  await peer.close();
  for (const database of databases) await database.drop();
});

/** What is told of one start, by level. */
interface Told {
  msg: string;
  [field: string]: unknown;
}
const told = { error: [] as Told[], debug: [] as Told[] };
for (const level of ['error', 'debug'] as const)
  jest.spyOn(Logger.prototype, level).mockImplementation((entry: unknown) => {
    told[level].push(entry as Told);
  });
const KNOWN = 'the database knows what the group has committed last';
const UNKNOWN = /^the database does not know messages that the group has committed/;

/** As `pg_dump` and its restore would have it; nobody may be connected meanwhile. */
async function copyOf({ url }: TestDatabase): Promise<TestDatabase> {
  const [from, to] = [new URL(url).pathname.slice(1), `test_${randomBytes(6).toString('hex')}`];
  await onServer(async (query) => {
    await query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${from}'`);
    await query(`CREATE DATABASE ${to} TEMPLATE ${from}`);
  });
  const copy = new URL(url);
  copy.pathname = `/${to}`;
  const drop = () => onServer((query) => query(`DROP DATABASE ${to} WITH (FORCE)`));
  const database = await openDatabase(copy.href, drop);
  databases.push(database);
  return database;
}

/** Once it has looked. @returns what was looked at of the topic, or undefined where an error was told */
async function startOn(database: TestDatabase): Promise<number | undefined> {
  told.error = [];
  told.debug = [];
  app = await startPeopleApp(environment, database);
  const isTold = ({ msg }: Told) => msg === KNOWN || UNKNOWN.test(msg);
  const found = await eventually(() => [...told.error, ...told.debug].find(isTold), 30_000);
  const looked = found.looked as { topic: string; messages: number }[] | undefined;
  return looked && (looked.find(({ topic }) => topic === CREATE)?.messages ?? 0);
}

/** Waits until so many people and dead letters are there, and ends the service. */
async function endWith(people: number, letters = 0): Promise<void> {
  const count = async (table: string) =>
    (await app!.dataSource.query<{ n: number }[]>(`SELECT count(*)::int AS n FROM ${table}`))[0]!.n;
  await eventually(
    async () => (await count('people')) === people && (await count('message_dead_letter')) === letters,
    30_000,
  );
  await app!.close();
  app = undefined;
}

const emit = (...names: string[]) =>
  peer.emitAll(CREATE, names.map((name) => ({ key: name, value: JSON.stringify({ name }) }))); // prettier-ignore

// @trap a database that was restored to a moment before the group's offsets, so that what was consumed since then is gone
it('a database that is older than the offsets of the group is told at the start, with what to do; no other start says so', async () => {
  const database = await createDatabase();
  databases.push(database);
  app = await startKafkaApp(peer, environment, database);
  await emit('one', 'two', 'three');
  await endWith(3);
  const backup = await copyOf(database);
  const live = await openDatabase(database.url);
  databases.unshift(live);

  // A start as any other: what was committed is known.
  expect(await startOn(live)).toBe(3);
  await emit('four', 'five');
  // Dead letters, of which one can't be read, and what waits behind one of them: they are known as well.
  await peer.emit(CREATE, { key: 'six', value: 'no JSON' });
  await emit('six');
  await peer.emit(CREATE, { key: 'k'.repeat(70_000), value: '{"name":"seven"}' });
  // Whoever waits for a reply may have been told to send again: of these nothing is said.
  expect((await peer.ask(CREATE, 'no JSON')).error).toBeDefined();
  await endWith(5, 3);
  // What is larger than an answer may be is left out, and the last one is not.
  expect(await startOn(live)).toBe(8);
  await app.close();

  // The end of a transaction is a record of its own, and none of anybody.
  const kafka = new Kafka({ brokers: brokers(), logLevel: logLevel.NOTHING });
  const producer = kafka.producer({
    transactionalId: randomUUID(),
    idempotent: true,
    maxInFlightRequests: 1,
  });
  await producer.connect();
  const transaction = await producer.transaction();
  await transaction.send({ topic: CREATE, messages: [{ key: 'eight', value: '{"name":"eight"}' }] });
  await transaction.commit();
  await producer.disconnect();
  await startOn(live);
  await endWith(6, 3);
  expect(await startOn(live)).toBeGreaterThan(0);
  expect(app.app.get(KafkaTransport).offsetsAhead).toBeUndefined();
  const metrics = async () => (await app!.request('/metrics')).text();
  expect(await metrics()).toContain('\npeople_kafka_offsets_ahead_partitions 0\n');
  await app.close();

  await startOn(backup);
  const [line, ...others] = told.error;
  expect(others).toEqual([]);
  expect(line!.msg).toMatch(UNKNOWN);
  expect(line!.msg).toContain('--reset-offsets');
  expect(line!.partitions).toEqual([
    expect.objectContaining({ topic: CREATE, partition: 0, committed: '11', unknown: expect.any(Number) as number }),
  ]); // prettier-ignore
  expect(app.app.get(KafkaTransport).offsetsAhead).toContain(`${CREATE}, partition 0`);
  expect(await metrics()).toContain('\npeople_kafka_offsets_ahead_partitions 1\n');
  const ready = await app.request('/health/ready');
  expect(ready.status).toBe(200);
}, 120_000);
