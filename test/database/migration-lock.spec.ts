import { randomBytes } from 'node:crypto';
import { DataSource, type DataSourceOptions, type MigrationInterface, type QueryRunner } from 'typeorm';
import { peopleMigrations } from '../../migrations/index.js';
import { migrate } from '../../src/app/migrating/migrate.js';
import { eventually } from '../support/barrier.js';
import { describeWithPgBouncer, type PgBouncer, startPgBouncer } from '../support/pgbouncer.js';
import { startTcpProxyTo } from '../support/tcp-proxy.js';
import { createDatabase, onServer, openDatabase, type TestDatabase } from '../support/test-database.js';

const ALL = peopleMigrations.map(({ name }) => name);

type Migrations = (new () => MigrationInterface)[];

/** Two steps that each take longer than the role's timeout. */
class TakesLong1800000000000 implements MigrationInterface {
  async up(queryRunner: QueryRunner) {
    await queryRunner.query('CREATE TABLE slow (step int)');
    await queryRunner.query('INSERT INTO slow SELECT 1 FROM pg_sleep(1)');
  }
  async down() {}
}
class TakesLongAlone1800000000001 implements MigrationInterface {
  transaction = false;
  async up(queryRunner: QueryRunner) {
    await queryRunner.query('INSERT INTO slow SELECT 2 FROM pg_sleep(1)');
    await queryRunner.startTransaction();
    await queryRunner.query('INSERT INTO slow SELECT 3 FROM pg_sleep(1)');
    await queryRunner.commitTransaction();
    await queryRunner.query('-- by hand\nBEGIN');
    await queryRunner.query('INSERT INTO slow SELECT $1::int FROM pg_sleep(1)', [4]);
    await queryRunner.query('COMMIT');
  }
  async down() {}
}
/** What can't be in a transaction, and waits for the one that is open on the table. */
class BuildsAnIndex1800000000002 implements MigrationInterface {
  transaction = false;
  async up(queryRunner: QueryRunner) {
    await queryRunner.query('CREATE INDEX CONCURRENTLY slow_idx ON slow (step)');
    await queryRunner.query('DROP INDEX CONCURRENTLY slow_idx');
    await queryRunner.query('VACUUM slow');
    await queryRunner.query('CREATE PROCEDURE pauses() LANGUAGE plpgsql AS $$ BEGIN COMMIT; PERFORM pg_sleep(1); END $$');
    await queryRunner.query('CALL pauses()');
  } // prettier-ignore
  async down() {}
}

let database: TestDatabase;
beforeEach(async () => {
  database = await createDatabase('template0');
});
afterEach(() => database.drop());

async function withDataSource<T>(
  url: string,
  use: (dataSource: DataSource) => Promise<T>,
  options: Partial<Extract<DataSourceOptions, { type: 'postgres' }>> = {},
): Promise<T> {
  const dataSource = await new DataSource({
    type: 'postgres', url, migrations: peopleMigrations, installExtensions: false, poolErrorHandler: () => undefined, ...options,
  }).initialize(); // prettier-ignore
  try {
    return await use(dataSource);
  } finally {
    await dataSource.destroy();
  }
}

const migrateOn = (url: string, migrations: Migrations = peopleMigrations) =>
  withDataSource(url, migrate, { migrations });

const advisoryLocks = () => database.query<{ pid: number }>(`SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`); // prettier-ignore

/** Of the server's connections that a pooler holds, whatever they are at. */
async function settingsOn(bouncer: PgBouncer, name: string): Promise<string[]> {
  const through = await Promise.all(Array.from({ length: 12 }, () => openDatabase(bouncer.url)));
  const found = await Promise.all(
    through.map(async (client) => {
      const [row] = await client.query<{ is: string }>(`SELECT current_setting($1) AS is FROM pg_sleep(0.1)`, [name]); // prettier-ignore
      await client.drop();
      return row!.is;
    }),
  );
  return [...new Set(found)];
}

const TIMEOUTS = ['statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout'];

/** Others behind the same pooler, so that connections go from hand to hand, and the timeouts that they have. */
async function keepBusy(url: string) {
  const seen = new Set<string>();
  let isOver = false;
  const others = await Promise.all(Array.from({ length: 3 }, () => openDatabase(url)));
  const busy = others.map(async (other) => {
    while (!isOver) {
      const [row] = await other.query<{ is: string }>(
        `SELECT current_setting('statement_timeout') AS is FROM pg_sleep(random() * 0.01)`,
      );
      seen.add(row!.is);
    }
    await other.drop();
  });
  return {
    seen: () => [...seen],
    stop: () => {
      isOver = true;
      return Promise.all(busy);
    },
  };
}

