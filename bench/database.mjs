import { existsSync, readFileSync, rmSync } from 'node:fs';
import pg from 'pg';
import { DataSource } from 'typeorm';
import { startEmbeddedPostgres } from '../dist/src/dev/embedded-postgres.js';
import { peopleMigrations } from '../dist/src/index.js';
import { personOf, SEEDED, seededId } from './people.mjs';

/**
 * A PostgreSQL of this run's own, durable as one in production is, with the module's table, index and `SEEDED` people.
 * `close` ends it and removes its data.
 */
export async function openDatabase({ directory, onProgress, interrupted }) {
  const remove = () => rmSync(directory, { recursive: true, force: true });
  let server;
  try {
    server = await startEmbeddedPostgres({ directory, durable: true, onProgress });
  } catch (error) {
    // Otherwise it stays: its log says why, or another run has it.
    if (interrupted.aborted) remove();
    throw error;
  }
  const client = new pg.Client({ connectionString: server.url });
  // The next query reports it; unheard it would end this process before it can clean up.
  client.on('error', () => undefined);
  const close = async () => {
    await client.end().catch(() => undefined);
    await server.stop();
    remove();
  };
  try {
    await client.connect();
    await makeTable(client, server.url);
    await seed(client);
    const { rows } = await client.query('SHOW server_version');
    return {
      url: server.url,
      version: rows[0].server_version.split(' ')[0],
      /** How many people there are. */
      count: async () => Number((await client.query('SELECT count(*) FROM people')).rows[0].count),
      person: async (id) =>
        (await client.query('SELECT id, name, data FROM people WHERE id = $1', [id])).rows[0],
      cpuMicros: () => cpuMicros(server.pid),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function makeTable(client, url) {
  // A run that was killed has left its table.
  await client.query('DROP SCHEMA public CASCADE; CREATE SCHEMA public');
  const dataSource = new DataSource({ type: 'postgres', url, migrations: peopleMigrations });
  await dataSource.initialize();
  try {
    await dataSource.runMigrations({ transaction: 'each' });
  } finally {
    await dataSource.destroy();
  }
}

async function seed(client) {
  const people = Array.from({ length: SEEDED }, (_, n) => ({ id: seededId(n), ...personOf(n) }));
  await client.query(
    'INSERT INTO people (id, name, data) SELECT * FROM unnest($1::uuid[], $2::text[], $3::json[])',
    [
      people.map(({ id }) => id),
      people.map(({ name }) => name),
      people.map(({ data }) => JSON.stringify(data)),
    ],
  );
  await client.query('VACUUM ANALYZE people');
}

// USER_HZ, which is 100 on every architecture Node runs on.
const MICROS_PER_TICK = 10_000;

/** CPU time of the server with all its processes, those that have ended included; undefined where there is no /proc. */
function cpuMicros(pid) {
  const list = `/proc/${pid}/task/${pid}/children`;
  if (!existsSync(list)) return undefined;
  const children = readFileSync(list, 'utf8').split(' ').filter(Boolean);
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const running = sum(children.map((child) => sum(ticks(child).slice(0, 2))));
  return (running + sum(ticks(pid))) * MICROS_PER_TICK;
}

/** A process's own ticks in user and kernel mode, then those of its children that have ended. */
function ticks(pid) {
  let stat;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    // An autovacuum worker that has ended meanwhile: the postmaster has its time now.
    return [0, 0, 0, 0];
  }
  // The command's name may hold blanks; utime, stime, cutime and cstime are the fields 14 to 17 (proc_pid_stat(5)).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).map(Number);
}
