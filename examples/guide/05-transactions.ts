import { TransactionRolledBackError } from 'nestjs-people';
import type pg from 'pg';
import { openPeople } from './people-app.js';
import { createPeople, openPool, openTypeOrm, PersonRow } from './people-table.js';

const pool = openPool();
await createPeople(pool);
const stored = async () =>
  (await pool.query<{ name: string }>('SELECT name FROM people')).rows.map(({ name }) => name);
const insert = (on: pg.Pool | pg.PoolClient, name: string | null) =>
  on.query('INSERT INTO people (name) VALUES ($1)', [name]);

// The naive way: each query of a pool may have another connection. Alone it works; under load it does not.
const naive = openPool();
await naive.query('BEGIN');
const somebodyElse = naive.query('SELECT 1'); // has taken the connection of our BEGIN
await insert(naive, 'Ada'); // so this has another, where no transaction was begun
await somebodyElse;
await naive.query('ROLLBACK');
console.log('rolled back, it seems:', await stored());
await naive.end();
await pool.query('DELETE FROM people');

// The mend: one client from BEGIN to COMMIT, and given back whatever happens.
async function inTransaction<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query('BEGIN');
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK').catch((failure: Error) => (broken = failure));
    throw error;
  } finally {
    client.release(broken); // a client that can't even roll back is closed, not given to the next one
  }
}

const told = (error: Error) => console.log('told:', error.message);
const bothOrNone = inTransaction(async (client) => {
  await insert(client, 'Ada');
  await insert(client, null);
});
await bothOrNone.catch(told);
console.log('both or none:', await stored());

// A statement that fails is the end of its transaction, also when somebody catches the error.
const goneOn = inTransaction(async (client) => {
  await insert(client, null).catch(() => undefined); // "not so important"
  await insert(client, 'Grace');
});
await goneOn.catch(told);

// Worse, where nothing comes behind it: COMMIT is answered, but with ROLLBACK, and pg takes that for success.
const swallowed = inTransaction(async (client) => {
  await insert(client, 'Grace');
  await insert(client, null).catch(() => undefined);
});
await swallowed.then(() => console.log('told: done'));
console.log('stored:', await stored());

// With TypeORM: dataSource.transaction, and only what goes through its manager is in it.
const dataSource = await openTypeOrm();
const people = dataSource.getRepository(PersonRow); // as @InjectRepository gives it
const halfway = dataSource.transaction(async (manager) => {
  await manager.save(PersonRow, { name: 'Inside', data: null });
  await people.save({ name: 'Outside', data: null });
  throw new Error('halfway');
});
await halfway.catch(told);
console.log('stored by TypeORM:', await stored());

const taken = dataSource.transaction(async (manager) => {
  await manager.save(PersonRow, { name: 'Grace', data: null });
  await manager.query('INSERT INTO people (name) VALUES (NULL)').catch(() => undefined);
});
await taken.then(() => console.log('TypeORM tells: done'));
console.log('stored by TypeORM:', await stored());
await dataSource.destroy();
await pool.query('DELETE FROM people');

// With nestjs-people: what returns is committed, what throws is not.
const app = await openPeople({ transactions: { poolQueries: 'throw' } });
const failing = app.transactions.run({}, async ({ manager }) => {
  await app.people.create({ name: 'Ada' }); // joins the transaction by itself
  await manager.query('INSERT INTO people (name) VALUES (NULL)');
});
await failing.catch(told);
console.log('stored by nestjs-people:', await stored());

const quiet = app.transactions.run({}, async ({ manager }) => {
  await app.people.create({ name: 'Grace' });
  await manager.query('INSERT INTO people (name) VALUES (NULL)').catch(() => undefined);
});
await quiet.catch((error: unknown) => {
  if (error instanceof TransactionRolledBackError) console.log('told:', error.name);
});

// Mail and the like: once it is committed, and never for what was rolled back.
await app.transactions.run({}, async (transaction) => {
  const grace = await app.people.create({ name: 'Grace' });
  transaction.afterCommit(() => console.log('mail to', grace.name));
  console.log('not committed yet');
});
await app.close();
await pool.end();
