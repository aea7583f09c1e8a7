// Sends one message with a plain Kafka client and prints the reply:
//   node examples/send-message.mjs people.create '{"name":"Grace","data":{"n":18446744073709551615}}'
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Kafka, logLevel, Partitioners } from 'kafkajs';

const [topic, value] = process.argv.slice(2);
if (!topic || !value) fail("Usage: node examples/send-message.mjs <topic> '<JSON>'");

const kafka = new Kafka({ clientId: 'send-message', brokers: brokers(), logLevel: logLevel.NOTHING });
const admin = kafka.admin();
const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
const replyTopic = `reply-${randomUUID()}`;
const consumer = kafka.consumer({ groupId: replyTopic, maxWaitTimeInMs: 100 });

await Promise.all([admin.connect(), producer.connect(), consumer.connect()]);
await admin.createTopics({ topics: [{ topic: replyTopic, numPartitions: 1 }], waitForLeaders: true });
await consumer.subscribe({ topic: replyTopic, fromBeginning: true });
const reply = new Promise((resolve) =>
  consumer.run({ eachMessage: async ({ message }) => resolve(message) }),
);

const headers = { kafka_correlationId: randomUUID(), kafka_replyTopic: replyTopic };
await producer.send({ topic, messages: [{ value, headers }] });
const { value: answer, headers: about } = await reply;
const error = about['kafka_nest-err'];
console.log(String(error ?? answer ?? ''));

await consumer.disconnect();
await admin.deleteTopics({ topics: [replyTopic] });
await Promise.all([producer.disconnect(), admin.disconnect()]);
process.exitCode = error ? 1 : 0;

function brokers() {
  if (process.env.KAFKA_BROKERS) return process.env.KAFKA_BROKERS.split(',');
  try {
    const { kafkaBrokers } = JSON.parse(readFileSync('.data/services.json', 'utf8'));
    if (kafkaBrokers.length > 0) return kafkaBrokers;
  } catch (cause) {
    if (cause.code !== 'ENOENT') throw cause;
  }
  return fail('No broker: run `npm start` here first, or set KAFKA_BROKERS=host:port.');
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