/** The database as a role of the test's own that cancels statements after half a second. */
async function withHastyRole(use: (url: string) => Promise<void>): Promise<void> {
  const role = `hasty_${randomBytes(4).toString('hex')}`;
  await onServer(async (query) => {
    await query(`CREATE ROLE ${role} LOGIN PASSWORD 'x'`);
    for (const timeout of TIMEOUTS) await query(`ALTER ROLE ${role} SET ${timeout} = '500ms'`);
    // With a snapshot of its own whoever has the lock would keep CREATE INDEX CONCURRENTLY waiting.
    await query(`ALTER ROLE ${role} SET default_transaction_isolation = 'serializable'`);
  });
  await database.query(`GRANT ALL ON SCHEMA public TO ${role}`);
  const url = new URL(database.url);
  [url.username, url.password] = [role, 'x'];
  try {
    await use(url.href);
  } finally {
    await database.query(`DROP OWNED BY ${role} CASCADE`);
    await onServer((query) => query(`DROP ROLE ${role}`));
  }
}

const SLOW: Migrations = [TakesLong1800000000000, TakesLongAlone1800000000001, BuildsAnIndex1800000000002];

async function expectSlowDone(url: string): Promise<void> {
  expect(await migrateOn(url, SLOW.slice(0, 2))).toEqual(SLOW.slice(0, 2).map(({ name }) => name));
  expect(await database.query('SELECT step FROM slow ORDER BY 1')).toEqual([1, 2, 3, 4].map((step) => ({ step }))); // prettier-ignore
  const writer = await openDatabase(database.url);
  await writer.query('BEGIN');
  await writer.query('INSERT INTO slow VALUES (5)');
  const migrating = migrateOn(url, SLOW);
  const isWaiting = () => database.query(`SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%' AND wait_event_type = 'Lock' AND now() - query_start > '800ms' AND datname = current_database()`); // prettier-ignore
  await eventually(async () => (await isWaiting()).length > 0).finally(() => writer.query('COMMIT'));
  expect(await migrating).toEqual([BuildsAnIndex1800000000002.name]);
  await writer.drop();
}

it('a migration takes as long as it takes, whatever timeout the role has', () =>
  withHastyRole(async (url) => {
    await expectSlowDone(url);
    expect(await advisoryLocks()).toEqual([]);
  }));

it('and whatever timeout the DataSource has; its pool keeps it', async () => {
  const options = { migrations: [TakesLong1800000000000], poolSize: 1, extra: { statement_timeout: 500 } };
  await withDataSource(
    database.url,
    async (dataSource) => {
      expect(await migrate(dataSource)).toHaveLength(1);
      expect(await dataSource.query(`SELECT current_setting('statement_timeout') AS is`)).toEqual([
        { is: '500ms' },
      ]);
    },
    options,
  );
});

it('where nothing is pending no lock is taken, and nothing waits for who has it', async () => {
  await migrateOn(database.url);
  await database.query('SELECT pg_advisory_lock(7365616412)');
  expect(await migrateOn(database.url)).toEqual([]);
});

/** A migration that sleeps, and the sessions in which it does. */
function sleeper(transaction: boolean | undefined, seconds: number): Migrations {
  return [
    class Sleeps1800000000000 implements MigrationInterface {
      transaction = transaction as boolean;
      async up(queryRunner: QueryRunner) {
        await queryRunner.query(`SELECT pg_sleep(${seconds})`);
        await queryRunner.query('CREATE TABLE done ()');
      }
      async down() {}
    },
  ];
}
const sleeping = () => database.query(`SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%' AND state = 'active' AND datname = current_database()`); // prettier-ignore
const isAsleep = () => eventually(async () => (await sleeping()).length > 0);
const isAwake = () => eventually(async () => (await sleeping()).length === 0);

async function expectLostWithLock(url: string, transaction: boolean | undefined): Promise<void> {
  const migrating = migrateOn(url, sleeper(transaction, 60));
  const rejected = expect(migrating).rejects.toThrow(/lock for migrating was lost.*Start again/s);
  await isAsleep();
  const [holder] = await advisoryLocks();
  await database.query('SELECT pg_terminate_backend($1)', [holder!.pid]);
  await rejected;
  await isAwake();
  expect(await database.query(`SELECT to_regclass('done') AS done`)).toEqual([{ done: null }]);
  expect(await migrateOn(url, sleeper(transaction, 0))).toHaveLength(1);
}

describe.each([
  ['in a transaction', undefined],
  ['in none', false],
])('a migration under way (%s)', (_, transaction) => {
  it('is ended when the connection that holds the lock is lost, and the next start migrates', () =>
    expectLostWithLock(database.url, transaction));

  it('is ended when its process is gone, so that the next one has no company', async () => {
    const proxy = await startTcpProxyTo(database.url);
    const migrating = migrateOn(proxy.through(database.url), sleeper(transaction, 60));
    const rejected = expect(migrating).rejects.toThrow();
    await isAsleep();
    await proxy.refuse();
    await rejected;
    await isAwake();
    expect(await migrateOn(database.url, sleeper(transaction, 0))).toHaveLength(1);
  });
});

