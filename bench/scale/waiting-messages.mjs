import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Kafka, logLevel, Partitioners } from 'kafkajs';
import { WrongAnswerError } from '../harness/check.mjs';
import { dataJsonOf } from '../harness/people.mjs';
import { openKafka } from '../harness/servers.mjs';

const TOPIC = 'people.create';
/** Which one, two and three instances share evenly. */
export const PARTITIONS = 12;
const SEND_AT_ONCE = 5000;
/** Nobody else is called so: requests that were hung up on may still be creating people. */
const NAME = 'Message';
/** At the end some partitions are done and others not. */
export const UNTIL = 0.9;
/** To count costs PostgreSQL some milliseconds. */
const LOOK_MS = 200;
/** Whoever applies messages twice has the time to. */
const AFTERWARDS_MS = 500;
/** What takes longer has gone wrong. */
const WITHIN_MS = 120_000;

/** A Kafka with the topic of commands, for as long as the section. */
export async function openTopic(bench) {
  const { brokers, pid } = await openKafka(bench);
  const kafka = new Kafka({ brokers, logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  await Promise.all([admin.connect(), producer.connect()]);
  bench.started.push(() => Promise.all([admin.disconnect(), producer.disconnect()]));
  await admin.createTopics({ topics: [{ topic: TOPIC, numPartitions: PARTITIONS }], waitForLeaders: true });
  return { brokers, pid, admin, producer };
}

/** A new group that begins behind all messages that are there. */
export async function groupAtEnd(admin) {
  const groupId = `instances-${randomUUID()}`;
  const end = await admin.fetchTopicOffsets(TOPIC);
  const partitions = end.map(({ partition, high }) => ({ partition, offset: high }));
  await admin.setOffsets({ groupId, topic: TOPIC, partitions });
  return groupId;
}

/**
 * Sends messages while the instances are stopped (SIGSTOP, for less than a session of the group), and looks how fast they are applied
 * from when all are sent: the sending takes nothing from them.
 *
 * @param spending begins to count CPU time, and returns a function that tells it
 * @throws WrongAnswerError when a message was applied twice
 */
export async function applyMessages(bench, client, producer, { messages, instances, spending }) {
  const count = async () =>
    Number((await client.query(`SELECT count(*) FROM people WHERE name LIKE '${NAME} %'`)).rows[0].count);
  const signal = (name) => instances.forEach(({ pid }) => process.kill(pid, name));
  signal('SIGSTOP');
  await send(producer, messages).finally(() => signal('SIGCONT'));
  const begin = performance.now();
  const untilApplied = async (wanted) => {
    for (;;) {
      const applied = await count();
      if (applied >= wanted) return applied;
      bench.interrupted.throwIfAborted();
      for (const { assertRuns } of instances) assertRuns();
      if (performance.now() > begin + WITHIN_MS)
        throw new Error(`${applied} of ${messages} messages were applied in time.`);
      await sleep(LOOK_MS);
    }
  };
  const spent = spending();
  const operations = await untilApplied(messages * UNTIL);
  const result = { operations, perSecond: (operations * 1000) / (performance.now() - begin), ...spent() };
  await untilApplied(messages);
  await sleep(AFTERWARDS_MS);
  const all = await untilApplied(messages);
  if (all > messages) throw new WrongAnswerError(`${all} people are there of ${messages} messages.`);
  const { rows } = await client.query(
    `SELECT pg_total_relation_size('message_inbox')::float8 / count(*) AS bytes FROM message_inbox`,
  );
  return { ...result, inboxBytes: rows[0].bytes };
}

async function send(producer, messages) {
  for (let from = 0; from < messages; from += SEND_AT_ONCE) {
    const numbers = Array.from({ length: Math.min(SEND_AT_ONCE, messages - from) }, (_, n) => from + n);
    const each = (n) => ({ key: randomUUID(), value: `{"name":"${NAME} ${n}","data":${dataJsonOf(n)}}` });
    await producer.send({ topic: TOPIC, messages: numbers.map(each) });
  }
}
