import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { migrate } from '../../src/app/migrating/migrate.js';
import { dataSourceOptions } from '../../src/database/data-source-options.js';
import { PeopleModule } from '../../src/people/people.module.js';
import { PeopleService } from '../../src/people/people.service.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';
import { startLossyProxy } from '../support/lossy-proxy.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

/** A view of a table, in a schema ahead on the search_path: its rows have neither xmin nor ctid. */
let database: TestDatabase;
let app: PeopleApp;

beforeAll(async () => {
  database = await createDatabase();
  const name = new URL(database.url).pathname.slice(1);
  await database.query('CREATE SCHEMA ahead');
  await database.query('CREATE VIEW ahead.people AS SELECT id, name, data FROM public.people');
  await database.query(`ALTER DATABASE ${name} SET search_path = ahead, public`);
  app = await startPeopleApp({}, database);
  await migrate(app.dataSource);
});
afterAll(async () => {
  await app.close();
  await database.drop();
});

const create = async (body = '{"name":"Ada","data":{"a":1}}') => {
  const created = await app.send('POST', '/people', body);
  expect(created.status).toBe(201);
  return { path: created.headers.get('location')!, etag: created.headers.get('etag')! };
};

describe('where rows have no system columns, the ETag is of the content', () => {
  it('the service is ready', async () => {
    expect((await app.request('/health/ready')).status).toBe(200);
  });

  it('GET answers 304 to If-None-Match until the content changes', async () => {
    const { path, etag } = await create();
    expect(etag).toMatch(/^"[0-9a-f]{32}"$/);
    const got = await app.request(path);
    expect(got.headers.get('etag')).toBe(etag);
    const headers = { 'if-none-match': `"other", W/${etag}` };
    expect((await app.request(path, { headers })).status).toBe(304);
    await app.send('PATCH', path, '{"data":{"a":2}}');
    expect((await app.request(path, { headers })).status).toBe(200);
  });

  it('If-Match lets a change, a merge and a removal through once each, and refuses an old version with 412', async () => {
    const { path, etag } = await create();
    const changed = await app.send('PATCH', path, '{"name":"Bea"}', { 'if-match': `"x", ${etag}` });
    expect(changed.status).toBe(200);
    expect((await app.send('PATCH', path, '{"name":"C"}', { 'if-match': etag })).status).toBe(412);
    const merge = { 'content-type': 'application/merge-patch+json' };
    const stale = await app.send('PATCH', path, '{"data":{"b":1}}', { ...merge, 'if-match': etag });
    expect(stale.status).toBe(412);
    const current = changed.headers.get('etag')!;
    const merged = await app.send('PATCH', path, '{"data":{"b":1}}', { ...merge, 'if-match': current });
    expect([merged.status, await merged.text()]).toEqual([200, expect.stringContaining('{"a":1,"b":1}')]);
    const remove = (version: string) =>
      app.request(path, { method: 'DELETE', headers: { 'if-match': version } });
    expect((await remove(current)).status).toBe(412);
    expect((await remove(merged.headers.get('etag')!)).status).toBe(204);
    expect((await remove('*')).status).toBe(404);
  });

  it('lets exactly one of many through that change the same version at once', async () => {
    const { path, etag } = await create();
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, n) => app.send('PATCH', path, `{"name":"n${n}"}`, { 'if-match': etag })),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([
      200,
      ...Array.from({ length: 7 }, () => 412),
    ]);
  });

  it('tells apart what differs in anything that is answered', async () => {
    const bodies = ['{"name":"1:a"}', '{"name":"a"}', '{"name":"a","data":{}}', '{"name":"a{}"}', '{"name":"a","data":{"n":1}}', '{"name":"a","data":{"n":1.0}}']; // prettier-ignore
    const etags: string[] = [];
    for (const body of bodies) etags.push((await create(body)).etag);
    expect(new Set(etags).size).toBe(bodies.length);
  });

  it('a version of another kind matches nothing', async () => {
    const { path } = await create();
    for (const version of ['"742.0.1"', '""', '"null"'])
      expect((await app.send('PATCH', path, '{"name":"C"}', { 'if-match': version })).status).toBe(412);
  });

  it('a change whose answer was lost is not done again over what followed, but looked up', async () => {
    const proxy = await startLossyProxy(database.url);
    const own = await startPeopleApp({}, { ...database, url: proxy.url });
    const { path, etag } = await create();
    const held = proxy.holdAnswers(/UPDATE people/);
    const change = own.send('PATCH', path, '{"name":"Bea"}', { 'if-match': etag });
    const [answer] = await held;
    proxy.onRequest = () => 'pass';
    // Somebody puts back what was there: the content that was asked for is there again.
    await app.send('PATCH', path, '{"name":"Ada"}');
    answer!.cut();
    const answered = await change;
    expect(((await answered.json()) as { type: string }).type).toBe('/problems/transaction-outcome-unknown');
    expect(((await (await app.request(path)).json()) as { name: string }).name).toBe('Ada');

    const again = proxy.holdAnswers(/UPDATE people/);
    const second = own.send('PATCH', path, '{"name":"Bea"}', { 'if-match': etag });
    const [lost] = await again;
    proxy.onRequest = () => 'pass';
    lost!.cut();
    expect((await second).status).toBe(200);
    await own.close();
    await proxy.close();
  });

  it('events are written with the change', async () => {
    const settings = { url: database.url, poolSize: 2, acquireTimeoutMs: 5000, statementTimeoutMs: 30_000, ssl: 'off' } as const; // prettier-ignore
    class Host {}
    Module({
      imports: [
        TypeOrmModule.forRoot({ ...dataSourceOptions(settings, () => undefined), autoLoadEntities: true }),
        PeopleModule.forRoot({ events: true, controllers: { http: false, messages: false } }),
      ],
    })(Host);
    const host = await NestFactory.createApplicationContext(Host, { logger: false });
    const people = host.get(PeopleService);
    await database.query('DELETE FROM ahead.message_outbox');
    const { id, version } = await people.create({ name: 'Ada', data: { a: 1 } });
    const changed = await people.update(id, { name: 'Bea' }, { ifMatch: version! });
    await people.remove(id, { ifMatch: changed.version! });
    await people.createMany([{ name: 'Cy' }]);
    await people.importMany(
      (async function* () {
        yield { name: 'Di' };
      })(),
    );
    const events = await database.query<{ type: string; payload: unknown }>(
      'SELECT type, payload::json AS payload FROM ahead.message_outbox ORDER BY seq',
    );
    expect(events.map(({ type, payload }) => [type, payload])).toEqual([
      ['person.created', { id, name: 'Ada', data: { a: 1 } }],
      ['person.updated', { id, name: 'Bea', data: { a: 1 } }],
      ['person.deleted', { id }],
      ['person.created', expect.objectContaining({ name: 'Cy' })],
      ['person.created', expect.objectContaining({ name: 'Di' })],
    ]);
    await host.close();
  });
});

it('a table and a view that take each other’s place under a running service are served, from the second request at the latest', async () => {
  const own = await createDatabase();
  const other = await startPeopleApp({}, own);
  const { id } = await other.people.create({ name: 'Ada' });
  const serve = async () => {
    const read = await other.request(`/people/${id}`);
    return read.status === 200 && read.headers.get('etag');
  };
  expect(await serve()).toMatch(/^"\d+\.\d+\.\d+"$/);
  await own.query('ALTER TABLE people RENAME TO below');
  await own.query('CREATE VIEW people AS SELECT id, name, data FROM below');
  await serve();
  expect(await serve()).toMatch(/^"[0-9a-f]{32}"$/);
  await own.query('DROP VIEW people');
  await own.query('ALTER TABLE below RENAME TO people');
  expect(await serve()).toMatch(/^"/);
  await other.close();
  await own.drop();
});
