import 'reflect-metadata';
import { type INestApplication, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { TypeOrmModule } from '@nestjs/typeorm';
import { Counter, Registry } from 'prom-client';
import { peopleMigrations } from '../../migrations/index.js';
import { PeopleHealthModule } from '../../src/health.js';
import { KafkaTransport } from '../../src/messaging/kafka.transport.js';
import { MessageStore } from '../../src/messaging/message-store.js';
import { PeopleMetrics, PeopleMetricsModule } from '../../src/metrics.js';
import { PeopleModule } from '../../src/people/people.module.js';
import { eventually } from '../support/barrier.js';
import { closedPort } from '../support/service-process.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

@Module({})
class HostModule {}

let database: TestDatabase;
let app: INestApplication;
let url: string;

afterEach(async () => {
  await app.close();
  await database.drop();
});

/** Somebody else's application, which has people, readiness and metrics by a line each. */
async function start(
  adapter: ExpressAdapter | FastifyAdapter,
  health = PeopleHealthModule.forRoot(),
  metrics = PeopleMetricsModule.forRoot(),
): Promise<void> {
  database = await createDatabase();
  const typeOrm = TypeOrmModule.forRoot({
    type: 'postgres',
    url: database.url,
    autoLoadEntities: true,
    installExtensions: false,
    migrations: peopleMigrations,
  });
  const module = { module: HostModule, imports: [typeOrm, PeopleModule.forRoot(), health, metrics] };
  app = await NestFactory.create(module, adapter, { logger: false, rawBody: true, abortOnError: false });
  await app.listen(0, '127.0.0.1');
  url = await app.getUrl();
}

async function ready(query = '') {
  const answer = await fetch(`${url}/health/ready${query}`);
  return { code: answer.status, ...((await answer.json()) as { error?: unknown; details?: unknown }) };
}

/** A transport that finds no broker. */
async function listen(): Promise<void> {
  const client = { brokers: [`127.0.0.1:${await closedPort()}`], clientId: 'host' };
  const store = app.get(MessageStore, { strict: false });
  const topics = { partitions: 1, replication: undefined };
  const strategy = new KafkaTransport({ client, groupId: 'host', concurrency: 2, topics, store });
  app.connectMicroservice({ strategy });
  await app.startAllMicroservices();
}

describe.each([
  ['Express', () => new ExpressAdapter()],
  ['Fastify', () => new FastifyAdapter()],
])('a host on %s', (_, adapter) => {
  it('has readiness by groups and metrics by a line each; what listens later is in both', async () => {
    await start(adapter(), PeopleHealthModule.forRoot({ mayReadReasons: () => true }));
    expect((await fetch(`${url}/health/live`)).status).toBe(200);
    expect(await ready()).toMatchObject({ code: 200, details: { database: { status: 'up' }, people: { status: 'up' } } }); // prettier-ignore
    expect((await ready('?group=messages')).code).toBe(400);
    const metrics = async () => (await fetch(`${url}/metrics`)).text();
    expect(await metrics()).toMatch(/^people_pool_connections\{state="idle"\} \d+$/m);
    expect(await metrics()).not.toContain('people_kafka_connected');
    await listen();
    expect(await ready('?group=messages')).toMatchObject({ code: 503, error: { kafka: { status: 'down' } } });
    expect(await metrics()).toMatch(/^people_kafka_connected 0$/m);
    // HTTP needs no broker.
    expect((await ready()).code).toBe(200);
    await database.query('ALTER TABLE people RENAME TO folks');
    const down = await eventually(async () => (({ code, error }) => code === 503 && error)(await ready()));
    expect(down).toMatchObject({ people: { status: 'down' } });
  });
});

it('a host tells nobody why it is not ready unless it says whom, and may show people’s metrics beside its own', async () => {
  const metrics = PeopleMetricsModule.forRoot({ route: false, ofProcess: false });
  await start(new ExpressAdapter(), PeopleHealthModule.forRoot({ sources: [{ name: 'ours', unavailableReason: () => 'secret' }] }), metrics); // prettier-ignore
  expect(await ready()).toEqual({ code: 503, status: 'error' });
  expect((await fetch(`${url}/metrics`)).status).toBe(404);
  const own = new Registry();
  new Counter({ name: 'orders_total', help: 'Orders.', registers: [own] }).inc();
  new Counter({ name: 'process_cpu_seconds_total', help: 'As everybody has it.', registers: [own] });
  const all = await Registry.merge([own, app.get(PeopleMetrics).registry]).metrics();
  expect(all).toContain('orders_total 1');
  expect(all).toContain('people_outbox_events');
});
