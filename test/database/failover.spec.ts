import { randomUUID } from 'node:crypto';
import { eventually } from '../support/barrier.js';
import { type PeopleApp, poolOf, startPeopleApp } from '../support/people-app.js';
import { type PrimaryAndStandby, startPrimaryAndStandby } from '../support/standby.js';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.js';
import { openDatabase, type TestDatabase } from '../support/test-database.js';

let servers: PrimaryAndStandby;
let proxy: TcpProxy;
let database: TestDatabase;
beforeEach(async () => {
  servers = await startPrimaryAndStandby();
  proxy = await startTcpProxy({ host: '127.0.0.1', port: servers.primary.port });
  database = await openDatabase(servers.primary.url);
});
afterEach(async () => {
  await database.drop();
  await proxy.close();
  await servers.stop();
});

async function withApp(
  environment: Record<string, string>,
  use: (app: PeopleApp) => Promise<void>,
): Promise<void> {
  const address = proxy.through(servers.primary.url);
  const app = await startPeopleApp({ DATABASE_URL: address, DB_POOL_SIZE: '4', ...environment }, database);
  try {
    await use(app);
  } finally {
    await app.close();
  }
}

const create = async (app: PeopleApp, name = 'written'): Promise<number> =>
  (await app.send('POST', '/people', JSON.stringify({ name }))).status;
const createByUnit = (app: PeopleApp) =>
  app.transactions.run({}, async () => {
    await app.people.create({ name: 'by a unit' });
    return 'done';
  });
/** As many at once as the pool has connections. */
const all = <T>(one: () => Promise<T>): Promise<T[]> => Promise.all(Array.from({ length: 4 }, one));
const readiness = async (app: PeopleApp): Promise<[number, string | undefined]> => {
  const response = await app.request('/health/ready');
  const { error } = (await response.json()) as { error: Record<string, { reason: string } | undefined> };
  return [response.status, error.database?.reason];
};
const switchTo = (port: number) => (proxy.target = { host: '127.0.0.1', port });
const NO_WRITES = 'takes no writes (read only or a standby)';
/** From the end of the cause on, without a restart. */
const WELL_AGAIN_MS = 2000;

/** How many writes are refused before the first that is done, although the server takes them again. */
async function refusedUntilWell(app: PeopleApp): Promise<number> {
  let refused = 0;
  await eventually(async () => (await create(app)) === 201 || (refused++, false), WELL_AGAIN_MS);
  return refused;
}

