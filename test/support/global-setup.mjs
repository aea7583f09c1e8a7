import { mkdirSync } from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import { DataSource } from 'typeorm';
import { migrate } from '../../dist/src/app/migrating/migrate.js';
import { startEmbeddedKafka } from '../../dist/src/dev/embedded-kafka.js';
import { startEmbeddedPostgres } from '../../dist/src/dev/embedded-postgres.js';
import { peopleMigrations } from '../../dist/migrations/index.js';

/** One PostgreSQL and one Kafka for the run; each test file gets a database of its own, cloned from the template. */
export default async function globalSetup() {
  const directory = path.resolve('.data', `test-${process.pid}`);
  // Whatever the run and the programs it starts put aside goes with the run.
  process.env.TMPDIR = path.join(directory, 'tmp');
  mkdirSync(process.env.TMPDIR, { recursive: true });
  const onProgress = (message) => process.stderr.write(`${message}\n`);
  const withKafka = process.env.KAFKA !== 'off' && !process.env.TEST_WITHOUT_KAFKA;
  // The tests say themselves what the service is to find.
  for (const name of Object.keys(process.env)) if (/^(DB_|DATABASE_|KAFKA|AUTH|TRANSACTION_|LOG_LEVEL|HOST$|PORT$)/.test(name)) delete process.env[name]; // prettier-ignore
  globalThis.testServers = { directory, running: [] };
  const start = async (server) => {
    const started = await server;
    globalThis.testServers.running.push(started);
    return started;
  };
  const results = await Promise.allSettled([
    start(startEmbeddedPostgres({ directory: path.join(directory, 'postgres'), durable: false, maxConnections: 200, onProgress })),
    withKafka && start(startEmbeddedKafka({ directory: path.join(directory, 'kafka'), onProgress })),
  ]); // prettier-ignore
  const failed = results.find(({ status }) => status === 'rejected');
  if (failed) {
    const { default: stop } = await import('./global-teardown.mjs');
    await stop();
    throw failed.reason;
  }
  const [{ value: postgres }, { value: kafka }] = results;
  process.env.TEST_DATABASE_URL = postgres.url;
  if (kafka) process.env.TEST_KAFKA_BROKERS = kafka.brokers.join(',');
  await makeTemplate(postgres.url);
}

async function makeTemplate(url) {
  const client = new pg.Client(url);
  await client.connect();
  await client.query('CREATE DATABASE people_template');
  await client.end();
  const template = new URL(url);
  template.pathname = '/people_template';
  const dataSource = new DataSource({ type: 'postgres', url: template.href, migrations: peopleMigrations });
  await dataSource.initialize();
  await migrate(dataSource);
  await dataSource.destroy();
}
