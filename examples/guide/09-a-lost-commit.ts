import pg from 'pg';
import { startLosingProxy } from './losing-proxy.js';
import { openPeople } from './people-app.js';
import { createPeople, openPool } from './people-table.js';

const pool = openPool();
await createPeople(pool);
const proxy = await startLosingProxy();
const count = async (name: string) =>
  (await pool.query<{ n: number }>('SELECT count(*)::int AS n FROM people WHERE name = $1', [name])).rows[0]!
    .n;

// What you see: the connection breaks while COMMIT is under way.
async function store(name: string): Promise<void> {
  const client = await connectThroughProxy();
  try {
    await client.query('BEGIN');
    await client.query('INSERT INTO people (name) VALUES ($1)', [name]);
    await client.query('COMMIT');
  } finally {
    await client.end();
  }
}
async function connectThroughProxy(): Promise<pg.Client> {
  const client = new pg.Client(proxy.url);
  client.on('error', () => undefined); // the query is told
  await client.connect();
  return client;
}

// The naive way, one: an error is a failure.
proxy.loseCommits(1);
await store('Ada').catch((error: Error) => console.log('told:', error.message));
console.log('stored all the same:', await count('Ada'));

// The naive way, two: an error is a reason to try again.
proxy.loseCommits(1);
await store('Grace').catch(() => store('Grace'));
console.log('stored by trying again:', await count('Grace'));

// Mend 1: an id of your own, so that trying again changes nothing.
async function storeOnce(id: string, name: string): Promise<void> {
  const client = await connectThroughProxy();
  try {
    await client.query('BEGIN');
    await client.query('INSERT INTO people (id, name) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING', [
      id,
      name,
    ]);
    await client.query('COMMIT');
  } finally {
    await client.end();
  }
}
const id = '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f';
proxy.loseCommits(1);
await storeOnce(id, 'Linus').catch(() => storeOnce(id, 'Linus'));
console.log('stored under its own id:', await count('Linus'));

// Mend 2: ask the server what became of the transaction, by its id, on another connection.
const client = await connectThroughProxy();
await client.query('BEGIN');
await client.query(`INSERT INTO people (name) VALUES ('Barbara')`);
const { rows } = await client.query<{ xid: string }>('SELECT pg_current_xact_id()::text AS xid');
proxy.loseCommits(1);
await client.query('COMMIT').catch(async () => {
  const status = await pool.query<{ status: string }>('SELECT pg_xact_status($1::xid8) AS status', [
    rows[0]!.xid,
  ]);
  console.log('the server says:', status.rows[0]?.status);
});
await client.end();

// With nestjs-people: told as done, because it is; and stored once.
const app = await openPeople({}, proxy.url);
proxy.loseCommits(1);
const told = await app.transactions.run({}, async (transaction) => {
  const person = await app.people.create({ name: 'Alan' });
  return `${person.name}, attempt ${transaction.attempt}`;
});
console.log('nestjs-people tells:', told, 'stored:', await count('Alan'));
console.log('answers lost on the way:', proxy.lost());
await app.close();
proxy.close();
await pool.end();
