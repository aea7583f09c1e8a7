import { execFileSync } from 'node:child_process';
import { barrier } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { type PeopleApp, poolOf, startPeopleApp } from '../support/people-app.js';
import { startTcpProxyTo } from '../support/tcp-proxy.js';
import { createDatabase } from '../support/test-database.js';

const database = duringTests(() => createDatabase());

async function withApp(
  environment: Record<string, string>,
  use: (app: PeopleApp) => Promise<void>,
): Promise<void> {
  const app = await startPeopleApp({ DB_POOL_SIZE: '1', ...environment }, database);
  try {
    await use(app);
  } finally {
    await app.close();
  }
}

const pidOf = (app: PeopleApp) =>
  app.transactions.run({}, async (transaction) => {
    const { rows } = await transaction.query<{ pid: number }>({ text: 'SELECT pg_backend_pid() AS pid' });
    return rows[0]!.pid;
  });

/** Kills the backend while this process can't notice: its event loop stands still until the server is done. */
function killUnnoticed(pid: number): void {
  const script = `
    import pg from 'pg';
    const client = new pg.Client(process.argv[1]);
    await client.connect();
    await client.query('SELECT pg_terminate_backend($1, 5000)', [Number(process.argv[2])]);
    await client.end();`;
  execFileSync(process.execPath, ['--input-type=module', '-e', script, database.url, String(pid)]);
}

describe('a client that died unnoticed in the pool', () => {
  it('is handed out with DB_RECYCLING=fast, and a single write that met it may have been done, once', () =>
    withApp({ DB_RECYCLING: 'fast' }, async (app) => {
      const { id } = await app.people.create({ name: 'there' });
      killUnnoticed(await pidOf(app));
      await expect(app.people.remove(id)).rejects.toMatchObject({ type: 'transaction-outcome-unknown' });
      await app.people.remove(id);
    }));

  it('is replaced where a read met it, which nothing can have been done by', () =>
    withApp({ DB_RECYCLING: 'fast' }, async (app) => {
      killUnnoticed(await pidOf(app));
      expect((await app.people.findByName('x')).items).toEqual([]);
    }));

  it('is replaced where BEGIN met it, under a work that notices nothing', () =>
    withApp({ DB_RECYCLING: 'fast' }, async (app) => {
      const attempts: number[] = [];
      killUnnoticed(await pidOf(app));
      await app.transactions.run({ isolationLevel: 'SERIALIZABLE' }, async ({ attempt, manager }) => {
        attempts.push(attempt);
        expect(await manager.query('SHOW transaction_isolation')).toEqual([
          { transaction_isolation: 'serializable' },
        ]);
      });
      expect(attempts).toEqual([1]);
    }));

  it.each(['verified', 'clean'])('is replaced with DB_RECYCLING=%s', (method) =>
    withApp({ DB_RECYCLING: method }, async (app) => {
      const pid = await pidOf(app);
      killUnnoticed(pid);
      expect((await app.people.findByName('x')).items).toEqual([]);
      expect(await pidOf(app)).not.toBe(pid);
    }),
  );
});

describe('what somebody left in a session', () => {
  const leaveState = (app: PeopleApp) =>
    app.transactions.run({}, async ({ client }) => {
      await client.query(`SET work_mem = '1MB'`);
      await client.query('CREATE TEMP TABLE left_behind (n int)');
      await client.query('SELECT pg_advisory_lock(42)');
    });
  const stateOf = async (app: PeopleApp) =>
    app.transactions.run({}, async (transaction) => {
      const { rows } = await transaction.query<{ memory: string; temp: boolean; locks: number }>({
        text: `SELECT current_setting('work_mem') AS memory, to_regclass('left_behind') IS NOT NULL AS temp,
               (SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks`,
      });
      return rows[0];
    });

  it('is still there for the next borrower with DB_RECYCLING=fast', () =>
    withApp({ DB_RECYCLING: 'fast' }, async (app) => {
      await leaveState(app);
      expect(await stateOf(app)).toEqual({ memory: '1MB', temp: true, locks: 1 });
    }));

  it('is gone with DB_RECYCLING=clean, while prepared statements stay', () =>
    withApp({ DB_RECYCLING: 'clean' }, async (app) => {
      await app.people.findByName('x');
      await leaveState(app);
      expect(await stateOf(app)).toEqual({ memory: '4MB', temp: false, locks: 0 });
      await app.transactions.run({}, async (transaction) => {
        const { rows } = await transaction.query({ text: `SELECT name FROM pg_prepared_statements` });
        expect(rows).toContainEqual({ name: expect.stringMatching(/_people_find_by_name$/) });
      });
    }));
});

