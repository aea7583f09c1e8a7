/**
 * Runs the steps of the guide, each on a database of its own that is removed behind it:
 *
 *   npm run guide              all of them
 *   npm run guide -- 05 07     those that begin so
 *
 * DATABASE_URL names a server whose role may create databases; without it a PostgreSQL is started here. The step about Kafka is
 * run where KAFKA_BROKERS says where one is.
 */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { startEmbeddedPostgres } from '../../src/dev/embedded-postgres.js';

const wanted = process.argv.slice(2);
const steps = readdirSync(import.meta.dirname)
  .filter((file) => /^\d\d-.*\.ts$/.test(file))
  .map((file) => file.slice(0, -'.ts'.length))
  .filter((step) => (wanted.length === 0 ? true : wanted.some((beginning) => step.startsWith(beginning))))
  .filter((step) => !step.endsWith('kafka') || process.env.KAFKA_BROKERS)
  .sort();

const directory = mkdtempSync(path.join(os.tmpdir(), 'guide-'));
const started = process.env.DATABASE_URL
  ? undefined
  : await startEmbeddedPostgres({ directory, durable: false });
const server = new URL(process.env.DATABASE_URL ?? started!.url);
try {
  for (const step of steps) await onDatabaseOfItsOwn(step);
} finally {
  await started?.stop();
  rmSync(directory, { recursive: true, force: true });
}

async function onDatabaseOfItsOwn(step: string): Promise<void> {
  const name = `guide_${process.pid}_${step.slice(0, 2)}`;
  const client = new pg.Client(server.href);
  await client.connect();
  await client.query(`CREATE DATABASE ${name}`);
  // So that the step about deadlocks need not wait for a second; only a superuser may.
  await client.query(`ALTER DATABASE ${name} SET deadlock_timeout = '100ms'`).catch(() => undefined);
  process.env.DATABASE_URL = Object.assign(new URL(server), { pathname: `/${name}` }).href;
  try {
    console.log(`# ${step}`);
    await import(`./${step}.ts`);
  } finally {
    // Connections that were ended may still be known to the server for a moment.
    const others = `SELECT FROM pg_stat_activity WHERE datname = '${name}'`;
    for (let looks = 0; looks < 100 && (await client.query(others)).rowCount; looks++) await sleep(20);
    await client.query(`DROP DATABASE ${name} WITH (FORCE)`);
    await client.end();
  }
}
