import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Kafka, logLevel, Partitioners } from 'kafkajs';
import { WrongAnswerError } from '../harness/check.mjs';
import { POOL_SIZE } from '../harness/contestants.mjs';
import { cpuMicrosOf } from '../harness/cpu.mjs';
import { openLoad } from '../harness/load.mjs';
import { dataJsonOf } from '../harness/people.mjs';
import { freePort, startProgram } from '../harness/program.mjs';
import { requestsOf } from '../harness/requests.mjs';
import { runRounds } from '../harness/rounds.mjs';
import { openKafka, withClient } from '../harness/servers.mjs';
import { renderInstances } from './instances-tables.mjs';

export const title = 'Instances: one, two and three on one database and in one group';
export const render = renderInstances;

const MOST = 3;
const CALLERS_EACH = 32;
const TOPIC = 'people.create';
/** Which one, two and three instances share evenly. */
const PARTITIONS = 12;
const SEND_AT_ONCE = 5000;
/** At the end some partitions are done and others not. */
const UNTIL = 0.9;
/** To count costs PostgreSQL some milliseconds. */
const LOOK_MS = 200;
/** Whoever applies messages twice has the time to. */
const AFTERWARDS_MS = 500;
/** What takes longer has gone wrong. */
const WITHIN_MS = 120_000;
const WARM_UP_MS = 2000;
const SERVICE = path.join(import.meta.dirname, '../../dist/src/main.js');

/** The service as `npm start` runs it, with events, in several processes. */
export async function run(bench, { postgres }) {
  const { turnMs, rounds = 2, messages } = bench.options;
  const kafka = await openTopic(bench);
  const loads = [];
  for (let n = 0; n < MOST; n++)
    loads.push(await openLoad({ ...bench, directory: path.join(bench.directory, `load-${n}`) }));
  const contestants = Array.from({ length: MOST }, (_, index) => ({ key: `${index + 1}`, count: index + 1 }));
  const turns = await runRounds(bench, {
    rounds,
    contestants,
    heats: [{ key: 'all' }],
    turn: ({ count }) => takeTurn(bench, count, { postgres, kafka, loads }),
  });
  const about = `${rounds} rounds: HTTP of ${turnMs} ms a turn, ${CALLERS_EACH} connections to each instance, load by ${loads[0].name}; ${messages} messages of distinct keys on ${PARTITIONS} partitions, from when all are sent until ${UNTIL * 100} % are applied; a pool of ${POOL_SIZE} each; Kafka of one node.`;
  return { about, turns: contestants.map(({ key, count }) => ({ count, rounds: turns[key].all })) };
}

