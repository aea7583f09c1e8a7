import type { Message } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { eventually } from '../support/barrier.js';
import { KafkaPeer } from '../support/kafka.js';
import { ServiceHome, type ServiceProcess } from '../support/service-process.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

const MINUTES = 240_000;
const PEOPLE = 100;
const UPDATES = 20;
const POISON = 15;

let database: TestDatabase;
let home: ServiceHome;
const peer = new KafkaPeer();

beforeAll(async () => {
  home = new ServiceHome();
  database = await createDatabase();
  await peer.connect();
  await peer.deleteTopics();
});
afterAll(async () => {
  await home.remove();
  await peer.close();
  await database.drop();
});

const start = (groupId: string): ServiceProcess =>
  home.start({
    DATABASE_URL: database.url,
    KAFKA_BROKERS: process.env.TEST_KAFKA_BROKERS!,
    KAFKA_GROUP_ID: groupId,
    KAFKA_TOPIC_PARTITIONS: '8',
    LOG_LEVEL: 'warn',
  });

const ready = async (service: ServiceProcess) => {
  const { http } = await service.services();
  await eventually(async () => (await fetch(`${http}/health/ready`)).status === 200, 60_000);
};

/** Every person's life in order; every fifth message twice, and some that nobody can handle in between. */
function messagesFor(people: string[], poison: Set<string>): Message[] {
  const messages: Message[] = [];
  const add = (key: string, operation: string, value: object) => {
    const headers = { 'people-operation': operation, 'message-id': randomUUID() };
    const message = { key, value: JSON.stringify({ id: key, ...value }), headers };
    messages.push(message, ...(messages.length % 5 === 0 ? [message] : []));
  };
  for (const id of people) add(id, 'create', { name: '0' });
  for (let n = 1; n <= UPDATES; n++) {
    for (const id of people) add(id, 'update', { name: String(n) });
    if (poison.size >= POISON) continue;
    const id = randomUUID();
    poison.add(id);
    messages.push({
      key: people[n]!,
      value: '{"id":',
      headers: { 'people-operation': 'update', 'message-id': id },
    });
  }
  return messages;
}

it(
  'instances that are killed while they work lose nothing, apply nothing twice, and keep the order of each key',
  async () => {
    const groupId = `crash-${randomUUID()}`;
    const people = Array.from({ length: PEOPLE }, () => randomUUID());
    const poison = new Set<string>();
    const messages = messagesFor(people, poison);
    const handled = async () => {
      const [row] = await database.query<{ n: number }>('SELECT count(*)::int AS n FROM message_inbox');
      return row!.n;
    };
    const distinct = new Set(messages.map(({ headers }) => String(headers!['message-id']))).size;

    let services = [start(groupId)];
    await ready(services[0]!);
    services.push(start(groupId));
    for (let from = 0; from < messages.length; from += 500)
      await peer.emitAll('people.commands', messages.slice(from, from + 500));
    // Each is killed when a further part of the work is done, so in the midst of it.
    for (const part of [0.1, 0.35, 0.6]) {
      await eventually(async () => (await handled()) >= distinct * part, 60_000);
      const killed = services.shift()!;
      killed.signal('SIGKILL');
      await killed.ended;
      services.push(start(groupId));
    }
    await eventually(async () => (await handled()) >= distinct, 90_000);
    await eventually(async () => (await database.query('SELECT FROM message_outbox')).length === 0, 60_000);

    expect(await handled()).toBe(distinct);
    const names = await database.query<{ id: string; name: string }>('SELECT id, name FROM people');
    expect(new Map(names.map(({ id, name }) => [id, name]))).toEqual(
      new Map(people.map((id) => [id, String(UPDATES)])),
    );
    const letters = await database.query<{ message_id: string }>(
      'SELECT message_id FROM message_dead_letter',
    );
    expect(new Set(letters.map(({ message_id }) => message_id))).toEqual(poison);
    expect(letters).toHaveLength(poison.size);

    const events = new Map<string, string[]>();
    const seen = new Set<string>();
    await peer.consume(['people.events'], ({ key, value, headers }) => {
      if (seen.has(String(headers?.ce_id))) return;
      seen.add(String(headers?.ce_id));
      const told = events.get(String(key)) ?? [];
      events.set(String(key), [...told, JSON.parse(String(value)).name]);
    });
    await eventually(() => seen.size >= PEOPLE * (UPDATES + 1), 60_000);
    const life = Array.from({ length: UPDATES + 1 }, (_, n) => String(n));
    for (const id of people) expect(events.get(id)).toEqual(life);

    for (const service of services) service.signal('SIGTERM');
    expect((await Promise.all(services.map(({ ended }) => ended))).map(({ code }) => code)).toEqual([0, 0]);
    services = [];
  },
  MINUTES,
);
