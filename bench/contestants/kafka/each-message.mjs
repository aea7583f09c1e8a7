import { Kafka } from 'kafkajs';
import pg from 'pg';

// By hand: kafkajs calls for one message at a time of each partition; an INSERT each, at least once.
const { DATABASE_URL, DB_POOL_SIZE = 10, KAFKA_BROKERS, KAFKA_GROUP_ID } = process.env;
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: Number(DB_POOL_SIZE) });
const kafka = new Kafka({ brokers: KAFKA_BROKERS.split(','), logLevel: 1 });
const consumer = kafka.consumer({ groupId: KAFKA_GROUP_ID });
await consumer.connect();
await consumer.subscribe({ topics: ['people.create'], fromBeginning: true });
await consumer.run({
  partitionsConsumedConcurrently: 4,
  eachMessage: async ({ message }) => {
    const { name, data } = JSON.parse(message.value);
    await pool.query({
      name: 'insert',
      text: 'INSERT INTO people (name, data) VALUES ($1, $2)',
      values: [name, data],
    });
  },
});