describe.each([
  // The one that finds out.
  ['fast', 1],
  ['verified', 0],
  ['clean', 0],
])('with DB_RECYCLING=%s', (recycling, atMostRefused) => {
  it('connections to the old primary, which lives on as a standby, are replaced once the address leads to the new one', () =>
    withApp({ DB_RECYCLING: recycling }, async (app) => {
      expect(await all(() => create(app))).toEqual([201, 201, 201, 201]);
      const { primary, standby } = servers;
      await primary.kill();
      await standby.promote();
      await primary.start('standby');
      // The address still leads to the old one.
      const refused = await app.send('POST', '/people', '{"name":"nowhere"}');
      expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1']);
      expect(await refused.json()).toMatchObject({ type: '/problems/database-unavailable' });
      await expect(createByUnit(app)).rejects.toMatchObject({ type: 'database-unavailable', sqlState: '25006' }); // prettier-ignore
      expect(await readiness(app)).toEqual([503, NO_WRITES]);
      expect((await app.request('/people?name=written')).status).toBe(200);
      await all(() => app.people.findByName('written'));
      expect(poolOf(app.dataSource).open).toBe(4);

      switchTo(standby.port);
      expect(await refusedUntilWell(app)).toBeLessThanOrEqual(atMostRefused);
      // None of the pool's connections is to the old one any more.
      expect(await all(() => create(app, 'well again'))).toEqual([201, 201, 201, 201]);
      expect(await all(() => createByUnit(app))).toEqual(['done', 'done', 'done', 'done']);
      expect(await readiness(app)).toEqual([200, undefined]);
      expect(await standby.query(`SELECT FROM people WHERE name = 'nowhere'`)).toEqual([]);
    }));

  it('a database that takes no writes for a while is named, and all is well as soon as it takes them again', () =>
    withApp({ DB_RECYCLING: recycling }, async (app) => {
      const { primary } = servers;
      await primary.query('ALTER DATABASE people SET default_transaction_read_only = on');
      await primary.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'nestjs-people'`); // prettier-ignore
      await eventually(async () => (await readiness(app))[1] === NO_WRITES);
      expect(await all(() => create(app))).toEqual([503, 503, 503, 503]);
      await expect(createByUnit(app)).rejects.toMatchObject({ sqlState: '25006' });
      expect((await all(() => app.request('/people?name=x'))).map(({ status }) => status)).toEqual([200, 200, 200, 200]); // prettier-ignore

      // Not on a connection that has the setting.
      await primary.query('BEGIN; SET TRANSACTION READ WRITE; ALTER DATABASE people RESET default_transaction_read_only; COMMIT'); // prettier-ignore
      expect(await refusedUntilWell(app)).toBeLessThanOrEqual(atMostRefused);
      expect(await all(() => create(app))).toEqual([201, 201, 201, 201]);
      expect(await all(() => createByUnit(app))).toEqual(['done', 'done', 'done', 'done']);
      expect(await readiness(app)).toEqual([200, undefined]);
    }));

  it('a unit that is not to write works on a standby, and its connection is kept', () =>
    withApp({ DB_RECYCLING: recycling, DB_POOL_SIZE: '1' }, async (app) => {
      await create(app, 'to be read');
      await servers.caughtUp();
      switchTo(servers.standby.port);
      await database.query(`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'nestjs-people'`); // prettier-ignore
      const read = () =>
        app.transactions.run({ readOnly: true }, async (transaction) => {
          await app.people.findByName('to be read');
          const { rows } = await transaction.query({
            text: 'SELECT pg_backend_pid() AS pid, pg_is_in_recovery() AS standby',
          });
          return rows[0];
        });
      const first = await eventually(() => read().catch(() => undefined));
      expect(first).toMatchObject({ standby: true });
      // That it must not write is no failing of the server.
      const writing = app.transactions.run({ readOnly: true }, (transaction) =>
        transaction.query({ text: `INSERT INTO people (name) VALUES ('x')` }),
      );
      await expect(writing).rejects.toMatchObject({ code: '25006' });
      expect(await read()).toEqual(first);
    }));
});

describe('commits that are under way when the primary dies', () => {
  it('are there on its synchronous standby, if they were acknowledged; none that is said to be undone is', () =>
    withApp({ DB_ACQUIRE_TIMEOUT_MS: '1000', DB_POOL_SIZE: '8' }, async (app) => {
      const told = new Map<string, string>();
      let isOver = false;
      const http = async () => {
        const id = randomUUID();
        const response = await app.send('POST', '/people', JSON.stringify({ id, name: 'http' }));
        const { type } = (await response.json()) as { type?: string };
        // 200: an attempt whose answer was lost had stored it.
        told.set(id, response.ok ? 'done' : (type ?? '?'));
      };
      const unit = async () => {
        const ids = [randomUUID(), randomUUID()];
        const outcome = await app.transactions
          .run({ timeoutMs: 3000 }, async () => {
            for (const id of ids) await app.people.create({ id, name: 'unit' });
            return 'done';
          })
          .catch(({ type }: { type?: string }) => `/problems/${type}`);
        for (const id of ids) told.set(id, outcome);
      };
      const clients = [http, http, http, http, unit, unit, unit, unit].map(async (send) => {
        while (!isOver) await send();
      });
      const done = () => [...told.values()].filter((outcome) => outcome === 'done').length;
      await eventually(() => done() > 100);
      await servers.primary.kill();
      await servers.standby.promote();
      switchTo(servers.standby.port);
      const before = done();
      await eventually(() => done() > before + 20, WELL_AGAIN_MS);
      isOver = true;
      await Promise.all(clients);
      const rows = await servers.standby.query<{ id: string }>('SELECT id FROM people');
      const there = new Set(rows.map(({ id }) => id));
      const wrong = [...told].filter(([id, outcome]) => {
        if (outcome === 'done') return !there.has(id);
        return outcome === '/problems/transaction-outcome-unknown' ? false : there.has(id);
      });
      expect(wrong).toEqual([]);
      const kinds = ['done', '/problems/database-unavailable', '/problems/pool-exhausted', '/problems/transaction-timeout', '/problems/transaction-outcome-unknown']; // prettier-ignore
      expect(kinds).toEqual(expect.arrayContaining([...new Set(told.values())]));
    }));
});
