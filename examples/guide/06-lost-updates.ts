import { PersonChangedError } from 'nestjs-people';
import type pg from 'pg';
import { openPeople } from './people-app.js';
import { createPeople, openPool, openTypeOrm, PersonRow } from './people-table.js';

const pool = openPool();
await createPeople(pool);
const { rows: inserted } = await pool.query<{ id: string }>(
  `INSERT INTO people (name, data) VALUES ('Ada', '{"likes":0}') RETURNING id`,
);
const id = inserted[0]!.id;
interface Likes {
  likes: number;
}
type Queryable = pg.Pool | pg.PoolClient;
const read = async (on: Queryable, lock = '') =>
  (await on.query<{ data: Likes }>(`SELECT data FROM people WHERE id = $1 ${lock}`, [id])).rows[0]!.data;
const write = (on: Queryable, data: Likes) =>
  on.query('UPDATE people SET data = $2 WHERE id = $1', [id, data]);
const [one, other] = [await pool.connect(), await pool.connect()];
const again = () => write(pool, { likes: 0 });

// The naive way: read, add, write. Two do it at once, and both are told that all is well.
const [seenByOne, seenByOther] = [await read(one), await read(other)];
await write(one, { likes: seenByOne.likes + 1 });
await write(other, { likes: seenByOther.likes + 1 });
console.log('two likes, lost update:', await read(pool));
await again();

// BEGIN and COMMIT alone change nothing about it: at READ COMMITTED both still read 0.
await Promise.all([one.query('BEGIN'), other.query('BEGIN')]);
const [alsoByOne, alsoByOther] = [await read(one), await read(other)];
await write(one, { likes: alsoByOne.likes + 1 });
await one.query('COMMIT');
await write(other, { likes: alsoByOther.likes + 1 });
await other.query('COMMIT');
console.log('in transactions:', await read(pool));
await again();

// Mend 1: let the database add. One statement reads and writes the row under its lock.
const add = (on: Queryable) =>
  on.query(`UPDATE people SET data = json_build_object('likes', (data->>'likes')::int + 1) WHERE id = $1`, [
    id,
  ]);
await Promise.all([add(one), add(other)]);
console.log('in one statement:', await read(pool));
await again();

// Mend 2: lock what you are going to change when you read it. The other one waits, and reads what was written.
await Promise.all([one.query('BEGIN'), other.query('BEGIN')]);
const locked = await read(one, 'FOR UPDATE');
const waiting = read(other, 'FOR UPDATE');
await write(one, { likes: locked.likes + 1 });
await one.query('COMMIT');
await write(other, { likes: (await waiting).likes + 1 });
await other.query('COMMIT');
console.log('FOR UPDATE:', await read(pool));
await again();

// Mend 3: say which version you have read. Nobody waits; who comes too late is told, reads anew and decides.
const versioned = async (on: Queryable) =>
  (await on.query<{ xmin: string; ctid: string; data: Likes }>('SELECT xmin, ctid, data FROM people WHERE id = $1', [id])).rows[0]!; // prettier-ignore
const writeIf = async (on: Queryable, { xmin, ctid, data }: Awaited<ReturnType<typeof versioned>>) =>
  (
    await on.query('UPDATE people SET data = $4 WHERE id = $1 AND xmin = $2 AND ctid = $3', [
      id,
      xmin,
      ctid,
      { likes: data.likes + 1 },
    ])
  ).rowCount;
const [mine, yours] = [await versioned(one), await versioned(other)];
console.log('the version that was read:', await writeIf(one, mine), 'row, then', await writeIf(other, yours));
await again();
one.release();
other.release();

// With TypeORM: save() of what was loaded is read, add, write.
const dataSource = await openTypeOrm();
const people = dataSource.getRepository(PersonRow);
const [loaded, loadedToo] = [await people.findOneByOrFail({ id }), await people.findOneByOrFail({ id })];
await people.save({ ...loaded, data: { likes: (loaded.data as Likes).likes + 1 } });
await people.save({ ...loadedToo, data: { likes: (loadedToo.data as Likes).likes + 1 } });
console.log('TypeORM, two saves:', await read(pool));
await again();
const like = () =>
  dataSource.transaction(async (manager) => {
    const lock = { mode: 'pessimistic_write' } as const; // FOR UPDATE
    const person = await manager.findOneOrFail(PersonRow, { where: { id }, lock });
    await manager.save(PersonRow, { ...person, data: { likes: (person.data as Likes).likes + 1 } });
  });
await Promise.all([like(), like()]);
console.log('TypeORM with a lock:', await read(pool));
await again();
await dataSource.destroy();

// With nestjs-people: the version that was read, over HTTP as ETag and If-Match ...
const app = await openPeople();
const [here, there] = [await app.people.get(id), await app.people.get(id)];
await app.people.update(id, { data: { likes: 1 } }, { ifMatch: here.version! });
await app.people.update(id, { data: { likes: 1 } }, { ifMatch: there.version! }).catch((error: unknown) => {
  if (error instanceof PersonChangedError) console.log('told:', error.name);
});
await again();

// ... or a unit of work that runs again, from its read, when it has met another.
const likeAgain = () =>
  app.transactions.run({ isolationLevel: 'REPEATABLE READ' }, async () => {
    const { likes } = (await app.people.get(id)).data as unknown as Likes;
    await app.people.update(id, { data: { likes: likes + 1 } });
  });
await Promise.all([likeAgain(), likeAgain(), likeAgain()]);
console.log('three units of work:', await read(pool));
await app.close();
await pool.end();
