import { Controller } from '@nestjs/common';
import { Payload } from '@nestjs/microservices';
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { driverFactory, KAFKA_CLIENTS } from '../../src/messaging/kafka/clients.js';
import type { ConsumerListener, KafkaDriver } from '../../src/messaging/kafka-driver.js';
import { eventually } from '../support/barrier.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { OnEvent, startMessagesHost } from '../support/messages-host.js';
import type { PeopleApp } from '../support/people-app.js';
import { createDatabase } from '../support/test-database.js';

const peer = new KafkaPeer();
let app: PeopleApp;
let holder: pg.Client;
afterAll(async () => {
  await holder.end();
  await peer.close();
  await app.close();
});

// @trap messages take every connection, HTTP waits
it('while messages hold every connection that they may have, HTTP reads and writes', async () => {
  app = await startKafkaApp(peer, { DB_POOL_SIZE: '5' });
  const MESSAGES_AT_ONCE = 3;
  const ids = (await app.people.createMany(Array.from({ length: 20 }, (_, n) => ({ name: `held ${n}` })))).ids; // prettier-ignore
  holder = new pg.Client(app.database.url);
  await holder.connect();
  // Not the holder's: what a transaction sees of other sessions stays as it was.
  const waiting = async () =>
    (await app.database.query(`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)).length; // prettier-ignore
  await holder.query('BEGIN');
  await holder.query('SELECT FROM people FOR UPDATE');
  await peer.emitAll(
    'people.update',
    ids.map((id) => ({ key: id, value: JSON.stringify({ id, name: 'changed' }) })),
  );
  await eventually(async () => (await waiting()) === MESSAGES_AT_ONCE);
  for (let n = 0; n < 50; n++) {
    expect((await app.send('POST', '/people', `{"name":"over HTTP ${n}"}`)).status).toBe(201);
    expect((await app.request(`/people/${ids[n % ids.length]}`)).status).toBe(200);
  }
  await eventually(async () => (await waiting()) === MESSAGES_AT_ONCE);
  await holder.query('COMMIT');
  await eventually(async () => (await app.people.findByName('changed')).items.length === ids.length);
});

describe.each(KAFKA_CLIENTS)('with %s', (client) => {
  const MEBIBYTE = 1024 * 1024;
  const MESSAGES = 2000;
  const SIZE = 20_000;
  const LIMIT = 2 * MEBIBYTE;
  /** What had been asked for when the limit was reached: one fetch that is being taken, one under way, each of a partition more at most. */
  const IN_FETCHES = 2 * (4 * MEBIBYTE + MEBIBYTE);

  // @trap a backlog is read into memory
  it('of a backlog no more is held than the limit and what fetches under way bring, and each of it is handled', async () => {
    const topic = `backlog-${randomUUID()}`;
    const database = await createDatabase();
    let pauses = 0;
    let [taken, most] = [0, 0];
    const seen = new Map<string, number>();
    let release!: () => void;
    const held = new Promise<void>((resolve) => (release = resolve));

    @Controller()
    class HeldController {
      @OnEvent(topic)
      async hold(@Payload() { name }: { name: string }) {
        await held;
        seen.set(name, (seen.get(name) ?? 0) + 1);
      }
    }

    // A producer repeats what it sent to the other partitions when one of them has no leader yet.
    await peer.createTopics([topic], 4);
    const create = await driverFactory(client);
    const { app: host } = await startMessagesHost(database, {
      controllers: [HeldController],
      transport: {
        bufferBytes: LIMIT,
        driver: (settings, logger) =>
          watch(create(settings, logger), {
            onRecords: (count) => {
              taken += count;
              most = Math.max(most, taken - seen.size);
            },
            onPause: () => pauses++,
          }),
      },
    });
    const text = 'x'.repeat(SIZE);
    for (let from = 0; from < MESSAGES; from += 40)
      await peer.emitAll(topic, Array.from({ length: 40 }, (_, n) => ({ key: `${from + n}`, value: JSON.stringify({ name: `${from + n}`, text }) }))); // prettier-ignore
    await eventually(() => pauses > 0);
    release();
    await eventually(() => seen.size === MESSAGES, 30_000);
    expect([...seen.values()].every((times) => times === 1)).toBe(true);
    expect(most * SIZE).toBeGreaterThan(LIMIT / 2);
    expect(most * SIZE).toBeLessThan(LIMIT + IN_FETCHES);
    expect(MESSAGES * SIZE).toBeGreaterThan(2 * (LIMIT + IN_FETCHES));
    await host.close();
    await database.drop();
  });
});

/** The driver, with somebody who looks at what it hands over. */
function watch(
  driver: KafkaDriver,
  { onRecords, onPause }: { onRecords: (count: number) => void; onPause: () => void },
): KafkaDriver {
  return {
    raw: driver.raw,
    createMissingTopics: (topics, settings) => driver.createMissingTopics(topics, settings),
    producer: () => driver.producer(),
    consume: async (settings, listener) => {
      const watching: ConsumerListener = {
        assigned: (partitions) => listener.assigned(partitions),
        revoking: () => listener.revoking(),
        records: (batch) => {
          onRecords(batch.records.length);
          listener.records(batch);
        },
        interrupted: (reason) => listener.interrupted(reason),
        recovered: () => listener.recovered(),
        failed: (reason) => listener.failed(reason),
      };
      const consumer = await driver.consume(settings, watching);
      return {
        raw: consumer.raw,
        pause: (partitions) => {
          onPause();
          consumer.pause(partitions);
        },
        resume: (partitions) => consumer.resume(partitions),
        commit: (offsets) => consumer.commit(offsets),
        close: () => consumer.close(),
      };
    },
  };
}