async function openTopic(bench) {
  const { brokers, pid } = await openKafka(bench);
  const kafka = new Kafka({ brokers, logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  await Promise.all([admin.connect(), producer.connect()]);
  bench.started.push(() => Promise.all([admin.disconnect(), producer.disconnect()]));
  await admin.createTopics({ topics: [{ topic: TOPIC, numPartitions: PARTITIONS }], waitForLeaders: true });
  return { brokers, pid, admin, producer };
}

/** New instances, with a database and a group that are theirs together. */
async function takeTurn(bench, count, { postgres, kafka, loads }) {
  const { turnMs, isQuick, messages } = bench.options;
  const database = `bench_instances_${count}`;
  await postgres.create(database);
  const groupId = `instances-${randomUUID()}`;
  const end = await kafka.admin.fetchTopicOffsets(TOPIC);
  const partitions = end.map(({ partition, high }) => ({ partition, offset: high }));
  await kafka.admin.setOffsets({ groupId, topic: TOPIC, partitions });
  const instances = [];
  try {
    for (let n = 0; n < count; n++)
      instances.push(await startInstance(bench, n, { url: postgres.urlOf(database), kafka, groupId }));
    await untilShared(bench, kafka.admin, groupId, count);
    const cpu = () => ({
      own: instances.reduce((sum, { pid }) => sum + cpuMicrosOf(pid), 0),
      postgres: postgres.cpuMicros(),
      kafka: cpuMicrosOf(kafka.pid),
    });
    const http = (operation, ms) => overHttp(instances, operation, ms, { loads, cpu });
    for (const operation of ['get', 'create']) await http(operation, isQuick ? turnMs : WARM_UP_MS);
    await postgres.checkpoint();
    const get = await http('get', turnMs);
    const create = await http('create', turnMs);
    await postgres.checkpoint();
    const applied = await withClient(postgres.urlOf(database), (client) =>
      applyMessages(bench, client, kafka.producer, { messages, cpu, instances }),
    );
    return { get, create, messages: applied };
  } finally {
    await Promise.all(instances.map(({ stop }) => stop()));
    await postgres.drop(database);
  }
}

async function startInstance(bench, n, { url, kafka, groupId }) {
  const port = await freePort();
  const env = {
    PORT: String(port),
    LOG_LEVEL: 'warn',
    DATABASE_URL: url,
    DB_POOL_SIZE: String(POOL_SIZE),
    KAFKA_BROKERS: kafka.brokers.join(),
    KAFKA_GROUP_ID: groupId,
  };
  const args = ['--disable-warning=TimeoutNegativeWarning', SERVICE];
  const own = startProgram(bench, `instance-${n}`, { command: process.execPath, args, env });
  while (!own.said().includes('People is running')) {
    own.assertRuns();
    await sleep(50);
  }
  return { ...own, url: `http://127.0.0.1:${port}` };
}

/** Until each instance has its share of the partitions. */
async function untilShared({ interrupted }, admin, groupId, count) {
  const until = performance.now() + WITHIN_MS;
  for (;;) {
    interrupted.throwIfAborted();
    const [group] = (await admin.describeGroups([groupId])).groups;
    if (group.state === 'Stable' && group.members.length === count) return;
    if (performance.now() > until)
      throw new Error(
        `The group is ${group.state} with ${group.members.length} members; ${count} are started.`,
      );
    await sleep(200);
  }
}

/** All instances at once, each with a generator of its own. */
async function overHttp(instances, operation, ms, { loads, cpu }) {
  const before = cpu();
  const results = await Promise.all(
    instances.map(({ url }, n) =>
      loads[n].turn({ url, requests: requestsOf(operation, 0), ms, callers: CALLERS_EACH }),
    ),
  );
  const operations = results.reduce((sum, result) => sum + result.operations, 0);
  const perSecond = results.reduce((sum, result) => sum + result.operations / result.seconds, 0);
  return { operations, perSecond, ...spent(before, cpu()) };
}

/** From when all messages are sent, so that the sending takes nothing from those who apply them. */
async function applyMessages(bench, client, producer, { messages, cpu, instances }) {
  const count = async () => Number((await client.query('SELECT count(*) FROM people')).rows[0].count);
  const seeded = await count();
  for (let from = 0; from < messages; from += SEND_AT_ONCE) {
    const numbers = Array.from({ length: Math.min(SEND_AT_ONCE, messages - from) }, (_, n) => from + n);
    const each = (n) => ({ key: randomUUID(), value: `{"name":"Person ${n}","data":${dataJsonOf(n)}}` });
    await producer.send({ topic: TOPIC, messages: numbers.map(each) });
  }
  const begin = performance.now();
  const [before, first] = [cpu(), await count()];
  const until = begin + WITHIN_MS;
  let last = first;
  if (last - seeded > messages * (1 - UNTIL)) bench.say(`${last - seeded} were applied while they were sent`);
  if (last - seeded >= messages * UNTIL) throw new Error('Too few messages wait: --messages takes more.');
  while (last - seeded < messages * UNTIL) {
    bench.interrupted.throwIfAborted();
    for (const { assertRuns } of instances) assertRuns();
    if (performance.now() > until)
      throw new Error(`${last - seeded} of ${messages} messages were applied in time.`);
    await sleep(LOOK_MS);
    last = await count();
  }
  const seconds = (performance.now() - begin) / 1000;
  const result = { operations: last - first, perSecond: (last - first) / seconds, ...spent(before, cpu()) };
  await sleep(AFTERWARDS_MS);
  while ((last = await count()) - seeded < messages && performance.now() < until) await sleep(50);
  if (last - seeded !== messages)
    throw new WrongAnswerError(`${last - seeded} people are there of ${messages} messages.`);
  const { rows } = await client.query(
    `SELECT pg_total_relation_size('message_inbox')::float8 / count(*) AS bytes FROM message_inbox`,
  );
  return { ...result, inboxBytes: rows[0].bytes };
}

const spent = (before, after) => ({
  ownMicros: after.own - before.own,
  postgresMicros: after.postgres - before.postgres,
  kafkaMicros: after.kafka - before.kafka,
});
