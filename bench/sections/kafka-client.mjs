import { Logger } from '@nestjs/common';
import { randomBytes, randomUUID } from 'node:crypto';
import { driverFactory, KAFKA_CLIENTS } from '../../dist/src/messaging/kafka/clients.js';
import { median, ratioOf, showRatio, toTable } from '../harness/ratios.mjs';
import { openKafka } from '../harness/servers.mjs';
import { shuffled } from '../harness/shuffled.mjs';

const PARTITIONS = 8;
const CONSUMED = 200_000;
/** Records of one `send`, and how many of those are under way. */
const SENDS = { 'send 100 at once': [100, 4], 'send one by one': [1, 16] };
const OPERATIONS = [...Object.keys(SENDS), 'consume'];

/** The drivers that `KAFKA_CLIENT` chooses from, in turns of this process. */
export async function run(bench) {
  const { isQuick, rounds = 9, turnMs } = bench.options;
  const consumed = isQuick ? CONSUMED / 100 : CONSUMED;
  const kafka = await openKafka(bench);
  const contestants = [];
  bench.started.push(() => Promise.all(contestants.map(({ producer }) => producer.close())));
  for (const name of KAFKA_CLIENTS) contestants.push(await open(name, kafka.brokers));
  const topics = await fill(contestants[0], consumed);
  const turns = new Map(contestants.map(({ name }) => [name, emptyTurns()]));
  // The first round warms up.
  for (let round = 0; round <= rounds; round++) {
    bench.say(`round ${round} of ${rounds} …`);
    for (const operation of OPERATIONS) {
      for (const contestant of shuffled(contestants)) {
        bench.interrupted.throwIfAborted();
        const result = await measured(() => turn(contestant, operation, topics, { turnMs, consumed }));
        if (round > 0) turns.get(contestant.name)[operation].push(result);
      }
    }
  }
  console.log(table(turns, { rounds, turnMs, consumed }));
}

async function open(name, brokers) {
  const logger = new Logger(name);
  for (const level of ['log', 'warn', 'debug', 'verbose']) logger[level] = () => undefined;
  const driver = (await driverFactory(name))({ brokers, clientId: 'bench' }, logger);
  return { name, driver, producer: await driver.producer() };
}

/** @returns the topic that is sent to, and the one that is consumed, which is full */
async function fill({ driver, producer }, consumed) {
  const topics = { sent: 'bench.sent', consumed: 'bench.consumed' };
  await driver.createMissingTopics(Object.values(topics), { partitions: PARTITIONS, replication: 1 });
  for (let sent = 0; sent < consumed; sent += 1000) await producer.send(recordsOf(topics.consumed, 1000));
  return topics;
}

function turn(contestant, operation, topics, { turnMs, consumed }) {
  return operation === 'consume'
    ? consume(contestant, topics.consumed, consumed)
    : produce(contestant, topics.sent, SENDS[operation], turnMs);
}

async function produce({ producer }, topic, [size, callers], turnMs) {
  const end = performance.now() + turnMs;
  const records = recordsOf(topic, size);
  let sent = 0;
  const call = async () => {
    while (performance.now() < end) {
      await producer.send(records);
      sent += size;
    }
  };
  await Promise.all(Array.from({ length: callers }, call));
  return sent;
}

/** All of a full topic, in a new group; measured from its assignment on. */
async function consume({ driver }, topic, wanted) {
  let received = 0;
  let begin;
  let onEnd;
  let onFailure;
  const ended = new Promise((resolve, reject) => ([onEnd, onFailure] = [resolve, reject]));
  const listener = {
    assigned: () => (begin = usage()),
    revoking: () => undefined,
    // As by a broker that makes its first group; it goes on.
    interrupted: () => undefined,
    recovered: () => undefined,
    failed: onFailure,
    records: ({ records }) => {
      received += records.length;
      if (received >= wanted) onEnd(usage());
    },
  };
  const settings = {
    groupId: `bench-${randomUUID()}`,
    topics: [topic],
    sessionTimeoutMs: 10_000,
    heartbeatIntervalMs: 1000,
    fetchWaitMs: 250,
    fetchMaxBytes: 4 * 1024 * 1024,
    fromBeginning: true,
    onOffsetOutOfRange: 'stop',
  };
  const consumer = await driver.consume(settings, listener);
  let end;
  try {
    end = await ended;
  } finally {
    await consumer.close();
  }
  if (received !== wanted) throw new Error(`${received} records came, and not ${wanted}.`);
  return { records: received, begin, end };
}

const recordsOf = (topic, count) =>
  Array.from({ length: count }, () => ({
    topic,
    key: randomUUID(),
    value: randomBytes(150).toString('base64'),
    headers: { 'message-id': randomUUID() },
  }));

const usage = () => ({ at: performance.now(), cpu: process.cpuUsage() });

async function measured(act) {
  const before = usage();
  const result = await act();
  const { records = result, begin = before, end = usage() } = result;
  const micros = end.cpu.user + end.cpu.system - begin.cpu.user - begin.cpu.system;
  return { perSecond: (records * 1000) / (end.at - begin.at), micros: micros / records };
}

const emptyTurns = () => Object.fromEntries(OPERATIONS.map((operation) => [operation, []]));

function table(turns, { rounds, turnMs, consumed }) {
  const base = turns.get(KAFKA_CLIENTS[0]);
  const cells = (own) =>
    OPERATIONS.flatMap((operation) => {
      const perSecond = (these) => these[operation].map((each) => each.perSecond);
      const micros = median(own[operation].map((each) => each.micros));
      return [showRatio(ratioOf(perSecond(own), perSecond(base))), micros.toFixed(1)];
    });
  return [
    `${rounds} rounds, ${turnMs} ms a turn of sending, ${consumed} records a turn of consuming; ${PARTITIONS} partitions; Node ${process.versions.node}.`,
    'Records per second are ratios to the first row; CPU is this process’s.',
    '',
    toTable(
      ['', ...OPERATIONS.flatMap((operation) => [operation, 'CPU µs'])],
      [...turns].map(([name, own]) => [name, ...cells(own)]),
    ),
  ].join('\n');
}
