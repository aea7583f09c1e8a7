import { PersonNotFoundError } from 'nestjs-people';
import { openPeople } from './people-app.js';
import { createPeople, openPool, openTypeOrm, PersonRow } from './people-table.js';

const pool = openPool();
await createPeople(pool);

// Create: the database makes the id, RETURNING tells it.
const created = await pool.query<{ id: string }>(
  'INSERT INTO people (name, data) VALUES ($1, $2) RETURNING id',
  ['Ada', { born: 1815 }],
);
const id = created.rows[0]!.id;

// Read.
const read = await pool.query<{ name: string; data: object }>('SELECT name, data FROM people WHERE id = $1', [
  id,
]);
console.log('read:', read.rows);

// Update and delete: the row count says whether somebody was there.
const updated = await pool.query('UPDATE people SET name = $2 WHERE id = $1', [id, 'Ada Lovelace']);
const removed = await pool.query('DELETE FROM people WHERE id = $1', [id]);
const late = await pool.query('UPDATE people SET name = $2 WHERE id = $1', [id, 'Countess']);
console.log('updated', updated.rowCount, 'removed', removed.rowCount, 'updated too late', late.rowCount);

// The trap: a name that is pasted into the statement is no longer only a name.
const name = `Robert', '{"role":"admin"}') --`;
await pool.query(`INSERT INTO people (name, data) VALUES ('${name}', NULL)`);
console.log('pasted:', (await pool.query('SELECT name, data FROM people')).rows);
await pool.query('DELETE FROM people');

// The mend: values travel beside the statement.
await pool.query('INSERT INTO people (name, data) VALUES ($1, NULL)', [name]);
console.log('as a parameter:', (await pool.query('SELECT name, data FROM people')).rows);
await pool.query('DELETE FROM people');

// With TypeORM.
const dataSource = await openTypeOrm();
const rows = dataSource.getRepository(PersonRow);
const grace = await rows.save({ name: 'Grace', data: null });
console.log('TypeORM reads', (await rows.findOneByOrFail({ id: grace.id })).name);

// The trap: save() stores who is not there, also who is not there any more.
await rows.delete(grace.id);
await rows.save({ ...grace, name: 'Grace Hopper' });
console.log('deleted, then saved:', await rows.count());

// The mend: update() changes who is there, and says how many that were.
await rows.delete(grace.id);
const change = await rows.update(grace.id, { name: 'Grace Hopper' });
console.log('deleted, then updated:', await rows.count(), 'affected:', change.affected);
await dataSource.destroy();

// With nestjs-people.
const app = await openPeople();
const alan = await app.people.create({ name: 'Alan', data: { born: 1912 } });
await app.people.update(alan.id, { name: 'Alan Turing' });
const found = await app.people.get(alan.id);
console.log('nestjs-people reads', found.name, found.data);
await app.people.remove(alan.id);
await app.people.update(alan.id, { name: 'Turing' }).catch((error: unknown) => {
  if (error instanceof PersonNotFoundError) console.log('removed, then updated:', error.name);
});
await app.close();
await pool.end();
