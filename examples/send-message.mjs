// Sends one message with a plain Kafka client and prints the reply, or the error that came in its place (exit code 1):
//   node examples/send-message.mjs people.create '{"name":"Grace","data":{"n":18446744073709551615}}'
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Kafka, logLevel, Partitioners } from 'kafkajs';

const [topic, value] = process.argv.slice(2);
if (!topic || !value) fail("Usage: node examples/send-message.mjs <topic> '<JSON>'");
const REPLY_WITHIN_MS = 15_000;
const FILE = '.data/services.json';
const services = existsSync(FILE) ? JSON.parse(readFileSync(FILE, 'utf8')) : { kafkaBrokers: [] };
const brokers = process.env.KAFKA_BROKERS?.split(',') ?? services.kafkaBrokers;
if (brokers.length === 0) fail('No broker: run `npm start` here first, or set KAFKA_BROKERS=host:port.');

const kafka = new Kafka({ clientId: 'send-message', brokers, logLevel: logLevel.NOTHING });
const admin = kafka.admin();
const createPartitioner = Partitioners.DefaultPartitioner;
// A topic that is misspelt is to fail, not to be created.
const producer = kafka.producer({ allowAutoTopicCreation: false, createPartitioner });
const replyTopic = `reply-${randomUUID()}`;
const consumer = kafka.consumer({ groupId: replyTopic, maxWaitTimeInMs: 100 });

try {
  await Promise.all([admin.connect(), producer.connect(), consumer.connect()]);
  const topics = [{ topic: replyTopic, numPartitions: 1 }];
  await onceKnown(() => admin.createTopics({ topics, waitForLeaders: true }));
  await onceKnown(() => consumer.subscribe({ topic: replyTopic, fromBeginning: true }));
  const reply = new Promise((resolve) =>
    consumer.run({ eachMessage: async ({ message }) => resolve(message) }),
  );
  const headers = { kafka_correlationId: randomUUID(), kafka_replyTopic: replyTopic };
  await onceKnown(() => producer.send({ topic, messages: [{ value, headers }] }));
  const late = sleep(REPLY_WITHIN_MS).then(() => fail('No reply: does the service run?'));
  const { value: answer, headers: about } = await Promise.race([reply, late]);
  const error = about['kafka_nest-err'];
  console.log(String(error ?? answer));
  process.exitCode = error ? 1 : 0;
  await consumer.disconnect();
  await admin.deleteTopics({ topics: [replyTopic] });
  await Promise.all([producer.disconnect(), admin.disconnect()]);
  process.exit();
} catch (error) {
  fail(`${topic} at ${brokers}: ${error.message}`);
}

/** Topics made just now, by us or by a service that has just started, are not known everywhere yet. */
async function onceKnown(work, attempts = 20) {
  try {
    return await work();
  } catch (error) {
    if (attempts === 1 || !/does not host this topic/.test(error.message)) throw error;
    await sleep(500);
    return onceKnown(work, attempts - 1);
  }
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
