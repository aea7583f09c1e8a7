import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { from as copyFrom } from 'pg-copy-streams';
import { openPeople } from './people-app.js';
import { createPeople, openPool, openTypeOrm, PersonRow } from './people-table.js';

const pool = openPool();
await createPeople(pool);
const count = async () =>
  (await pool.query<{ n: number }>('SELECT count(*)::int AS n FROM people')).rows[0]!.n;
const COPY_ESCAPES: Record<string, string> = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' };
const told = (error: Error) => console.log('refused:', error.message);

// The naive way: a statement for each. What fails in the middle leaves the first half behind.
async function oneByOne(names: (string | null)[]): Promise<void> {
  for (const name of names) await pool.query('INSERT INTO people (name) VALUES ($1)', [name]);
}
await oneByOne(['Ada', 'Grace', null, 'Alan']).catch(told);
console.log('stored all the same:', await count());
await pool.query('DELETE FROM people');

// One statement with a parameter for each value: the protocol counts them in 16 bits.
const many = Array.from({ length: 40_000 }, (_, index) => ({
  name: `Nobody ${index}`,
  data: `{"n":${index}}`,
}));
const places = many.map((_, index) => `($${2 * index + 1}, $${2 * index + 2})`).join();
await pool
  .query(
    `INSERT INTO people (name, data) VALUES ${places}`,
    many.flatMap(({ name, data }) => [name, data]),
  )
  .catch(told);

// The mend: a parameter for each column, whatever the number of rows. All of them or none.
const insertAll = (people: { name: string | null; data: string | null }[]) =>
  pool.query('INSERT INTO people (name, data) SELECT * FROM unnest($1::text[], $2::json[])', [
    people.map(({ name }) => name),
    people.map(({ data }) => data),
  ]);
console.log('stored by one statement:', (await insertAll(many)).rowCount);
await pool.query('DELETE FROM people');
await insertAll([...many, { name: null, data: null }]).catch(told);
console.log('stored of it:', await count());

// More than fits in memory: COPY, with nothing read ahead of what the server takes.
const client = await pool.connect();
try {
  const copy = client.query(copyFrom('COPY people (name, data) FROM STDIN'));
  await pipeline(Readable.from(lines(many)), copy);
  console.log('stored by COPY:', copy.rowCount);
} finally {
  client.release();
}

function* lines(people: typeof many): Generator<string> {
  for (const { name, data } of people) yield `${copyText(name)}\t${copyText(data)}\n`;
}

/** In COPY's text a tab ends a column, a line break a row, and a backslash begins an escape. */
function copyText(value: string): string {
  return value.replace(/[\\\t\n\r]/g, (character) => COPY_ESCAPES[character]!);
}

// Reading many, page by page. The naive way counts rows off: a row that goes in between moves all that follow.
await pool.query('DELETE FROM people');
await pool.query(`INSERT INTO people (name) VALUES ('Ada'), ('Alan'), ('Grace'), ('Linus')`);
const offset = async (skip: number) =>
  (await pool.query<{ name: string }>('SELECT name FROM people ORDER BY name LIMIT 2 OFFSET $1', [skip]))
    .rows;
const first = await offset(0);
await pool.query(`DELETE FROM people WHERE name = 'Ada'`);
console.log('by OFFSET:', ...[...first, ...(await offset(2))].map(({ name }) => name));

// The mend: go on behind the last one that was seen.
const after = async (last: string) =>
  (
    await pool.query<{ name: string }>('SELECT name FROM people WHERE name > $1 ORDER BY name LIMIT 2', [
      last,
    ])
  ).rows;
console.log('by key:', ...[...first, ...(await after('Alan'))].map(({ name }) => name));

// With TypeORM: the same limit for insert(), so in pieces, and in one transaction.
const dataSource = await openTypeOrm();
const rows = many.map(({ name }) => ({ name, data: null }));
await dataSource.getRepository(PersonRow).insert(rows).catch(told);
await dataSource.transaction(async (manager) => {
  for (let start = 0; start < rows.length; start += 10_000)
    await manager.insert(PersonRow, rows.slice(start, start + 10_000));
});
console.log('stored by TypeORM in pieces:', (await count()) - 3);
await dataSource.destroy();
await pool.query('DELETE FROM people');

// With nestjs-people.
const app = await openPeople();
const { inserted } = await app.people.createMany(many.map(({ name }) => ({ name })));
console.log('createMany:', inserted);
const imported = await app.people.importMany(generated()); // by COPY, all or none
console.log('importMany:', imported.inserted);
let seen = 0;
for await (const person of app.people.streamByName('Same')) seen += person.name === 'Same' ? 1 : 0;
console.log('streamByName:', seen);
await app.close();
await pool.end();

async function* generated() {
  for (let n = 0; n < 5000; n++) yield { name: 'Same', data: { n } };
}
