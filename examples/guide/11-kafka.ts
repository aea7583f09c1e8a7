import 'reflect-metadata';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { MessagePattern, Payload } from '@nestjs/microservices';
import { TypeOrmModule } from '@nestjs/typeorm';
import { type Consumer, Kafka, logLevel, type Message } from 'kafkajs';
import {
  DeadLetters,
  KafkaTransport,
  MessageStore,
  Outbox,
  parseJson,
  PeopleModule,
  peopleMigrations,
  PeopleService,
  Transactional,
} from 'nestjs-people';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { openPool } from './people-table.js';

const brokers = process.env.KAFKA_BROKERS!.split(',');
const run = randomUUID();
const topic = (name: string) => `${name}-${run}`;
const [NAIVE, NAIVE_EVENTS, WELCOME, WELCOMED] = ['naive', 'naive-events', 'welcome', 'welcomed'].map(topic);

const pool = openPool();
const stored = async () => {
  const rows = await pool.query<{ name: string; n: number }>(
    'SELECT name, count(*)::int AS n FROM people GROUP BY name ORDER BY name',
  );
  return Object.fromEntries(rows.rows.map(({ name, n }) => [name, n]));
};
const until = async (isDone: () => boolean | Promise<boolean>) => {
  while (!(await isDone())) await sleep(20);
};

const kafka = new Kafka({ clientId: 'guide', brokers, logLevel: logLevel.NOTHING });
const producer = kafka.producer();
const admin = kafka.admin();
await Promise.all([producer.connect(), admin.connect()]);
await admin.createTopics({
  topics: [NAIVE, NAIVE_EVENTS].map((name) => ({ topic: name!, numPartitions: 1 })),
  waitForLeaders: false,
});
const send = (to: string, ...messages: Message[]) => producer.send({ topic: to, messages });

/** All that is on a topic, and what comes. */
const listeners: Consumer[] = [];
async function listen(to: string): Promise<{ id: string; value: string }[]> {
  const records: { id: string; value: string }[] = [];
  const listener = kafka.consumer({ groupId: randomUUID() });
  listeners.push(listener);
  await listener.connect();
  await listener.subscribe({ topic: to, fromBeginning: true });
  await listener.run({
    eachMessage: async ({ message: { value, headers } }) => {
      records.push({ id: String(headers?.ce_id), value: String(value) });
    },
  });
  return records;
}
/** Whom events tell of. An event is sent at least once: one that comes again has the same id. */
const names = (events: { id: string; value: string }[]) =>
  [
    ...new Map(events.map(({ id, value }) => [id, (JSON.parse(value) as { name: string }).name])).values(),
  ].sort();

@Controller()
class WelcomeController {
  constructor(
    private readonly people: PeopleService,
    private readonly outbox: Outbox,
  ) {}

  /** The row of the inbox, the person and the event are one transaction. */
  @MessagePattern(WELCOME, { keepBinary: true })
  @Transactional()
  async welcome(@Payload() bytes: Buffer) {
    const { name } = parseJson(bytes.toString()) as { name: string };
    const person = await this.people.create({ name });
    this.outbox.publish({
      aggregateType: 'person',
      aggregateId: person.id,
      type: 'person.welcomed',
      topic: WELCOMED!,
      payload: { value: { name } },
    });
  }
}

@Module({
  imports: [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: process.env.DATABASE_URL,
      autoLoadEntities: true,
      installExtensions: false,
      migrations: peopleMigrations,
      migrationsRun: true,
      migrationsTransactionMode: 'each',
    }),
    PeopleModule.forRoot({ controllers: { http: false, messages: false } }),
  ],
  controllers: [WelcomeController],
})
class AppModule {}

const app = await NestFactory.create(AppModule, { logger: ['error'] });
const transport = new KafkaTransport({
  client: { brokers, clientId: 'guide' },
  groupId: `guide-${run}`,
  concurrency: 4, // below the size of the pool
  topics: { partitions: 1, replication: undefined },
  eventTopics: [WELCOMED!],
  store: app.get(MessageStore, { strict: false }), // the inbox, the outbox and dead letters
});
app.connectMicroservice({ strategy: transport });

// The naive way: a consumer that stores what comes, and tells others of it.
let tries = 0;
const consumer = kafka.consumer({
  groupId: `naive-${run}`,
  retry: { initialRetryTime: 10, maxRetryTime: 20 },
});
await consumer.connect();
await consumer.subscribe({ topic: NAIVE!, fromBeginning: true });
await consumer.run({
  eachMessage: async ({ message }) => {
    tries++;
    const { name } = JSON.parse(message.value!.toString()) as { name: string | null };
    await send(NAIVE_EVENTS!, { value: `${name} is welcome` });
    await pool.query('INSERT INTO people (name) VALUES ($1)', [name]);
  },
});

// A producer that has had no answer sends again; a consumer that dies before it commits its offset reads again.
const ada = { key: 'Ada', value: '{"name":"Ada"}', headers: { 'message-id': randomUUID() } };
await send(NAIVE!, ada, ada);
await until(() => tries === 2);
await until(async () => (await stored()).Ada === 2);
console.log('naively, the same message twice:', await stored());

// One that can't be stored is tried for ever, and what is behind it waits.
await send(NAIVE!, { key: 'bad', value: '{"name":null}' }, { key: 'Alan', value: '{"name":"Alan"}' });
await until(() => tries >= 5);
await consumer.disconnect();
console.log('tried again and again; behind it are stored:', (await stored()).Alan ?? 0);

// And each of these tries has told the others of somebody who is not stored.
const told = await listen(NAIVE_EVENTS!);
await until(() => told.length >= 5);
console.log('told:', ...new Set(told.map(({ value }) => value)));
await pool.query('DELETE FROM people');

// With nestjs-people: the same messages, and one more.
await app.startAllMicroservices();
await app.init();
await until(() => transport.unavailableReason === undefined);
const events = await listen(WELCOMED!);
const deadLetters = await listen(`${WELCOME}-dlt`);
await send(WELCOME!, ada, ada);
await send(WELCOME!, { key: 'bad', value: '{"name":null}' }, { key: 'Alan', value: '{"name":"Alan"}' });
await until(() => deadLetters.length === 1 && names(events).length === 2);
console.log('stored:', await stored());
console.log('told:', ...names(events));
console.log('put aside:', deadLetters[0]!.value);

// Somebody looks at what was put aside, corrects it, and it is handled as if it came now.
const letters = app.get(DeadLetters, { strict: false });
const [letter] = await letters.list({ topic: WELCOME! });
console.log('because:', letter!.code);
await letters.correct(letter!.seq, { value: Buffer.from('{"name":"Grace"}') });
await until(() => names(events).length === 3);
console.log('corrected:', await stored());

await app.close();
await Promise.all(listeners.map((each) => each.disconnect()));
await admin.deleteTopics({ topics: [NAIVE!, NAIVE_EVENTS!, WELCOME!, `${WELCOME}-dlt`, WELCOMED!] });
await Promise.all([producer.disconnect(), admin.disconnect()]);
await pool.end();
