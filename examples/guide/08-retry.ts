import { setTimeout as sleep } from 'node:timers/promises';
import { TransactionRetriesExhaustedError } from 'nestjs-people';
import pg from 'pg';
import { openPeople } from './people-app.js';
import { createPeople, openPool, openTypeOrm } from './people-table.js';

const pool = openPool();
await createPeople(pool);
await pool.query(`INSERT INTO people (name, data) VALUES ('Ada', '{"coins":10}'), ('Grace', '{"coins":10}')`);
const codeOf = (error: unknown) => (error as { code?: string }).code;
type Queryable = Pick<pg.Pool, 'query'>;
const coins = async (on: Queryable, name: string) =>
  (await on.query<{ n: number }>(`SELECT (data->>'coins')::int AS n FROM people WHERE name = $1`, [name]))
    .rows[0]!.n;
const setCoins = (on: Queryable, name: string, n: number) =>
  on.query(`UPDATE people SET data = json_build_object('coins', $2::int) WHERE name = $1`, [name, n]);
/** Somebody else, in the midst of our transaction: the next write of the same row meets a conflict. */
const somebodyElse = async () => setCoins(pool, 'Ada', (await coins(pool, 'Ada')) + 1);

// The naive way: the statement that failed is sent again. Its transaction is over, and takes no more.
const client = await pool.connect();
await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
const seen = await coins(client, 'Ada');
await somebodyElse();
for (let attempt = 1; attempt <= 2; attempt++)
  await setCoins(client, 'Ada', seen + 5).catch((error: unknown) => {
    if (error instanceof pg.DatabaseError) console.log('attempt', attempt, 'is told', error.code);
  });
await client.query('ROLLBACK');
client.release();

// The mend: the whole transaction again, from its first read, COMMIT included.
async function retrying<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    const client = await pool.connect();
    let broken: Error | undefined;
    try {
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
      const result = await work(client);
      const { command } = await client.query('COMMIT');
      if (command !== 'COMMIT') throw new Error('A failed statement was swallowed.');
      return result;
    } catch (error) {
      await client.query('ROLLBACK').catch((failure: Error) => (broken = failure));
      const isConflict = error instanceof pg.DatabaseError && ['40001', '40P01'].includes(error.code!);
      if (!isConflict || attempt === 10) throw error;
    } finally {
      client.release(broken); // before the wait: who waits needs no connection
    }
    // Random, so that the two that have met don't meet again.
    await sleep(Math.random() * Math.min(250, 25 * 2 ** (attempt - 1)));
  }
}

let mails = 0;
let met = 0;
const balance = await retrying(async (client) => {
  const found = await coins(client, 'Ada');
  mails++; // The trap: what is done outside of the database is done in each attempt.
  if (met++ === 0) await somebodyElse();
  await setCoins(client, 'Ada', found + 5);
  return found + 5;
});
console.log('the whole again:', balance, 'coins, by', met, 'attempts and', mails, 'mails');

// A deadlock: two that take the same rows in opposite order. The server ends one of them.
const [one, other] = [await pool.connect(), await pool.connect()];
await Promise.all([one.query('BEGIN'), other.query('BEGIN')]);
const LOCK = 'SELECT FROM people WHERE name = $1 FOR UPDATE';
await one.query(LOCK, ['Ada']);
await other.query(LOCK, ['Grace']);
// Whoever is ended has to roll back at once: the other one waits for that.
const lockOrRollBack = (on: pg.PoolClient, name: string) =>
  on.query(LOCK, [name]).catch(async (error: unknown) => {
    await on.query('ROLLBACK');
    throw error;
  });
const outcomes = await Promise.allSettled([lockOrRollBack(one, 'Grace'), lockOrRollBack(other, 'Ada')]);
const victim = outcomes.find((outcome) => outcome.status === 'rejected');
console.log('deadlock:', ...outcomes.map(({ status }) => status).sort(), codeOf(victim?.reason));
for (const each of [one, other]) {
  await each.query('ROLLBACK');
  each.release();
}

// The mend: take rows in one order, and run again where that can't be had.
const pay = (from: string, to: string) =>
  retrying(async (client) => {
    const has = { [from]: await coins(client, from), [to]: await coins(client, to) };
    for (const name of [from, to].sort()) await setCoins(client, name, has[name]! + (name === to ? 1 : -1));
  });
const total = async () => (await coins(pool, 'Ada')) + (await coins(pool, 'Grace'));
const before = await total();
await Promise.all([pay('Ada', 'Grace'), pay('Grace', 'Ada'), pay('Ada', 'Grace')]);
console.log('three transfers, coins lost:', before - (await total()));

// TypeORM runs nothing again: the loop is yours.
const dataSource = await openTypeOrm();
let attempts = 0;
await dataSource
  .transaction('REPEATABLE READ', async (manager) => {
    attempts++;
    const [ada] = await manager.query<{ data: { coins: number } }[]>(
      `SELECT data FROM people WHERE name = 'Ada'`,
    );
    await somebodyElse();
    await manager.query(`UPDATE people SET data = $1 WHERE name = 'Ada'`, [{ coins: ada!.data.coins + 5 }]);
  })
  .catch((error: unknown) => console.log('TypeORM, attempts:', attempts, 'told:', codeOf(error)));
await dataSource.destroy();

// With nestjs-people.
const app = await openPeople();
const result = await app.transactions.run({ isolationLevel: 'REPEATABLE READ' }, async (transaction) => {
  const [ada] = (await app.people.findByName('Ada')).items;
  if (transaction.attempt === 1) await somebodyElse();
  await app.people.update(ada!.id, { data: { coins: Number(ada!.data?.coins) + 5 } });
  transaction.afterCommit(() => console.log('one mail'));
  return `attempt ${transaction.attempt} of ${transaction.maxAttempts}`;
});
console.log('nestjs-people:', result);

// There is an end to it, with an error that says so; over HTTP it is 503 with Retry-After.
const hopeless = app.transactions.run({ isolationLevel: 'REPEATABLE READ', maxAttempts: 3 }, async () => {
  const [ada] = (await app.people.findByName('Ada')).items;
  await somebodyElse();
  await app.people.update(ada!.id, { data: { coins: 0 } });
});
await hopeless.catch((error: unknown) => {
  if (error instanceof TransactionRetriesExhaustedError)
    console.log('told:', error.name, error.code, 'after', error.attempts);
});

// A row that everybody wants: units of one conflictKey wait for each other before they take a connection.
let used = 0;
const likes = Array.from({ length: 20 }, () =>
  app.transactions.run({ isolationLevel: 'REPEATABLE READ', conflictKey: 'Grace' }, async () => {
    used++;
    const [grace] = (await app.people.findByName('Grace')).items;
    await app.people.update(grace!.id, { data: { coins: Number(grace!.data?.coins) + 1 } });
  }),
);
await Promise.all(likes);
console.log('twenty at once, attempts:', used);
await app.close();
await pool.end();
