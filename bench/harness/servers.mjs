import { existsSync, mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import { DataSource } from 'typeorm';
import { startEmbeddedKafka } from '../../dist/src/dev/embedded-kafka.js';
import { startEmbeddedPostgres } from '../../dist/src/dev/embedded-postgres.js';
import { peopleMigrations } from '../../dist/src/index.js';
import { cpuMicrosOfFamily } from './cpu.mjs';
import { dataJsonOf, SEEDED, seededId } from './people.mjs';

/** Databases to make others of: the module's tables, and the same with `SEEDED` people. */
const EMPTY = 'people';
const SEEDED_TEMPLATE = 'people_seeded';

/**
 * A PostgreSQL of this section's own, durable as one in production is. It ends with the section, its data with it.
 *
 * @param commitTimestamps true: it notes when each row was committed
 */
export async function openPostgres(bench, { commitTimestamps = false } = {}) {
  const directory = path.join(bench.directory, 'postgres');
  const options = { directory, durable: true, maxConnections: 200, onProgress: bench.say };
  let server = await startNew(bench, startEmbeddedPostgres, options);
  const urlOf = (name) => server.url.replace(/[^/]*$/, name);
  const query = (name, text, values) => withClient(urlOf(name), (client) => client.query(text, values));
  if (commitTimestamps) {
    await query('postgres', 'ALTER SYSTEM SET track_commit_timestamp = on');
    await server.stop();
    server = await startServer(bench, startEmbeddedPostgres, options);
  }
  await makeTables(urlOf(EMPTY));
  await query('postgres', `CREATE DATABASE ${SEEDED_TEMPLATE} TEMPLATE ${EMPTY}`);
  await withClient(urlOf(SEEDED_TEMPLATE), seed);
  const { rows } = await query('postgres', 'SHOW server_version');
  return {
    version: rows[0].server_version.split(' ')[0],
    urlOf,
    /** The rows of a statement in one of the databases. */
    query: async (name, text, values) => (await query(name, text, values)).rows,
    create: (name, { isSeeded = true } = {}) =>
      query('postgres', `CREATE DATABASE ${name} TEMPLATE ${isSeeded ? SEEDED_TEMPLATE : EMPTY}`),
    drop: (name) => query('postgres', `DROP DATABASE ${name} WITH (FORCE)`),
    /** How many people there are. */
    count: async (name) => Number((await query(name, 'SELECT count(*) FROM people')).rows[0].count),
    /** So that no turn pays for what one before it has left to be written. */
    checkpoint: () => query('postgres', 'CHECKPOINT'),
    cpuMicros: () => cpuMicrosOfFamily(server.pid),
  };
}

/** A Kafka of this section's own. */
export async function openKafka(bench) {
  const directory = path.join(bench.directory, 'kafka');
  return startNew(bench, startEmbeddedKafka, { directory, onProgress: bench.say });
}

/** A run that was killed may have left its server and data: the one is stopped, the other removed. */
export async function startNew(bench, start, options) {
  if (existsSync(options.directory)) {
    const left = await start(options);
    await left.stop();
    rmSync(options.directory, { recursive: true, force: true });
  }
  return startServer(bench, start, options);
}

/** One that goes on with the data that is there. It ends with the section. */
export async function startServer({ interrupted, started }, start, options) {
  interrupted.throwIfAborted();
  mkdirSync(options.directory, { recursive: true });
  const server = await start(options);
  started.push(server.stop);
  return server;
}

/** One client for one purpose; what becomes of an idle one is of no interest. */
export async function withClient(url, act) {
  const client = new pg.Client(url);
  client.on('error', () => undefined);
  await client.connect();
  try {
    return await act(client);
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function makeTables(url) {
  const dataSource = new DataSource({ type: 'postgres', url, migrations: peopleMigrations });
  await dataSource.initialize();
  try {
    await dataSource.runMigrations({ transaction: 'each' });
  } finally {
    await dataSource.destroy();
  }
}

async function seed(client) {
  const numbers = Array.from({ length: SEEDED }, (_, n) => n);
  await client.query(
    'INSERT INTO people (id, name, data) SELECT * FROM unnest($1::uuid[], $2::text[], $3::json[])',
    [numbers.map(seededId), numbers.map((n) => `Person ${n}`), numbers.map(dataJsonOf)],
  );
  await client.query('VACUUM ANALYZE people');
}
