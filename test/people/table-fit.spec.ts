import { type INestApplicationContext, Logger, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { DataSource } from 'typeorm';
import { readEnvironment } from '../../src/app/environment.js';
import { migrate } from '../../src/app/migrating/migrate.js';
import { startService } from '../../src/app/start-service.js';
import { dataSourceOptions } from '../../src/database/data-source-options.js';
import { PeopleModule } from '../../src/people/people.module.js';
import { PeopleService } from '../../src/people/people.service.js';
import { peopleMigrations } from '../../migrations/index.js';
import { eventually } from '../support/barrier.js';
import { startLossyProxy } from '../support/lossy-proxy.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';
import { createDatabase, openDatabase, type TestDatabase } from '../support/test-database.js';
import { asOrdinaryRole, dropRole } from './whose-fault.cases.js';
import { FITTING, MISFITS } from './table-fit.cases.js';

let database: TestDatabase;
let role: string;
let app: PeopleApp;

beforeAll(async () => {
  database = await createDatabase();
  const ordinary = await asOrdinaryRole(database);
  role = ordinary.role;
  app = await startPeopleApp({}, { ...database, url: ordinary.url });
});
afterAll(async () => {
  await app.close();
  await dropRole(database, role);
  await database.drop();
});

/** The only way in which such a table is there for good: another in its place, with the rights of the first. */
async function replaceTable(statements: readonly string[]): Promise<void> {
  await database.query(`DO $$ DECLARE it record; BEGIN
    FOR it IN SELECT CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END AS kind, relname
      FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname IN ('people', 'below') ORDER BY relname DESC
    LOOP EXECUTE format('DROP %s IF EXISTS %I CASCADE', it.kind, it.relname); END LOOP; END $$`);
  await database.query(
    'CREATE TABLE people (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text NOT NULL, data json)',
  );
  await run(statements);
  await database.query(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role}`);
}
async function run(statements: readonly string[]): Promise<void> {
  for (const text of statements) await database.query(text.replaceAll('$role', role));
}

/** Why the service is not ready, because of its table; undefined when it is ready. */
async function reason(): Promise<string | undefined> {
  const response = await app.request('/health/ready');
  const { error } = (await response.json()) as { error: { people?: { reason: string } } };
  expect(response.status).toBe(error.people ? 503 : 200);
  return error.people?.reason;
}
const untilReady = () => eventually(async () => (await reason()) === undefined);
const untilNotReady = (what: RegExp) => eventually(async () => what.test((await reason()) ?? ''));

describe('a table that does not fit makes readiness false with what to do, and what it says puts it right', () => {
  it.each(MISFITS)('$what', async ({ statements, rights = [], difference, mend }) => {
    await replaceTable(statements);
    await run(rights);
    await untilNotReady(difference);
    const told = (await reason())!;
    const advice = [...told.matchAll(/: ((?:ALTER TABLE|GRANT|DROP RULE) .*?)\.(?= |$)/g)].map(
      ([, sql]) => sql!,
    );
    // Its own advice where it has one, else what its reader would do.
    if (mend) await run(mend);
    else {
      expect(advice.length).toBeGreaterThan(0);
      await run(advice);
    }
    await untilReady();
    expect((await app.send('POST', '/people', '{"name":"Ada","data":{"a":1}}')).status).toBe(201);
  });

  it('all of its differences at once', async () => {
    await replaceTable([
      'ALTER TABLE people DROP CONSTRAINT people_pkey, ALTER id DROP DEFAULT, ALTER id TYPE text, DROP name, ADD tenant int NOT NULL',
    ]);
    await untilNotReady(/id is of type text/);
    const told = (await reason())!;
    for (const what of [/id is of type text/, /name is missing/, /tenant is NOT NULL/, /primary key/])
      expect(told).toMatch(what);
  });
});

it('the database is asked what the table is like once at the start, and once for many probes; operations ask nothing', async () => {
  await replaceTable([]);
  const proxy = await startLossyProxy(app.database.url);
  let questions = 0;
  proxy.onRequest = (piece) => {
    if (piece.includes('hasRowVersions')) questions++;
    return 'pass';
  };
  const own = await startPeopleApp({}, { ...database, url: proxy.url });
  try {
    expect(questions).toBe(1);
    await expectServed(own);
    expect(questions).toBe(1);
    await Promise.all(Array.from({ length: 50 }, () => own.request('/health/ready')));
    expect(questions).toBeGreaterThan(1);
    // An answer is kept for half a second: a slow machine needs more than that for so many probes.
    expect(questions).toBeLessThan(10);
  } finally {
    await own.close();
    await proxy.close();
  }
});

describe('a table that is other than the module would make it and does all the same', () => {
  it.each(FITTING)('$what', async ({ statements, rights = [] }) => {
    await replaceTable(statements);
    await run(rights);
    const own = await startPeopleApp({}, { ...database, url: app.database.url });
    try {
      expect((await own.request('/health/ready')).status).toBe(200);
      await expectServed(own);
    } finally {
      await own.close();
    }
  });
});

/** Every operation, once. */
async function expectServed(served: PeopleApp): Promise<void> {
  const request = served.request.bind(served);
  const send = served.send.bind(served);
  const created = await send('POST', '/people', '{"name":"Ada","data":{"a":1}}');
  expect(created.status).toBe(201);
  const path = created.headers.get('location')!;
  const etag = created.headers.get('etag')!;
  const person = await created.text();
  expect(await (await request(path)).text()).toBe(person);
  const { id } = JSON.parse(person) as { id: string };
  const again = await send('POST', '/people', person);
  expect([again.status, ((await again.json()) as { id: string }).id]).toEqual([200, id]);
  const changed = await send('PATCH', path, '{"name":"Bea"}', { 'if-match': etag });
  expect(changed.status).toBe(200);
  expect((await send('PATCH', path, '{"name":"C"}', { 'if-match': etag })).status).toBe(412);
  expect((await send('POST', '/people/bulk', '[{"name":"Cy"},{"name":"Di"}]')).status).toBe(201);
  const lines = { 'content-type': 'application/x-ndjson' };
  expect((await send('POST', '/people/bulk', '{"name":"Ed"}\n', lines)).status).toBe(201);
  const found = (await (await request('/people?name=Ed')).json()) as { items: unknown[] };
  expect(found.items).toHaveLength(1);
  const current = { 'if-match': changed.headers.get('etag')! };
  expect((await request(path, { method: 'DELETE', headers: current })).status).toBe(204);
}

describe('the service', () => {
  const start = (url: string) =>
    startService(
      readEnvironment({ LOG_LEVEL: 'silent', PORT: '0', KAFKA: 'off', DATABASE_URL: url }),
      () => undefined,
    );

  it('refuses to start on a table that does not fit, and names every difference', async () => {
    const own = await createDatabase();
    await own.query('ALTER TABLE people ADD tenant text NOT NULL, ALTER data TYPE text');
    const error = await start(own.url).then(
      () => undefined,
      (failure: unknown) => failure as AggregateError,
    );
    expect(error?.message).toContain('The table people does not fit');
    expect((error!.errors as Error[]).map(({ message }) => message)).toEqual([
      expect.stringContaining('ALTER TABLE people ALTER data TYPE json USING data::json'),
      expect.stringContaining('ALTER TABLE people ALTER tenant DROP NOT NULL'),
    ]);
    await own.drop();
  });

  it('names the differences of a table that no migration gets on with', async () => {
    const own = await createDatabase('template0');
    await own.query('CREATE TABLE people (id text)');
    await expect(start(own.url)).rejects.toMatchObject({
      message: expect.stringContaining('does not fit') as string,
      errors: expect.arrayContaining([
        expect.objectContaining({ message: expect.stringContaining('name is missing') as string }),
      ]) as unknown,
    });
    await own.drop();
  });

  it('starts on a view, a partitioned table and one without anything', async () => {
    for (const statements of [
      [
        'CREATE TABLE below (id uuid PRIMARY KEY, name text, data jsonb)',
        'CREATE VIEW people AS SELECT id, name, data FROM below',
      ],
      ['CREATE TABLE people (id uuid PRIMARY KEY, name text, data json) PARTITION BY HASH (id)'],
      [],
    ]) {
      const own = await createDatabase('template0');
      for (const text of statements) await own.query(text);
      const service = await start(own.url);
      expect((await fetch(`${service.http}/health/ready`)).status).toBe(200);
      await service.stop();
      await own.drop();
    }
  });
});

describe('an application with PeopleModule', () => {
  let own: TestDatabase;
  let host: INestApplicationContext;
  const errors: string[] = [];

  async function startHost(schema?: string): Promise<void> {
    errors.length = 0;
    const settings = { url: own.url, poolSize: 2, acquireTimeoutMs: 5000, statementTimeoutMs: 30_000, ssl: 'off' } as const; // prettier-ignore
    class Host {}
    Module({
      imports: [
        TypeOrmModule.forRoot({
          ...dataSourceOptions(settings, () => undefined),
          autoLoadEntities: true,
          ...(schema && { schema }),
          migrations: peopleMigrations,
        }),
        PeopleModule.forRoot({ controllers: { http: false, messages: false } }),
      ],
    })(Host);
    const logger = {
      error: (message: unknown) => errors.push(String(message)),
      warn: () => undefined,
      log: () => undefined,
    };
    host = await NestFactory.createApplicationContext(Host, { logger });
  }
  beforeEach(async () => {
    own = await createDatabase('template0');
  });
  afterEach(async () => {
    await host.close();
    Logger.overrideLogger(false);
    await own.drop();
  });

  it('goes on over a table that does not fit, and says each difference in its log', async () => {
    await own.query('CREATE TABLE people (id uuid, name text, data json, tenant int NOT NULL)');
    await startHost();
    expect(errors).toEqual([
      expect.stringContaining('id may be null'),
      expect.stringContaining('tenant is NOT NULL'),
      expect.stringContaining('primary key'),
    ]);
  });

  it('looks at the table of its own schema, whatever is on the search_path', async () => {
    await own.query('CREATE TABLE people (id uuid PRIMARY KEY, name text, data json)');
    await own.query('CREATE SCHEMA tenant_a');
    await own.query('CREATE TABLE tenant_a.people (id uuid PRIMARY KEY, name text, data text)');
    await startHost('tenant_a');
    expect(errors).toEqual([
      expect.stringMatching(
        /data is of type text; .*: ALTER TABLE "tenant_a"\."people" ALTER data TYPE json/,
      ),
    ]);
    await host.close();
    await own.query('ALTER TABLE tenant_a.people ALTER data TYPE jsonb USING data::jsonb');
    await own.query('ALTER TABLE people ALTER data TYPE text');
    await startHost('tenant_a');
    expect(errors).toEqual([]);
    expect((await host.get(PeopleService).create({ name: 'Ada', data: { b: 1, a: 2 } })).dataJson).toBe(
      '{"a": 2, "b": 1}',
    );
  });

  it('says nothing of a table that is not there yet, and works once it is, whatever it is then', async () => {
    await startHost();
    expect(errors).toEqual([]);
    const people = host.get(PeopleService);
    await expect(people.create({ name: 'too early' })).rejects.toMatchObject({
      type: 'database-unavailable',
    });
    await own.query('CREATE TABLE below (id uuid PRIMARY KEY, name text, data jsonb)');
    await own.query('CREATE VIEW people AS SELECT id, name, data FROM below');
    await migrate(host.get(DataSource));
    const person = await people.create({ name: 'Ada', data: { b: 1, a: 2 } });
    expect(await people.create({ id: person.id, name: 'Ada', data: { b: 1, a: 2 } })).toMatchObject({
      id: person.id,
    });
    await people.update(person.id, { name: 'Bea' }, { ifMatch: person.version! });
    await expect(people.remove(person.id, { ifMatch: person.version! })).rejects.toMatchObject({
      type: 'person-changed',
    });
  });
});

it('what can not be asked, as the schema may not be used, makes readiness false, and costs no connection', async () => {
  const own = await createDatabase();
  const ordinary = await asOrdinaryRole(own);
  const other = await startPeopleApp({}, await openDatabase(ordinary.url));
  await own.query('REVOKE USAGE ON SCHEMA public FROM PUBLIC');
  for (let probe = 0; probe < 20; probe++) expect((await other.request('/health/ready')).status).toBe(503);
  await own.query('GRANT USAGE ON SCHEMA public TO PUBLIC');
  await eventually(async () => (await other.request('/health/ready')).status === 200);
  await other.close();
  await other.database.drop();
  await dropRole(own, ordinary.role);
  await own.drop();
});