it('two connections are enough', async () => {
  await withHastyRole(async (url) => {
    const role = new URL(url).username;
    await onServer((query) => query(`ALTER ROLE ${role} CONNECTION LIMIT 2`));
    expect(await migrateOn(url)).toEqual(ALL);
  });
});

describe.each([
  ['are not there', `BEGIN RAISE EXCEPTION 'not supported' USING ERRCODE = '0A000'; END`],
  ['do nothing', 'BEGIN RETURN true; END'],
])('on a server whose advisory locks %s', (_, body) => {
  const absent = { extra: { options: '-c search_path=absent,pg_catalog,public' }, schema: 'public' };
  beforeEach(async () => {
    await database.query('CREATE SCHEMA absent');
    for (const name of ['pg_advisory_lock', 'pg_try_advisory_lock', 'pg_try_advisory_xact_lock', 'pg_advisory_xact_lock', 'pg_advisory_unlock'])
      await database.query(`CREATE FUNCTION absent.${name}(bigint) RETURNS boolean LANGUAGE plpgsql AS $$ ${body} $$`); // prettier-ignore
  });

  it('what is pending is named, with what to do, and is not applied', () =>
    withDataSource(
      database.url,
      async (dataSource) => {
        await expect(migrate(dataSource)).rejects.toThrow(
          /no advisory locks.*npm run migration:run.*CreatePeople1700000000000, CreateMessaging1700000000001/s,
        );
        expect(await database.query(`SELECT to_regclass('public.people') AS people`)).toEqual([{ people: null }]); // prettier-ignore
      },
      absent,
    ));

  it('where nothing is pending the start goes on', async () => {
    await migrateOn(database.url);
    expect(await withDataSource(database.url, migrate, absent)).toEqual([]);
  });
});

describeWithPgBouncer('migrating through PgBouncer', () => {
  describe.each(['session', 'transaction'] as const)('(%s pooling)', (poolMode) => {
    async function withPgBouncer(use: (bouncer: PgBouncer) => Promise<void>, server = database.url) {
      const bouncer = await startPgBouncer({
        server,
        poolMode,
        settings: { default_pool_size: poolMode === 'session' ? 10 : 2 },
      });
      try {
        await use(bouncer);
      } finally {
        await bouncer.stop();
      }
    }

    it('instances that start together, some directly, migrate once and leave no lock behind', () =>
      withPgBouncer(async ({ url }) => {
        const applied = await Promise.all([url, url, database.url].map((each) => migrateOn(each)));
        expect(applied.flat()).toEqual(ALL);
        expect(await advisoryLocks()).toEqual([]);
        expect(await migrateOn(url)).toEqual([]);
      }));

    it('it takes as long as it takes, whatever timeout the role has, and leaves no setting behind', () =>
      withHastyRole((url) =>
        withPgBouncer(async (bouncer) => {
          const others = await keepBusy(bouncer.url);
          await expectSlowDone(bouncer.url).finally(() => others.stop());
          expect(others.seen()).toEqual(['500ms']);
          for (const name of TIMEOUTS) expect(await settingsOn(bouncer, name)).toEqual(['500ms']);
          expect(await settingsOn(bouncer, 'client_connection_check_interval')).toEqual(['0']);
          expect(await advisoryLocks()).toEqual([]);
        }, url),
      ));

    it.each([
      ['in a transaction', undefined],
      ['in none', false],
    ])('a migration (%s) is ended when the lock is lost', (_, transaction) =>
      withPgBouncer(({ url }) => expectLostWithLock(url, transaction)),
    );

    it('a migration that fails leaves no lock and no setting behind', () =>
      withPgBouncer(async (bouncer) => {
        class Fails1800000000003 implements MigrationInterface {
          transaction = false;
          up = (queryRunner: QueryRunner) => queryRunner.query('CREATE INDEX CONCURRENTLY nothing ON nowhere (x)');
          async down() {}
        } // prettier-ignore
        await expect(migrateOn(bouncer.url, [Fails1800000000003])).rejects.toThrow(/nowhere/);
        expect(await advisoryLocks()).toEqual([]);
        expect(await settingsOn(bouncer, 'statement_timeout')).toEqual(['0']);
        expect(await migrateOn(bouncer.url)).toEqual(ALL);
      }));

    it('what a pooler drops is there: the tables are in the schema of the search_path', () =>
      withPgBouncer(async ({ url }) => {
        await database.query('CREATE SCHEMA tenant');
        await withDataSource(url, migrate, { extra: { options: '-c search_path=tenant' } });
        expect(await database.query(`SELECT to_regclass('tenant.people_name_id_idx')::text AS index, to_regclass('public.people') AS people`)).toEqual([{ index: 'tenant.people_name_id_idx', people: null }]); // prettier-ignore
        expect(await settingsOn({ url } as PgBouncer, 'search_path')).toEqual(['"$user", public']);
      }));
  });
});
