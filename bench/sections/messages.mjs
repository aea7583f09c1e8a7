import { Kafka, logLevel } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startEmbeddedPostgres } from '../../dist/src/dev/embedded-postgres.js';
import { residentMebibytes } from '../harness/cpu.mjs';
import { freePort, startProgram, untilListens } from '../harness/program.mjs';
import { toTable } from '../harness/ratios.mjs';
import { openKafka, startNew, startServer, withClient } from '../harness/servers.mjs';

const SERVICE = path.join(import.meta.dirname, '../../dist/src/main.js');
const TOPIC = 'people.create';
const PARTITIONS = 8;
const SEND_AT_ONCE = 10_000;

/** The service beside a backlog, and with its database away: a Kafka, a PostgreSQL and the service, each a process of its own. */
export async function run(bench) {
  const { backlog, seconds, outage } = bench.options;
  const { say, interrupted } = bench;
  const pause = (ms) => sleep(ms, undefined, { signal: interrupted });
  const broker = await openKafka(bench);
  const directory = path.join(bench.directory, 'postgres');
  let database = await startNew(bench, startEmbeddedPostgres, { directory, onProgress: say });
  const kafka = new Kafka({ brokers: broker.brokers, logLevel: logLevel.NOTHING });
  const [producer, admin] = [kafka.producer(), kafka.admin()];
  await Promise.all([producer.connect(), admin.connect()]);
  bench.started.push(() => Promise.all([producer.disconnect(), admin.disconnect()]));
  await admin.createTopics({ topics: [{ topic: TOPIC, numPartitions: PARTITIONS }], waitForLeaders: true });

  const rows = [];
  for (const size of [backlog / 10, backlog]) {
    say(`sending ${size} messages …`);
    await fill(producer, size);
    const service = await startService(bench, broker, database, randomUUID());
    say(`handling a backlog of ${size} for ${seconds} s …`);
    rows.push({ size, ...(await besideBacklog(service, seconds, pause)) });
  }
  console.log(backlogTable(rows, seconds));

  const groupId = randomUUID();
  // From the end on: what is there already is not what is measured.
  await admin.setOffsets({ groupId, topic: TOPIC, partitions: await endOf(admin) });
  const service = await startService(bench, broker, database, groupId);
  const restart = async () => {
    await database.stop();
    say(`the database is away for ${outage} s …`);
    await pause(outage * 1000);
    const { port } = database;
    database = await startServer(bench, startEmbeddedPostgres, { directory, port, onProgress: say });
    return performance.now();
  };
  const tools = { groupId, producer, admin, url: database.url, restart, pause };
  console.log(outageTable(await withoutDatabase(service, tools), outage));
}

async function fill(producer, size) {
  for (let sent = 0; sent < size; sent += SEND_AT_ONCE)
    await producer.send({ topic: TOPIC, messages: messagesOf(Math.min(SEND_AT_ONCE, size - sent)) });
}

const messagesOf = (count) =>
  Array.from({ length: count }, () => {
    const id = randomUUID();
    return { key: id, value: JSON.stringify({ id, name: 'waiting', data: { n: 1, text: 'x'.repeat(100) } }) };
  });

const endOf = async (admin) =>
  (await admin.fetchTopicOffsets(TOPIC)).map(({ partition, high }) => ({ partition, offset: high }));

async function startService(bench, { brokers }, { url }, groupId) {
  const port = await freePort();
  const env = {
    PORT: String(port),
    LOG_LEVEL: 'warn',
    DATABASE_URL: url,
    KAFKA_BROKERS: brokers.join(','),
    KAFKA_GROUP_ID: groupId,
  };
  const own = startProgram(bench, 'service', { command: process.execPath, args: [SERVICE], env });
  await untilListens(own, `http://127.0.0.1:${port}`);
  return own;
}

/** Samples the memory of a service that handles messages all the time. */
async function besideBacklog({ pid, stop }, seconds, pause) {
  const samples = [];
  try {
    for (let second = 0; second < seconds; second++) {
      await pause(1000);
      samples.push(residentMebibytes(pid));
    }
  } finally {
    await stop();
  }
  const half = Math.floor(seconds / 2);
  return { firstHalf: Math.max(...samples.slice(0, half)), secondHalf: Math.max(...samples.slice(half)) };
}

const backlogTable = (rows, seconds) =>
  [
    `Highest resident memory (MiB) of the service while it handles a backlog for ${seconds} s:`,
    '',
    toTable(
      ['messages waiting', 'first half', 'second half'],
      rows.map(({ size, firstHalf, secondHalf }) => [size, firstHalf.toFixed(0), secondHalf.toFixed(0)]),
    ),
    '',
  ].join('\n');

/** Takes the database away under a flow of messages, and waits until all are handled. */
async function withoutDatabase({ stop }, { groupId, producer, admin, url, restart, pause }) {
  const query = (text) => withClient(url, async (client) => (await client.query(text)).rows[0].n);
  const handled = () => query(`SELECT count(*)::int AS n FROM message_inbox WHERE consumer = '${groupId}'`);
  const members = async () =>
    (await admin.describeGroups([groupId])).groups[0].members.map(({ memberId }) => memberId).join();
  let [sent, isFlowing] = [0, true];
  const flow = (async () => {
    while (isFlowing) {
      await producer.send({ topic: TOPIC, messages: messagesOf(20) });
      sent += 20;
      await sleep(100);
    }
  })();
  try {
    while ((await handled()) === 0) await pause(50);
    const before = await members();
    const back = await restart();
    const atReturn = await handled();
    while ((await handled()) === atReturn) await pause(10);
    const resumed = performance.now() - back;
    isFlowing = false;
    await flow;
    while ((await handled()) < sent) await pause(50);
    const caughtUp = performance.now() - back;
    const letters = await query('SELECT count(*)::int AS n FROM message_dead_letter');
    return { resumed, caughtUp, sent, letters, isSameMember: before === (await members()) };
  } finally {
    isFlowing = false;
    await flow.catch(() => undefined);
    await stop();
  }
}

const outageTable = ({ resumed, caughtUp, sent, letters, isSameMember }, outage) =>
  [
    `The database was away for ${outage} s under a flow of messages, ${sent} in all:`,
    '',
    `- from its return to the first message that was handled: ${resumed.toFixed(0)} ms; to the last: ${caughtUp.toFixed(0)} ms`,
    `- the place in the group: ${isSameMember ? 'kept' : 'LOST'}; dead letters: ${letters}`,
  ].join('\n');
