import { Kafka } from 'kafkajs';
import pg from 'pg';

// By hand, for speed alone: each fetched batch is one INSERT of many rows; at least once, one bad message stops its partition.
const { DATABASE_URL, DB_POOL_SIZE = 10, KAFKA_BROKERS, KAFKA_GROUP_ID } = process.env;
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: Number(DB_POOL_SIZE) });
const kafka = new Kafka({ brokers: KAFKA_BROKERS.split(','), logLevel: 1 });
const consumer = kafka.consumer({ groupId: KAFKA_GROUP_ID });
const ROWS = 1000;
const INSERT = {
  name: 'insert',
  text: 'INSERT INTO people (name, data) SELECT * FROM unnest($1::text[], $2::json[])',
};
await consumer.connect();
await consumer.subscribe({ topics: ['people.create'], fromBeginning: true });
await consumer.run({
  partitionsConsumedConcurrently: 4,
  eachBatch: async ({ batch: { messages }, resolveOffset, heartbeat, isRunning, isStale }) => {
    for (let from = 0; from < messages.length && isRunning() && !isStale(); from += ROWS) {
      const part = messages.slice(from, from + ROWS);
      const people = part.map(({ value }) => JSON.parse(value));
      const names = people.map(({ name }) => name);
      const data = people.map((person) => (person.data == null ? null : JSON.stringify(person.data)));
      await pool.query({ ...INSERT, values: [names, data] });
      resolveOffset(part.at(-1).offset);
      await heartbeat();
    }
  },
});