it('an idle client that dies is logged and does not end the process', () =>
  withApp({}, async (app) => {
    const pid = await pidOf(app);
    await database.query('SELECT pg_terminate_backend($1, 5000)', [pid]);
    expect((await app.people.findByName('x')).items).toEqual([]);
    expect(await pidOf(app)).not.toBe(pid);
  }));

it('no connection free in time is a 503 that says so, and nothing is changed', () =>
  withApp({ DB_ACQUIRE_TIMEOUT_MS: '50' }, async (app) => {
    const held = barrier(2);
    const release = barrier(2);
    const holder = app.transactions.run({}, async () => {
      await held();
      await release();
    });
    await held();
    const response = await app.send('POST', '/people', '{"name":"refused"}');
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after')).toBe('1');
    expect(await response.json()).toMatchObject({
      type: '/problems/pool-exhausted',
      detail: 'Every database connection is busy; nothing was changed, try again.',
    });
    await release();
    await holder;
    expect((await app.people.findByName('refused')).items).toEqual([]);
  }));

it('a connection that dies while its unit of work is busy with something else makes room at once', () =>
  withApp({ DB_ACQUIRE_TIMEOUT_MS: '5000' }, async (app) => {
    const held = barrier(2);
    const release = barrier(2);
    const unit = app.transactions.run({}, async (transaction) => {
      const { rows } = await transaction.query<{ pid: number }>({ text: 'SELECT pg_backend_pid() AS pid' });
      await database.query('SELECT pg_terminate_backend($1, 5000)', [rows[0]!.pid]);
      await held();
      await release();
      return transaction.query({ text: 'SELECT 1' });
    });
    const refused = expect(unit).rejects.toMatchObject({ type: 'database-unavailable' });
    await held();
    expect((await app.people.findByName('x')).items).toEqual([]);
    await release();
    await refused;
  }));

it('a DataSource that is destroyed waits for nobody who has a connection of it', () =>
  withApp({}, async (app) => {
    const held = barrier(2);
    const release = barrier(2);
    const unit = app.transactions.run({}, async (transaction) => {
      await transaction.query({ text: 'SELECT 1' });
      await held();
      await release();
      return transaction.query({ text: 'SELECT 1' });
    });
    const refused = expect(unit).rejects.toMatchObject({ type: 'database-unavailable' });
    await held();
    await app.dataSource.destroy();
    await release();
    await refused;
    await app.dataSource.initialize();
    expect((await app.people.findByName('x')).items).toEqual([]);
  }));

it('a statement beyond DB_STATEMENT_TIMEOUT_MS is cancelled by the server and answered 503', () =>
  withApp({ DB_STATEMENT_TIMEOUT_MS: '100' }, async (app) => {
    const { id } = await app.people.create({ name: 'locked' });
    await database.query('BEGIN');
    await database.query('SELECT FROM people WHERE id = $1 FOR UPDATE', [id]);
    const response = await app.send('PATCH', `/people/${id}`, '{"name":"x"}');
    await database.query('COMMIT');
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ type: '/problems/statement-timeout' });
    expect((await app.people.get(id)).name).toBe('locked');
  }));

it('TRANSACTION_ISOLATION_LEVEL is the level of every transaction, without a statement more', () =>
  withApp({ TRANSACTION_ISOLATION_LEVEL: 'REPEATABLE READ' }, (app) =>
    app.transactions.run({}, async (transaction) => {
      const { rows } = await transaction.query({
        text: `SELECT current_setting('transaction_isolation') AS level`,
      });
      expect(rows).toEqual([{ level: 'repeatable read' }]);
    }),
  ));

it('connections carry the name of the application and are never more than DB_POOL_SIZE', () =>
  withApp({ DB_POOL_SIZE: '3' }, async (app) => {
    const unit = (n: number) => app.transactions.run({}, () => app.people.create({ name: `many ${n}` }));
    await Promise.all(Array.from({ length: 30 }, (_, n) => unit(n)));
    const backends = await database.query(`SELECT FROM pg_stat_activity WHERE application_name = 'nestjs-people' AND datname = current_database()`); // prettier-ignore
    expect(backends).toHaveLength(3);
    expect(poolOf(app.dataSource)).toEqual({ open: 3, borrowed: 0, waiting: 0 });
  }));

it('a database that goes away is a 503 that can be repeated, and works again when it is back', async () => {
  const proxy = await startTcpProxyTo(database.url);
  await withApp({ DATABASE_URL: proxy.through(database.url), DB_ACQUIRE_TIMEOUT_MS: '500' }, async (app) => {
    await proxy.refuse();
    const response = await app.request('/people?name=x');
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ type: '/problems/database-unavailable' });
    await proxy.accept();
    expect((await app.request('/people?name=x')).status).toBe(200);
  });
  await proxy.close();
});
