import { Logger } from '@nestjs/common';
import { randomBytes, randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { startEmbeddedKafka } from '../dist/src/dev/embedded-kafka.js';
import { driverFactory, KAFKA_CLIENTS } from '../dist/src/messaging/kafka/clients.js';
import { OptionError, readOptions } from './options.mjs';
import { shuffled } from './shuffled.mjs';
import { median, spread } from './table.mjs';

const DATA_DIRECTORY = path.join(import.meta.dirname, '../.data/bench-kafka-client');
const PARTITIONS = 8;
const CONSUMED = 200_000;
/** Records of one `send`, and how many of those are under way. */
const SENDS = { 'send 100 at once': [100, 4], 'send one by one': [1, 16] };
const OPERATIONS = [...Object.keys(SENDS), 'consume'];
const say = (text) => console.error(`bench: ${text}`);
const ending = new AbortController();

async function main({ rounds, turnMs }) {
  const kafka = await startEmbeddedKafka({ directory: DATA_DIRECTORY, onProgress: say });
  const contestants = [];
  try {
    for (const name of KAFKA_CLIENTS) contestants.push(await open(name, kafka.brokers));
    const topics = await fill(contestants[0]);
    const turns = new Map(contestants.map(({ name }) => [name, emptyTurns()]));
    // The first round warms up.
    for (let round = 0; round <= rounds; round++) {
      say(`round ${round} of ${rounds} …`);
      for (const operation of OPERATIONS) {
        for (const contestant of shuffled(contestants)) {
          ending.signal.throwIfAborted();
          const result = await measured(() => turn(contestant, operation, topics, turnMs));
          if (round > 0) turns.get(contestant.name)[operation].push(result);
        }
      }
    }
    console.log(table(turns, rounds, turnMs));
  } finally {
    await Promise.all(contestants.map(({ producer }) => producer.close()));
    await kafka.stop();
    rmSync(DATA_DIRECTORY, { recursive: true, force: true });
  }
}

async function open(name, brokers) {
  const logger = new Logger(name);
  for (const level of ['log', 'warn', 'debug', 'verbose']) logger[level] = () => undefined;
  const driver = (await driverFactory(name))({ brokers, clientId: 'bench' }, logger);
  return { name, driver, producer: await driver.producer() };
}

/** @returns the topic that is sent to, and the one that is consumed, which is full */
async function fill({ driver, producer }) {
  const topics = { sent: 'bench.sent', consumed: 'bench.consumed' };
  await driver.createMissingTopics(Object.values(topics), { partitions: PARTITIONS, replication: 1 });
  for (let sent = 0; sent < CONSUMED; sent += 1000) await producer.send(recordsOf(topics.consumed, 1000));
  return topics;
}

function turn(contestant, operation, topics, turnMs) {
  return operation === 'consume'
    ? consume(contestant, topics.consumed)
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
async function consume({ driver }, topic) {
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
      if (received >= CONSUMED) onEnd(usage());
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
  if (received !== CONSUMED) throw new Error(`${received} records came, and not ${CONSUMED}.`);
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

function table(turns, rounds, turnMs) {
  const base = turns.get(KAFKA_CLIENTS[0]);
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const cells = (own) =>
    OPERATIONS.flatMap((operation) => {
      const ratios = own[operation].map(
        ({ perSecond }, round) => perSecond / base[operation][round].perSecond,
      );
      const micros = median(own[operation].map((each) => each.micros));
      return [spread(ratios), micros.toFixed(1)];
    });
  return [
    `${rounds} rounds, ${turnMs} ms a turn of sending, ${CONSUMED} records a turn of consuming; ${PARTITIONS} partitions; Node ${process.versions.node}.`,
    'Records per second are the median (lowest..highest) of ratios to the first row within one round; CPU is this process’s.',
    '',
    line(['', ...OPERATIONS.flatMap((operation) => [operation, 'CPU µs'])]),
    line(['---', ...OPERATIONS.flatMap(() => ['---:', '---:'])]),
    ...[...turns].map(([name, own]) => line([name, ...cells(own)])),
  ].join('\n');
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => ending.abort(new Error(`interrupted by ${signal}`)));
}
try {
  await main(readOptions(process.argv.slice(2), process.env));
} catch (error) {
  process.exitCode = ending.signal.aborted ? 130 : 1;
  say(error instanceof OptionError || ending.signal.aborted ? error.message : error.stack);
}
