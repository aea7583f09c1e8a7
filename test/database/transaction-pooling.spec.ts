import { DataSource } from 'typeorm';
import { peopleMigrations } from '../../migrations/index.js';
import { duringTests } from '../support/during-tests.js';
import { type PeopleHost, startPeopleHost } from '../support/people-host.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';
import { judge, prepare, WRITE_NAMES } from '../support/people-writes.js';
import { describeWithPgBouncer, startPgBouncer } from '../support/pgbouncer.js';
import { createDatabase, openDatabase, type TestDatabase } from '../support/test-database.js';

/** Fewer connections to the server than the applications have to PgBouncer, so that each goes from hand to hand. */
const FEW = { default_pool_size: 3 };

/** A schema with the tables of the migrations. */
async function createTenant(database: TestDatabase, schema: string): Promise<void> {
  await database.query(`CREATE SCHEMA ${schema}`);
  const dataSource = new DataSource({ type: 'postgres', url: database.url, schema, migrations: peopleMigrations, installExtensions: false }); // prettier-ignore
  await dataSource.initialize();
  await dataSource.runMigrations({ transaction: 'each' });
  await dataSource.destroy();
}

describeWithPgBouncer('through PgBouncer (transaction pooling)', () => {
  const database = duringTests(() => createDatabase());
  const bouncer = duringTests(() =>
    startPgBouncer({ server: database.url, poolMode: 'transaction', settings: FEW }),
  );

  describe.each(['named', 'unnamed'] as const)(
    'two tenants, each with a schema of its own (%s)',
    (preparedStatements) => {
      const schemas = [`tenant_a_${preparedStatements}`, `tenant_b_${preparedStatements}`];
      let tenants: PeopleHost[];
      beforeAll(async () => {
        for (const schema of schemas) await createTenant(database, schema);
        tenants = await Promise.all(
          schemas.map((schema, index) =>
            startPeopleHost(bouncer.url, {
              dataSource: { schema },
              // One publishes events, one does not: its statements are others.
              people: { events: index === 0, transactions: { preparedStatements } },
            }),
          ),
        );
      });
      afterAll(() => Promise.all(tenants.map((tenant) => tenant.close())));

      it('of 1,000 creations each is in its own schema, with its event, and none is answered 5xx', async () => {
        const creating = Array.from({ length: 500 }, (_, n) =>
          tenants.map(async (tenant, index) => {
            const response = await tenant.send(
              'POST',
              '/people',
              JSON.stringify({ name: `${schemas[index]} ${n}` }),
            );
            return { status: response.status, id: ((await response.json()) as { id: string }).id, index };
          }),
        ).flat();
        const answers = await Promise.all(creating);
        expect([...new Set(answers.map(({ status }) => status))]).toEqual([201]);
        for (const [index, schema] of schemas.entries()) {
          const own = answers.filter((answer) => answer.index === index).map(({ id }) => id);
          const stored = await database.query<{ id: string }>(
            `SELECT id FROM ${schema}.people WHERE name LIKE '${schema} %'`,
          );
          expect(stored.map(({ id }) => id).sort()).toEqual(own.sort());
          const [events] = await database.query<{ n: number }>(
            `SELECT count(*)::int AS n FROM ${schema}.message_outbox`,
          );
          expect(events!.n).toBe(index === 0 ? 500 : 0);
        }
      });

      it('units of work, hot people and finding are right side by side', async () => {
        const people = await Promise.all(tenants.map((tenant) => tenant.people.create({ name: 'hot' })));
        const rounds = Array.from({ length: 40 }, (_, n) => n);
        await Promise.all(
          tenants.flatMap((tenant, index) => {
            const { id } = people[index]!;
            return rounds.map(async (n) => {
              if (n % 4 === 0) await tenant.people.update(id, { name: `hot ${n}` });
              else if (n % 4 === 1) expect((await tenant.people.get(id)).id).toBe(id);
              else
                await tenant.transactions.run({ isolationLevel: 'REPEATABLE READ' }, async () => {
                  const created = await tenant.people.create({ name: `unit ${n}` });
                  expect((await tenant.people.get(created.id)).name).toBe(`unit ${n}`);
                });
            });
          }),
        );
        for (const schema of schemas) {
          const [row] = await database.query<{ n: number }>(
            `SELECT count(*)::int AS n FROM ${schema}.people WHERE name LIKE 'unit %'`,
          );
          expect(row!.n).toBe(20);
        }
      });
    },
  );

  describe('the service', () => {
    let app: PeopleApp;
    beforeAll(async () => {
      app = await startPeopleApp({ DB_POOL_SIZE: '10' }, await openDatabase(bouncer.url));
    });
    afterAll(async () => {
      await app.close();
      await app.database.drop();
    });

    it.each(WRITE_NAMES)('does %s, again and again', async (name) => {
      for (const round of [1, 2, 3]) {
        const write = await prepare(app, name);
        const response = await write.send();
        expect([round, response.status < 300]).toEqual([round, true]);
        expect(await judge(write, response, database)).toEqual([]);
      }
    });

    it('leaves nothing behind on the server’s connections', async () => {
      await Promise.all(Array.from({ length: 30 }, (_, n) => app.people.create({ name: `left ${n}` })));
      const left = await database.query(`SELECT FROM pg_locks WHERE locktype = 'advisory'`);
      expect(left).toEqual([]);
    });
  });

  it('a level and a timeout that the pooler drops are there all the same, for single statements too', async () => {
    const options = { DB_STATEMENT_TIMEOUT_MS: '1234', TRANSACTION_ISOLATION_LEVEL: 'SERIALIZABLE' };
    const app = await startPeopleApp(options, await openDatabase(bouncer.url));
    const text = `SELECT current_setting('transaction_isolation') AS level, current_setting('statement_timeout') AS timeout`;
    const wanted = [{ level: 'serializable', timeout: '1234ms' }];
    try {
      const { rows } = await app.transactions.runStatement({ text }, { writes: false });
      expect(rows).toEqual(wanted);
      expect((await app.transactions.run({}, (transaction) => transaction.query({ text }))).rows).toEqual(
        wanted,
      );
      const weaker = { isolationLevel: 'READ COMMITTED', statementTimeoutMs: 99 } as const;
      expect((await app.transactions.run(weaker, (transaction) => transaction.query({ text }))).rows).toEqual([{ level: 'read committed', timeout: '99ms' }]); // prettier-ignore
    } finally {
      await app.close();
      await app.database.drop();
    }
  });

  it('a search_path that the pooler drops decides all the same whose people they are', async () => {
    await createTenant(database, 'by_path');
    const host = await startPeopleHost(bouncer.url, {
      dataSource: { extra: { options: '-c search_path=by_path,public' } },
    });
    try {
      const people = await Promise.all(
        Array.from({ length: 20 }, (_, n) => host.people.create({ name: `path ${n}` })),
      );
      expect(await database.query(`SELECT FROM by_path.people WHERE name LIKE 'path %'`)).toHaveLength(
        people.length,
      );
      expect((await host.people.get(people[0]!.id)).name).toBe('path 0');
    } finally {
      await host.close();
    }
  });
});
