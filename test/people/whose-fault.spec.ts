import { randomUUID } from 'node:crypto';
import { FAULTS } from '../../src/database/faults.js';
import { eventually } from '../support/barrier.js';
import { type PeopleApp, poolOf, startPeopleApp } from '../support/people-app.js';
import { createDatabase, onServer, openDatabase, type TestDatabase } from '../support/test-database.js';
import { asOrdinaryRole, dropRole, INPUT, run, SERVER, smallDisk } from './whose-fault.cases.js';

const NAME = 'Ada Lovelace';
const NDJSON = { 'content-type': 'application/x-ndjson' };

let database: TestDatabase;
let role: string;
let app: PeopleApp;
beforeAll(async () => {
  database = await createDatabase();
  const { url, ...ordinary } = await asOrdinaryRole(database);
  ({ role } = ordinary);
  app = await startPeopleApp({ DATABASE_URL: url, DB_POOL_SIZE: '2' }, database);
});
beforeEach(() => database.query('DELETE FROM people'));
afterAll(async () => {
  await app.close();
  await dropRole(database, role);
  await database.drop();
});

/** What the doors make of a person of this name: alone, in an array, in a stream, and as a change of one who is there. */
async function tryAll(name: string, id?: string): Promise<{ status: number; text: string }[]> {
  const person = JSON.stringify({ name });
  const answers = [
    await app.send('POST', '/people', person),
    await app.send('POST', '/people', person, { 'idempotency-key': randomUUID() }),
    await app.send('POST', '/people/bulk', `[${person}]`),
    await app.send('POST', '/people/bulk', `${person}\n`, NDJSON),
    ...(id ? [await app.send('PATCH', `/people/${id}`, person)] : []),
  ];
  return Promise.all(answers.map(async (answer) => ({ status: answer.status, text: await answer.text() })));
}

/** Brings a state about, for connections that know of no other. */
async function change(statements: readonly string[]): Promise<void> {
  await run(database, role, statements);
  // What the application does in the background may have made one of them meanwhile.
  await eventually(async () => {
    await database.query('SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1', [role]); // prettier-ignore
    return poolOf(app.dataSource).open === 0;
  });
}

const stored = async () => (await database.query<{ name: string }>('SELECT name FROM people WHERE name <> $1', ['there'])).length; // prettier-ignore

describe('what the table refuses is the caller’s to change, and is told so without a value of it', () => {
  it.each(INPUT)('$what ($sqlState)', async ({ sqlState, begin, end, name = NAME, names, status = 400 }) => {
    const { id } = await app.people.create({ name: 'there' });
    // A rule that holds for all rows is made while there is none.
    if (sqlState === '23502' || sqlState === '23503') await database.query('DELETE FROM people');
    await change(begin);
    const before = await stored();
    try {
      // Uniqueness and checks hold for changes as well; a NOT NULL column that has a value keeps it.
      for (const answer of await tryAll(
        name,
        before === 0 && sqlState?.startsWith('2350') ? undefined : id,
      )) {
        expect(answer).toMatchObject({ status });
        const problem = JSON.parse(answer.text) as { type: string; detail: string };
        expect(problem).toMatchObject({ type: '/problems/person-refused' });
        if (names) expect(problem.detail).toMatch(names);
        if (sqlState) expect(problem.detail).toContain(sqlState);
        expect(answer.text).not.toContain(name.slice(0, 12));
        expect(answer.text).not.toContain('secret');
      }
      await expect(app.people.create({ name })).rejects.toMatchObject({
        type: 'person-refused',
        retryable: false,
      });
      expect(await stored()).toBe(before);
    } finally {
      await change(end);
    }
  });

  it('an encoding without the letter (22P05)', async () => {
    const name = `latin1_${Date.now()}`;
    await onServer((query) =>
      query(`CREATE DATABASE ${name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'`),
    );
    const url = new URL(database.url);
    url.pathname = `/${name}`;
    const latin = await openDatabase(url.href);
    await latin.query(
      'CREATE TABLE people (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text NOT NULL, data json)',
    );
    const latinApp = await startPeopleApp({}, latin);
    for (const [path, body] of [
      ['/people', '{"name":"Łódź"}'],
      ['/people', '{"name":"ok","data":{"city":"Łódź"}}'],
      ['/people/bulk', '[{"name":"Łódź"}]'],
    ] as const) {
      const answer = await latinApp.send('POST', path, body);
      const text = await answer.text();
      expect([answer.status, text]).toEqual([400, expect.stringMatching(/encoding of the database.*22P05/)]);
      expect(text).not.toContain('ód');
    }
    await latinApp.close();
    await latin.drop();
    await onServer((query) => query(`DROP DATABASE ${name} WITH (FORCE)`));
  });

  it('a trigger that keeps one of many out keeps out all, as one of them was asked for as well', async () => {
    await database.query(
      `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.name = 'out' THEN RETURN NULL; END IF; RETURN NEW; END $$`,
    );
    await database.query(
      'CREATE TRIGGER refuse BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION refuse()',
    );
    try {
      for (const [body, headers] of [
        ['[{"name":"in"},{"name":"out"},{"name":"in"}]', {}],
        ['{"name":"in"}\n{"name":"out"}\n{"name":"in"}\n', NDJSON],
      ] as const) {
        const answer = await app.send('POST', '/people/bulk', body, headers);
        expect([answer.status, await answer.json()]).toMatchObject([
          400,
          { type: '/problems/person-refused' },
        ]);
      }
      expect(await stored()).toBe(0);
    } finally {
      await run(database, role, ['DROP TRIGGER refuse ON people', 'DROP FUNCTION refuse']);
    }
  });

  it('a person that a trigger keeps from being changed or deleted is told as refused, not as changed by others', async () => {
    const { id, version } = await app.people.create({ name: 'there' });
    await database.query(
      'CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$',
    );
    await database.query(
      'CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON people FOR EACH ROW EXECUTE FUNCTION refuse()',
    );
    try {
      const refused = { type: 'person-refused', status: 400 };
      for (const ifMatch of [undefined, version!]) {
        const options = ifMatch === undefined ? {} : { ifMatch };
        await expect(app.people.update(id, { name: 'x' }, options)).rejects.toMatchObject(refused);
        await expect(
          app.people.update(id, { data: { a: 1 } }, { ...options, merge: true }),
        ).rejects.toMatchObject(refused);
        await expect(app.people.remove(id, options)).rejects.toMatchObject(refused);
      }
      const stale = app.people.update(id, { name: 'x' }, { ifMatch: '1.2.3' });
      await expect(stale).rejects.toMatchObject({ type: 'person-changed' });
    } finally {
      await run(database, role, ['DROP TRIGGER refuse ON people', 'DROP FUNCTION refuse']);
    }
  });

  it('a person whom others change each time before it is none that the table refuses', async () => {
    const { id } = await app.people.create({ name: 'there' });
    // Others are there first, five times: the row is another one, and the statement has met none.
    await database.query(`
      CREATE SEQUENCE tries;
      GRANT USAGE ON tries TO PUBLIC;
      CREATE FUNCTION others() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF pg_trigger_depth() > 1 OR nextval('tries') > 5 THEN RETURN NEW; END IF;
          UPDATE people SET name = name || '!' WHERE id = OLD.id;
          RETURN NULL;
        END $$;
      CREATE TRIGGER others BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION others()`);
    try {
      expect((await app.people.update(id, { data: { a: 1 } })).name).toBe('there!!!!!');
    } finally {
      await run(database, role, [
        'DROP TRIGGER others ON people',
        'DROP FUNCTION others',
        'DROP SEQUENCE tries',
      ]);
    }
  });
});

