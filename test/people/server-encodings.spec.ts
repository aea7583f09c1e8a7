import { randomBytes } from 'node:crypto';
import { migrate } from '../../src/app/migrating/migrate.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';
import { onServer, openDatabase, type TestDatabase } from '../support/test-database.js';

/** Encodings of the server, with a letter that is shorter there than in UTF-8, in which clients write it. */
const ENCODINGS = [
  ['LATIN1', 'é'],
  ['WIN1252', '€'],
  ['EUC_JP', 'あ'],
  ['UTF8', 'é'],
] as const;
/** Around what the index on names holds, in bytes of both kinds. */
const LENGTHS = [600, 667, 1000, 1001, 1500, 2000, 2001];

describe.each(ENCODINGS)('in a database in %s, a name of many %s', (encoding, letter) => {
  const name = `test_${randomBytes(6).toString('hex')}`;
  let database: TestDatabase;
  let app: PeopleApp;

  beforeAll(async () => {
    await onServer((query) =>
      query(
        `CREATE DATABASE ${name} TEMPLATE template0 ENCODING '${encoding}' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc`,
      ),
    );
    const url = new URL(process.env.TEST_DATABASE_URL!);
    url.pathname = `/${name}`;
    database = await openDatabase(url.href, () =>
      onServer((query) => query(`DROP DATABASE ${name} WITH (FORCE)`)),
    );
    app = await startPeopleApp({}, database);
    await migrate(app.dataSource);
  });
  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  it.each(LENGTHS)('(%s) is found, however it was stored, and comes back as it was', async (length) => {
    const long = letter.repeat(length);
    const { id } = await app.people.create({ name: long });
    const { ids } = await app.people.createMany([{ name: long }]);
    const lines = JSON.stringify({ name: long });
    await app.request('/people/bulk', {
      ...{ method: 'POST', body: lines, headers: { 'content-type': 'application/x-ndjson' } },
    });
    const changed = await app.people.create({ name: 'short' });
    await app.people.update(changed.id, { name: long });
    const { items } = await app.people.findByName(long);
    expect(items.length).toBe(4);
    expect(items.map((person) => person.id)).toEqual(expect.arrayContaining([id, ...ids, changed.id]));
    expect(new Set(items.map((person) => person.name))).toEqual(new Set([long]));
  });
});
