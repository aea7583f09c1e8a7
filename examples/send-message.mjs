// Sends one message and prints the reply, with kafkajs alone: any client can do the same.
//   node examples/send-message.mjs people.create '{"name":"Grace","data":{"n":18446744073709551615}}'
import { Kafka, logLevel } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';

const REPLY_WITHIN_MS = 15_000;
const SERVICES_FILE = new URL('../.data/services.json', import.meta.url);

try {
  const [topic, value, key = null] = process.argv.slice(2);
  if (value === undefined) throw new Error('Usage: node examples/send-message.mjs <topic> <json> [key]');
  const { value: reply, headers } = await ask(topic, { key, value });
  const error = headers['kafka_nest-err'];
  if (error) throw new Error(String(error));
  console.log(reply?.toString() ?? '');
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}

async function ask(topic, message) {
  const kafka = new Kafka({ brokers: findBrokers(), logLevel: logLevel.NOTHING, retry: { retries: 2 } });
  const replyTopic = `replies-${randomUUID()}`;
  const admin = kafka.admin();
  // A service that has just started is still making its topics: they are waited for, not made here.
  const producer = kafka.producer({ allowAutoTopicCreation: false, retry: { retries: 5 } });
  const consumer = kafka.consumer({ groupId: replyTopic, maxWaitTimeInMs: 100 });
  await admin.connect();
  try {
    await admin.createTopics({ topics: [{ topic: replyTopic, numPartitions: 1 }], waitForLeaders: true });
    await Promise.all([producer.connect(), consumer.connect()]);
    await consumer.subscribe({ topics: [replyTopic], fromBeginning: true });
    const reply = new Promise((resolve, reject) => {
      const late = () => reject(new Error(`No reply within ${REPLY_WITHIN_MS} ms: is the service running?`));
      setTimeout(late, REPLY_WITHIN_MS).unref();
      consumer.run({ eachMessage: async ({ message }) => resolve(message) }).catch(reject);
    });
    const headers = { kafka_correlationId: randomUUID(), kafka_replyTopic: replyTopic };
    await Promise.all([reply, producer.send({ topic, messages: [{ ...message, headers }] })]);
    return await reply;
  } finally {
    await Promise.all([producer.disconnect(), consumer.disconnect()]);
    await admin.deleteTopics({ topics: [replyTopic] });
    await admin.deleteGroups([replyTopic]).catch(() => undefined); // never joined, when sending failed
    await admin.disconnect();
  }
}

function findBrokers() {
  if (process.env.KAFKA_BROKERS) return process.env.KAFKA_BROKERS.split(',');
  try {
    const { kafkaBrokers } = JSON.parse(readFileSync(SERVICES_FILE, 'utf8'));
    if (kafkaBrokers.length > 0) return kafkaBrokers;
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
  throw new Error('No broker: set KAFKA_BROKERS=host:port, or have `npm start` running with its own.');
}
