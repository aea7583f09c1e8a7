/** Sends one order, without waiting for what becomes of it: npm run send -- Ada book 1 */
import { Kafka, logLevel } from 'kafkajs';
import { randomUUID } from 'node:crypto';

const [customer = 'Ada', item = 'book', quantity = '1'] = process.argv.slice(2);
const id = randomUUID();
const kafka = new Kafka({ brokers: process.env.KAFKA_BROKERS!.split(','), logLevel: logLevel.ERROR });
const producer = kafka.producer();
await producer.connect();
await producer.send({
  topic: 'orders.place',
  messages: [
    {
      key: item, // orders of one item are handled in order
      value: JSON.stringify({ id, customer, item, quantity: Number(quantity) }),
      headers: { 'message-id': id }, // sent again, it is the same message
    },
  ],
});
await producer.disconnect();
console.log(`sent ${id}`);
