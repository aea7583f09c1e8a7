import { Kafka, logLevel } from 'kafkajs';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { startEmbeddedKafka } from '../dist/src/dev/embedded-kafka.js';
import { startEmbeddedPostgres } from '../dist/src/dev/embedded-postgres.js';

const DIRECTORY = path.join(import.meta.dirname, '../.data/bench-messages');
const SERVICE = path.join(import.meta.dirname, '../dist/src/main.js');
const TOPIC = 'people.create';
const PARTITIONS = 8;
const SEND_AT_ONCE = 10_000;
const say = (text) => console.error(`bench: ${text}`);
const ending = new AbortController();

/** The service beside a backlog, and with its database away: a Kafka, a PostgreSQL and the service, each a process of its own. */
async function main({ backlog, seconds, outage }) {
  rmSync(DIRECTORY, { recursive: true, force: true });
  mkdirSync(DIRECTORY, { recursive: true });
  const servers = [];
  const begin = async (start, name, port) => {
    const server = await start({ directory: path.join(DIRECTORY, name), port, onProgress: say });
    servers.push(server);
    return server;
  };
  try {
    const broker = await begin(startEmbeddedKafka, 'kafka');
    let database = await begin(startEmbeddedPostgres, 'postgres');
    const kafka = new Kafka({ brokers: broker.brokers, logLevel: logLevel.NOTHING });
    const [producer, admin] = [kafka.producer(), kafka.admin()];
    await Promise.all([producer.connect(), admin.connect()]);
    await admin.createTopics({ topics: [{ topic: TOPIC, numPartitions: PARTITIONS }], waitForLeaders: true });
    const rows = [];
    for (const size of [backlog / 10, backlog]) {
      await fill(producer, size);
      rows.push(await besideBacklog(await startService(broker, database, randomUUID()), size, seconds));
    }
    console.log(backlogTable(rows, seconds));
    const restart = async () => {
      await database.stop();
      say(`the database is away for ${outage} s …`);
      await pause(outage * 1000);
      database = await begin(startEmbeddedPostgres, 'postgres', database.port);
      return performance.now();
    };
    const groupId = randomUUID();
    // From the end on: what is there already is not what is measured.
    await admin.setOffsets({ groupId, topic: TOPIC, partitions: await endOf(admin) });
    console.log(outageTable(await withoutDatabase(await startService(broker, database, groupId), { groupId, producer, admin, url: database.url, restart }), outage)); // prettier-ignore
    await Promise.all([producer.disconnect(), admin.disconnect()]);
  } finally {
    for (const server of servers.reverse()) await server.stop();
    rmSync(DIRECTORY, { recursive: true, force: true });
  }
}

async function fill(producer, size) {
  say(`sending ${size} messages …`);
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

async function startService({ brokers }, { url }, groupId) {
  const { PATH, HOME } = process.env;
  const env = { PATH, HOME, PORT: '0', LOG_LEVEL: 'warn', DATABASE_URL: url, KAFKA_BROKERS: brokers.join(','), KAFKA_GROUP_ID: groupId }; // prettier-ignore
  const child = spawn(process.execPath, [SERVICE], {
    cwd: DIRECTORY,
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = once(child, 'exit');
  let said = '';
  child.stderr.on('data', (data) => (said += data));
  while (!said.includes('People is running')) {
    if (child.exitCode !== null) throw new Error(`The service ended:\n${said}`);
    await pause(50);
  }
  const stop = async () => {
    child.kill('SIGTERM');
    await ended;
  };
  return { pid: child.pid, stop };
}

/** Samples the memory of a service that handles messages all the time. */
async function besideBacklog({ pid, stop }, size, seconds) {
  say(`handling a backlog of ${size} for ${seconds} s …`);
  const samples = [];
  try {
    for (let second = 0; second < seconds; second++) {
      await pause(1000);
      const [, kibibytes] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
      samples.push(kibibytes / 1024);
    }
  } finally {
    await stop();
  }
  const highest = (from, to) => Math.max(...samples.slice(from, to));
  const half = seconds / 2;
  return { size, firstHalf: highest(0, half), secondHalf: highest(half, seconds) };
}

function backlogTable(rows, seconds) {
  return [
    `Highest resident memory (MiB) of the service while it handles a backlog for ${seconds} s:`,
    '',
    '| messages waiting | first half | second half |',
    '| ---: | ---: | ---: |',
    ...rows.map(
      ({ size, firstHalf, secondHalf }) => `| ${size} | ${firstHalf.toFixed(0)} | ${secondHalf.toFixed(0)} |`,
    ),
    '',
  ].join('\n');
}

/** Takes the database away under a flow of messages, and waits until all are handled. */
async function withoutDatabase({ stop }, { groupId, producer, admin, url, restart }) {
  const query = async (text) => {
    const client = new pg.Client(url);
    client.on('error', () => undefined);
    try {
      await client.connect();
      return (await client.query(text)).rows[0].n;
    } finally {
      await client.end().catch(() => undefined);
    }
  };
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

const pause = (ms) => sleep(ms, undefined, { signal: ending.signal });

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
  process.on(signal, () => ending.abort(new Error(`interrupted by ${signal}`)));
try {
  const number = (standard) => ({ type: 'string', default: String(standard) });
  const { values } = parseArgs({ options: { backlog: number(1_000_000), seconds: number(60), outage: number(60) } }); // prettier-ignore
  const options = Object.fromEntries(Object.entries(values).map(([name, text]) => [name, Number(text)]));
  if (Object.values(options).some((value) => !(value > 0)))
    throw new TypeError('usage: npm run bench:messages -- [--backlog 1000000] [--seconds 60] [--outage 60]');
  await main(options);
} catch (error) {
  process.exitCode = ending.signal.aborted ? 130 : 1;
  say(error instanceof TypeError || ending.signal.aborted ? error.message : error.stack);
}
