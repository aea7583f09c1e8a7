import { randomUUID } from 'node:crypto';
import { DataSource } from 'typeorm';
import { peopleMigrations } from '../../migrations/index.js';
import { KafkaTransport } from '../../src/messaging/kafka.transport.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { brokers, KafkaPeer } from '../support/kafka.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';
import { ServiceHome } from '../support/service-process.js';
import { createDatabase } from '../support/test-database.js';

/** The newest one that the release before has; those behind it come with the new version, or the last one does. */
const LAST_OF_BEFORE = 'CreateTransactionOutcomes1700000000003';

const database = duringTests(() => createDatabase());
const peer = new KafkaPeer();
const home = new ServiceHome();
let before: PeopleApp | undefined;
afterAll(async () => {
  await before?.close();
  await home.remove();
  await peer.close();
});

/** As the release before left it. */
async function takeBack(): Promise<void> {
  const dataSource = new DataSource({ type: 'postgres', url: database.url, migrations: peopleMigrations });
  await dataSource.initialize();
  const names = peopleMigrations.map(({ name }) => name);
  const newer = names.slice(Math.min(names.indexOf(LAST_OF_BEFORE), names.length - 2) + 1);
  for (const _ of newer) await dataSource.undoLastMigration({ transaction: 'each' });
  await dataSource.destroy();
}

/** Creates and changes people over HTTP and by messages, until `isOver`. */
class Load {
  readonly names: string[] = [];
  readonly failures: string[] = [];

  async run(url: () => string, isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      const [byHttp, byMessage] = [randomUUID(), randomUUID()];
      this.names.push(`${byHttp} changed`, byMessage);
      await peer.emit('people.create', { key: byMessage, value: JSON.stringify({ name: byMessage }) });
      const id = randomUUID();
      await this.send('POST', `${url()}/people`, { id, name: byHttp });
      await this.send('PATCH', `${url()}/people/${id}`, { name: `${byHttp} changed` });
    }
  }

  private async send(method: string, url: string, body: object): Promise<void> {
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(url, { method, headers, body: JSON.stringify(body) });
    if (!response.ok) this.failures.push(`${method} ${response.status} ${await response.text()}`);
  }
}

// @trap a new version migrates the database while instances of the version before work on it
it('an instance on the tables of the release before works on, and nothing is lost or done twice, while one of the new version migrates and works beside it', async () => {
  await takeBack();
  const environment = {
    KAFKA_BROKERS: brokers().join(','),
    KAFKA_GROUP_ID: `upgrade-${randomUUID()}`,
    KAFKA_TOPIC_PARTITIONS: '4',
  };
  await peer.connect();
  await peer.deleteTopics();
  // It does not migrate, as it would were it started by `main`.
  before = await startPeopleApp(environment, database);
  const transport = before.app.get(KafkaTransport);
  await eventually(() => transport.unavailableReason === undefined, 30_000);

  const load = new Load();
  let isOver = false;
  let urls = [before.url];
  const running = load.run(
    () => urls[load.names.length % urls.length]!,
    () => isOver,
  );
  await eventually(() => load.names.length > 20);
  const service = home.start({ ...environment, DATABASE_URL: database.url });
  const { http } = await service.services();
  // Each of them works on what the other has written.
  const atOnce = load.names.length;
  urls = [before.url, http];
  await eventually(() => load.names.length > atOnce + 40);
  isOver = true;
  await running;

  expect(load.failures).toEqual([]);
  const count = async (text: string) => (await database.query<{ n: number }>(text))[0]!.n;
  await eventually(
    async () => (await count('SELECT count(*)::int AS n FROM people')) === load.names.length,
    30_000,
  );
  await eventually(async () => (await count('SELECT count(*)::int AS n FROM message_outbox')) === 0, 30_000);
  const names = await database.query<{ name: string }>('SELECT name FROM people');
  expect(names.map(({ name }) => name).sort()).toEqual([...load.names].sort());
  expect(await database.query('SELECT code, message FROM message_dead_letter')).toEqual([]);
  expect((await fetch(`${http}/health/ready`)).status).toBe(200);
  service.signal('SIGTERM');
  expect((await service.ended).code).toBe(0);
}, 120_000);