describe('what the server can not do now is a 503 that may be sent again, and passes by itself', () => {
  const expectUnavailable = async (sqlState: string, id: string) => {
    for (const answer of await tryAll(NAME, id)) {
      expect(answer).toMatchObject({ status: 503 });
      expect(JSON.parse(answer.text)).toMatchObject({
        type: '/problems/database-unavailable',
        detail: expect.stringContaining(sqlState) as string,
      });
    }
  };
  const expectServed = async (id: string) => {
    const person = JSON.stringify({ name: NAME });
    const answers = [
      await app.send('POST', '/people', person),
      await app.send('PATCH', `/people/${id}`, person),
    ];
    expect(answers.map(({ status }) => status)).toEqual([201, 200]);
  };

  it.each(SERVER)('$what ($sqlState)', async ({ sqlState, begin, end }) => {
    const { id } = await app.people.create({ name: 'there' });
    await change(begin);
    try {
      await expectUnavailable(sqlState!, id);
    } finally {
      await change(end);
    }
    await expectServed(id);
    expect(await stored()).toBe(2);
  });

  it('its disk is full (53100)', async () => {
    const disk = await smallDisk(database);
    if (!disk) return;
    const { id } = await app.people.create({ name: 'there' });
    try {
      await database.query(`ALTER TABLE people SET TABLESPACE ${disk.name}`);
      const filler = `INSERT INTO people (name) SELECT 'there' FROM generate_series(1, 100)`;
      await expect((async () => { for (;;) await database.query(filler); })()).rejects.toMatchObject({ code: '53100' }); // prettier-ignore
      const large = 'x'.repeat(7000);
      for (const answer of await tryAll(large)) expect(answer).toMatchObject({ status: 503 });
      await database.query('ALTER TABLE people SET TABLESPACE pg_default');
      await expectServed(id);
    } finally {
      await database.query('ALTER TABLE people SET TABLESPACE pg_default');
      await disk.remove();
    }
  });

  it('a read only unit of work that writes is its program’s mistake', async () => {
    const unit = app.transactions.run({ readOnly: true }, () => app.people.create({ name: 'x' }));
    await expect(unit).rejects.toMatchObject({ code: '25006' });
  });
});

it('each row of the table is one that is provoked, here or where conflicts, timeouts, lost connections and lost preparation are tested', () => {
  const provoked = [...INPUT, ...SERVER].map(({ sqlState }) => sqlState ?? '').concat('22P05', '53100');
  const elsewhere = ['40001', '40P01', '57014', '55P03', '25P03', '25P04', '08', '57', '26000', '42P05'];
  const missing = FAULTS.flatMap(({ states }) => states).filter(
    (state) => !elsewhere.includes(state) && !provoked.some((code) => code.startsWith(state)),
  );
  expect(missing).toEqual([]);
});
