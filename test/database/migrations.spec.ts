import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { DataSource } from 'typeorm';
import { peopleMigrations } from '../../migrations/index.js';
import { migrate } from '../../src/app/migrating/migrate.js';
import { Person } from '../../src/people/person.entity.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

const run = promisify(execFile);
const dataSourceOn = (url: string) =>
  new DataSource({ type: 'postgres', url, entities: [Person], migrations: peopleMigrations }).initialize();

const ALL = peopleMigrations.map(({ name }) => name);

let database: TestDatabase;
beforeEach(async () => {
  database = await createDatabase('template0');
});
afterEach(() => database.drop());

const indexes = () => database.query<{ indexname: string; indexdef: string }>(`SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'people' ORDER BY 1`); // prettier-ignore

describe('the article’s table, in use before we came', () => {
  beforeEach(async () => {
    await database.query(
      'CREATE TABLE people (id uuid DEFAULT gen_random_uuid() PRIMARY KEY, name text NOT NULL, data json)',
    );
    await database.query(
      `INSERT INTO people (name, data) VALUES ('Ada', '{"n": 18446744073709551615}'), ('Grace', NULL), (repeat('x', 100000) || md5('1'), '[1]')`,
    );
  });

  it('keeps its rows as they are, those with the longest names too, and its writers', async () => {
    const before = await database.query('SELECT id, name, data::text, xmin::text FROM people ORDER BY id');
    const dataSource = await dataSourceOn(database.url);
    expect(await migrate(dataSource)).toEqual(ALL);
    await dataSource.destroy();
    expect(await database.query('SELECT id, name, data::text, xmin::text FROM people ORDER BY id')).toEqual(
      before,
    );
    expect((await indexes()).map(({ indexname }) => indexname)).toEqual([
      'people_name_id_idx',
      'people_pkey',
    ]);
    await database.query(
      `INSERT INTO people (name) SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) n`,
    );
  });

  it('is migrated while a transaction writes to it', async () => {
    const dataSource = await dataSourceOn(database.url);
    const writer = dataSource.createQueryRunner();
    await writer.startTransaction();
    await writer.query(`INSERT INTO people (name) VALUES ('meanwhile')`);
    const migrating = migrate(dataSource);
    await writer.query(`INSERT INTO people (name) VALUES ('and another')`);
    await writer.commitTransaction();
    await writer.release();
    await migrating;
    await dataSource.destroy();
    expect(await database.query(`SELECT FROM people WHERE name LIKE '%an%'`)).toHaveLength(2);
  });

  it('is left in place by a revert, without our index', async () => {
    const dataSource = await dataSourceOn(database.url);
    await migrate(dataSource);
    for (const _ of ALL) await dataSource.undoLastMigration({ transaction: 'each' });
    await dataSource.destroy();
    expect((await indexes()).map(({ indexname }) => indexname)).toEqual(['people_pkey']);
    expect(await database.query('SELECT FROM people')).toHaveLength(3);
  });
});

it('an index whose building was interrupted is built again', async () => {
  await database.query(
    'CREATE TABLE people (id uuid DEFAULT gen_random_uuid() PRIMARY KEY, name text NOT NULL, data json)',
  );
  await database.query(`INSERT INTO people (name) VALUES ('twice'), ('twice')`);
  // A concurrent build that fails leaves an invalid index of that name.
  await expect(
    database.query('CREATE UNIQUE INDEX CONCURRENTLY people_name_id_idx ON people (name)'),
  ).rejects.toThrow();
  const dataSource = await dataSourceOn(database.url);
  await migrate(dataSource);
  await dataSource.destroy();
  const [index] = await indexes();
  expect(index?.indexdef).toBe(
    'CREATE INDEX people_name_id_idx ON public.people USING btree (name, id) WHERE (octet_length(name) <= 2000)',
  );
  expect(await database.query(`SELECT indisvalid FROM pg_index WHERE indexrelid = 'people_name_id_idx'::regclass`)).toEqual([{ indisvalid: true }]); // prettier-ignore
});

it('instances that start together migrate once', async () => {
  const dataSources = await Promise.all([1, 2, 3].map(() => dataSourceOn(database.url)));
  const applied = await Promise.all(dataSources.map(migrate));
  expect(applied.flat()).toEqual(ALL);
  await Promise.all(dataSources.map((dataSource) => dataSource.destroy()));
});

it('a pool of one connection is enough to migrate', async () => {
  const dataSource = await new DataSource({
    type: 'postgres', url: database.url, migrations: peopleMigrations, poolSize: 1, connectTimeoutMS: 1000,
  }).initialize(); // prettier-ignore
  expect(await migrate(dataSource)).toHaveLength(ALL.length);
  await dataSource.destroy();
});

it('is reverted with events that wait behind a refused one: the relay of the version before knows of none', async () => {
  const dataSource = await dataSourceOn(database.url);
  await migrate(dataSource);
  await database.query(
    `INSERT INTO message_outbox (aggregatetype, aggregateid, type, topic, attempts, next_attempt_at)
     VALUES ('x', 'one', 'refused', 't', 1, now() + interval '1 hour'), ('x', 'one', 'behind', 't', 0, 'infinity')`,
  );
  const reverted = ALL.slice(ALL.findIndex((name) => name.startsWith('CreateOutboxLeases')));
  for (const _ of reverted) await dataSource.undoLastMigration({ transaction: 'each' });
  const ready = await database.query('SELECT type FROM message_outbox WHERE next_attempt_at IS NULL');
  expect(ready).toEqual([{ type: 'behind' }]);
  expect(await migrate(dataSource)).toEqual(reverted);
  await dataSource.destroy();
});

describe('the TypeORM command line on ormconfig.ts', () => {
  const typeorm = (...args: string[]) =>
    run(process.execPath, ['--import', '@swc-node/register/esm-register', 'node_modules/typeorm/cli.js', '-d', 'ormconfig.ts', ...args], {
      env: { PATH: process.env.PATH, TMPDIR: process.env.TMPDIR, DATABASE_URL: database.url },
    }); // prettier-ignore

  it('runs, finds nothing to generate, and reverts', async () => {
    expect((await typeorm('migration:run')).stdout).toContain('CreatePeople1700000000000 has been executed');
    const directory = mkdtempSync(path.join('.data', 'generated-'));
    try {
      await expect(typeorm('migration:generate', path.join(directory, 'Nothing'))).rejects.toMatchObject({
        stdout: expect.stringContaining('No changes in database schema were found'),
      });
      expect(readdirSync(directory)).toEqual([]);
      await database.query('ALTER TABLE people ADD COLUMN surplus text');
      await typeorm('migration:generate', path.join(directory, 'Surplus'));
      expect(readdirSync(directory)).toEqual([expect.stringMatching(/-Surplus\.ts$/)]);
    } finally {
      rmSync(directory, { recursive: true });
    }
    expect((await typeorm('migration:revert')).stdout).toContain('has been reverted');
  });
});
