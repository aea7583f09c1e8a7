import { randomBytes } from 'node:crypto';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';
import { type PeopleHost, startPeopleHost } from '../support/people-host.js';
import { createDatabase, openDatabase, onServer } from '../support/test-database.js';

const database = duringTests(() => createDatabase());

/** A role of the test's own, with all rights in its database, and a url with it. */
async function withRole(settings: string[], use: (url: string) => Promise<void>): Promise<void> {
  const role = `limited_${randomBytes(4).toString('hex')}`;
  await onServer(async (query) => {
    await query(`CREATE ROLE ${role} LOGIN PASSWORD 'x'`);
    for (const setting of settings) await query(`ALTER ROLE ${role} ${setting}`);
  });
  await database.query(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role}`);
  const url = new URL(database.url);
  [url.username, url.password] = [role, 'x'];
  try {
    await use(url.href);
  } finally {
    await database.query(`DROP OWNED BY ${role}`);
    await onServer((query) => query(`DROP ROLE ${role}`));
  }
}

async function withHost(
  url: string,
  options: Parameters<typeof startPeopleHost>[1],
  use: (host: PeopleHost) => Promise<void>,
): Promise<void> {
  const host = await startPeopleHost(url, options);
  try {
    await use(host);
  } finally {
    await host.close();
  }
}

it('where the server allows fewer connections than the pool has places, those that are there are waited for', () =>
  withRole(['CONNECTION LIMIT 2'], (url) =>
    withHost(url, { dataSource: { poolSize: 8 } }, async (host) => {
      const answers = await Promise.all(
        Array.from({ length: 60 }, (_, n) => host.send('POST', '/people', `{"name":"limited ${n}"}`)),
      );
      expect([...new Set(answers.map(({ status }) => status))]).toEqual([201]);
      await Promise.all(
        Array.from({ length: 20 }, () =>
          host.transactions.run({}, () => host.people.create({ name: 'unit' })),
        ),
      );
    }),
  ));

// @trap the password is changed while the service runs, and a burst needs more connections than there are
it('where the server lets nobody in any more, those that are there are waited for; without any it is told at once', () =>
  withRole([], (url) =>
    withHost(url, { dataSource: { poolSize: 8, connectTimeoutMS: 30_000 } }, async (host) => {
      const burst = () =>
        Promise.all(
          Array.from({ length: 30 }, (_, n) => host.send('POST', '/people', `{"name":"let in ${n}"}`)),
        );
      const { username: role } = new URL(url);
      // Those that there are from the start, and no more than two.
      await Promise.all([1, 2].map(() => host.people.create({ name: 'let in' })));
      await onServer((query) => query(`ALTER ROLE ${role} PASSWORD 'another'`));
      expect([...new Set((await burst()).map(({ status }) => status))]).toEqual([201]);
      await onServer((query) =>
        query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${role}'`),
      );
      await eventually(async () => (await burst()).every(({ status }) => status === 503));
    }),
  ));

it('and where none comes back in time, all are busy', () =>
  withRole(['CONNECTION LIMIT 1'], (url) =>
    withHost(url, { dataSource: { poolSize: 3, connectTimeoutMS: 300 } }, (host) =>
      host.transactions.run({}, async (transaction) => {
        await transaction.query({ text: 'SELECT 1' });
        const response = await host.send('POST', '/people', '{"name":"none left"}');
        expect([response.status, await response.json()]).toMatchObject([
          503,
          { type: '/problems/pool-exhausted' },
        ]);
      }),
    ),
  ));

it('a query beside a unit of work that finds all connections busy says so by its type', () =>
  withHost(database.url, { dataSource: { poolSize: 1, connectTimeoutMS: 300 } }, async (host) => {
    const unit = host.transactions.run({ poolQueries: 'off' } as object, async (transaction) => {
      await transaction.query({ text: `INSERT INTO people (name) VALUES ('beside')` });
      await host.dataSource.query('SELECT 1');
    });
    await expect(unit).rejects.toMatchObject({ type: 'pool-exhausted', status: 503 });
    expect(await database.query(`SELECT FROM people WHERE name = 'beside'`)).toEqual([]);
    await expect(host.dataSource.transaction(() => host.dataSource.query('SELECT 1'))).rejects.toMatchObject({ type: 'pool-exhausted' }); // prettier-ignore
  }));

describe('a statement timeout', () => {
  const timeout = `SELECT current_setting('statement_timeout') AS is`;
  const within = (host: PeopleHost, options: object) =>
    host.transactions.run(options, async (transaction) => {
      await transaction.query({ text: 'SELECT 1' });
      const { rows } = await transaction.query<{ is: string }>({ text: timeout });
      return rows[0]!.is;
    });

  it('of the role stands where nobody asks for another, also within a larger budget', () =>
    withRole([`SET statement_timeout = '4s'`], (url) =>
      withHost(url, {}, async (host) => {
        expect(await within(host, {})).toBe('4s');
        expect(await within(host, { timeoutMs: 60_000 })).toBe('4s');
        expect(await within(host, { timeoutMs: 2000 })).toMatch(/^(2s|1\d{3}ms)$/);
      }),
    ));

  it.each([
    ['of a host', { dataSource: { extra: { statement_timeout: 0 } } }],
    ['in the options of a host', { dataSource: { extra: { options: '-c statement_timeout=0' } } }],
  ])('of 0 (%s) is none, whatever the role has', (_, options) =>
    withRole([`SET statement_timeout = '4s'`], (url) =>
      withHost(url, options, async (host) => {
        expect(await within(host, {})).toBe('0');
        expect((await host.transactions.runStatement({ text: timeout }, { writes: false })).rows).toEqual([
          { is: '0' },
        ]);
      }),
    ),
  );

  it('of 0 (DB_STATEMENT_TIMEOUT_MS) is none, whatever the role has', () =>
    withRole([`SET statement_timeout = '4s'`], async (url) => {
      const app = await startPeopleApp({ DB_STATEMENT_TIMEOUT_MS: '0' }, await openDatabase(url));
      try {
        const { rows } = await app.transactions.runStatement({ text: timeout }, { writes: false });
        expect(rows).toEqual([{ is: '0' }]);
      } finally {
        await app.close();
        await app.database.drop();
      }
    }));
});

it('a level that the role’s default contradicts is asked for with each BEGIN', () =>
  withHost(database.url, { dataSource: { isolationLevel: 'SERIALIZABLE' } }, async (host) => {
    const level = await host.transactions.run({}, async (transaction) => {
      const { rows } = await transaction.query<{ is: string }>({ text: `SELECT current_setting('transaction_isolation') AS is` }); // prettier-ignore
      return rows[0]!.is;
    });
    expect(level).toBe('serializable');
  }));
