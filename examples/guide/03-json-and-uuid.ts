import { IsObject } from 'class-validator';
import { InvalidInputError, IsUint64, JsonNumber, JsonText, parseJson, stringifyJson } from 'nestjs-people';
import pg from 'pg';
import { openPeople } from './people-app.js';
import { createPeople, openPool, openTypeOrm, PersonRow } from './people-table.js';

const pool = openPool();
await createPeople(pool);
const stored = async () =>
  (await pool.query<{ data: string }>('SELECT data::text FROM people')).rows.map(({ data }) => data);

// The largest u64, as a service in Rust would store it.
await pool.query(
  `INSERT INTO people (name, data) VALUES ('Ada', '{"many_many_fields":18446744073709551615}')`,
);
console.log('stored:', ...(await stored()));

// The naive way: pg parses json with JSON.parse, which knows doubles only.
const { rows } = await pool.query<{ data: object }>('SELECT data FROM people');
console.log('read by pg:', JSON.stringify(rows[0]!.data));

// Written back, the digits are gone for everybody.
await pool.query('UPDATE people SET data = $1', [rows[0]!.data]);
console.log('written back:', ...(await stored()));

// The mend: take it as text, and parse it with something that keeps numbers.
await pool.query(`UPDATE people SET data = '{"many_many_fields":18446744073709551615}'`);
const data = parseJson((await stored())[0]!) as { many_many_fields: bigint };
console.log('read as text:', data.many_many_fields, typeof data.many_many_fields);
data.many_many_fields -= 1n;
await pool.query('UPDATE people SET data = $1', [stringifyJson(data)]);
console.log('changed:', ...(await stored()));

// Three traps on the way in.
const store = (value: unknown) =>
  pool.query('UPDATE people SET data = $1', [value]).catch((error: Error) => console.log(error.message));
await store([1, 2]); // pg makes PostgreSQL's array of it: {"1","2"}
await store('hello'); // a string is taken for JSON text
await store(JSON.stringify(null)); // JSON's null, which is not SQL's
console.log('IS NULL:', (await pool.query(`SELECT data IS NULL AS is_null FROM people`)).rows[0]);

// json keeps the spelling, jsonb the value.
const spellings = await pool.query(`
  SELECT t::json::text AS json, t::jsonb::text AS jsonb FROM (VALUES ('{"b": 1e2, "a": 1, "a": 2}')) AS v (t)`);
console.log(spellings.rows[0]);

// A uuid that is none is an error of the database: check it before, or answer 400 for 22P02.
const noUuid = await pool.query('SELECT FROM people WHERE id = $1', ['42']).catch((error: unknown) => error);
if (noUuid instanceof pg.DatabaseError) console.log(noUuid.code, noUuid.message);

// An id of the caller's own makes a create repeatable.
const own = '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f';
const create = () =>
  pool.query(`INSERT INTO people (id, name) VALUES ($1, 'Grace') ON CONFLICT (id) DO NOTHING`, [own]);
console.log('created', (await create()).rowCount, 'created again', (await create()).rowCount);
await pool.query('DELETE FROM people');

// TypeORM reads json as pg does.
const dataSource = await openTypeOrm();
await pool.query(
  `INSERT INTO people (name, data) VALUES ('Ada', '{"many_many_fields":18446744073709551615}')`,
);
const person = await dataSource.getRepository(PersonRow).findOneByOrFail({ name: 'Ada' });
console.log('read by TypeORM:', JSON.stringify(person.data));
await dataSource.destroy();

// nestjs-people keeps every digit: as a bigint, as text, or in a class of your own.
const app = await openPeople();
const ada = await app.people.create({ name: 'Ada', data: { many_many_fields: 18446744073709551615n } });
console.log('nestjs-people:', (await app.people.get(ada.id)).dataJson);
const exact = JsonText.of('{"pi":3.14159265358979323846264338327950288}');
const pi = (await app.people.create({ name: 'Pi', data: exact })).data?.pi;
console.log('a decimal:', String(pi), pi instanceof JsonNumber);
await app.people.create({ id: own, name: 'Grace' });
await app.people.create({ id: own, name: 'Grace' }); // the same again: answered, not stored twice
console.log('with an id of her own:', (await app.people.findByName('Grace')).items.length);
await app.close();

// A class says what data has to be, for every door.
class VeryComplicatedData {
  @IsUint64()
  many_many_fields!: bigint;

  @IsObject()
  dict!: Record<string, string>;
}

const typed = await openPeople({ dataType: VeryComplicatedData });
await typed.people
  .create({ name: 'Ada', data: { many_many_fields: -1n, dict: {} } })
  .catch((error: unknown) => {
    if (error instanceof InvalidInputError) console.log('refused:', error.errors);
  });
await typed.close();
await pool.end();
