import type pg from 'pg';
import { openPeople } from './people-app.js';
import { createPeople, openPool, openTypeOrm } from './people-table.js';

const pool = openPool();
await createPeople(pool);
await pool.query(
  `INSERT INTO people (name, data) VALUES ('Ada', '{"on_call":true}'), ('Grace', '{"on_call":true}')`,
);
const [one, other] = [await pool.connect(), await pool.connect()];
const told = ({ code, message }: Error & { code?: string }) => console.log('told:', code, message);

// What a transaction sees: at READ COMMITTED each statement sees what is committed by then.
const ON_CALL = `SELECT count(*)::int AS n FROM people WHERE data->>'on_call' = 'true'`;
const onCall = async (on: pg.Pool | pg.PoolClient) => (await on.query<{ n: number }>(ON_CALL)).rows[0]!.n;
for (const level of ['READ COMMITTED', 'REPEATABLE READ']) {
  await one.query(`BEGIN ISOLATION LEVEL ${level}`);
  const before = await onCall(one);
  await pool.query(`INSERT INTO people (name, data) VALUES ('Alan', '{"on_call":true}')`);
  console.log(level, 'counts', before, 'and then', await onCall(one));
  await one.query('COMMIT');
  await pool.query(`DELETE FROM people WHERE name = 'Alan'`);
}

// At REPEATABLE READ two can't change the same row unseen: the second one is refused.
const LEAVE = `UPDATE people SET data = '{"on_call":false}' WHERE name = $1`;
const everybodyIsBack = () => pool.query(`UPDATE people SET data = '{"on_call":true}'`);
await Promise.all([one, other].map((each) => each.query('BEGIN ISOLATION LEVEL REPEATABLE READ')));
await Promise.all([onCall(one), onCall(other)]);
await one.query(LEAVE, ['Ada']);
await one.query('COMMIT');
await other.query(LEAVE, ['Ada']).catch(told);
await other.query('ROLLBACK');
await everybodyIsBack();

// But they may each read what the other one changes. The rule: somebody stays on call.
async function leave(client: pg.PoolClient, name: string): Promise<void> {
  if ((await onCall(client)) < 2) throw new Error(`${name} has to stay`);
  await client.query(LEAVE, [name]);
}
async function bothLeave(level: string): Promise<void> {
  await Promise.all([one, other].map((each) => each.query(`BEGIN ISOLATION LEVEL ${level}`)));
  // Both look before either leaves.
  await leave(one, 'Ada');
  await leave(other, 'Grace');
  await one.query('COMMIT');
  await other.query('COMMIT').catch(told);
  console.log(level, 'leaves on call:', await onCall(pool));
  await everybodyIsBack();
}
await bothLeave('REPEATABLE READ'); // write skew
await bothLeave('SERIALIZABLE');

// One that takes part at a weaker level is not looked at.
await one.query('BEGIN ISOLATION LEVEL SERIALIZABLE');
await other.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
await leave(one, 'Ada');
await leave(other, 'Grace');
await one.query('COMMIT');
await other.query('COMMIT');
console.log('SERIALIZABLE beside REPEATABLE READ leaves on call:', await onCall(pool));
await everybodyIsBack();
one.release();
other.release();

// With TypeORM: the level is the first argument; who is refused has to try again by himself.
const dataSource = await openTypeOrm();
let arrived = 0;
let go!: () => void;
const bothHaveLooked = new Promise<void>((resolve) => (go = resolve));
const leaveByTypeOrm = (name: string) =>
  dataSource.transaction('SERIALIZABLE', async (manager) => {
    const [row] = await manager.query<{ n: number }[]>(ON_CALL);
    if (++arrived === 2) go();
    await bothHaveLooked;
    if (row!.n < 2) throw new Error(`${name} has to stay`);
    await manager.query(LEAVE, [name]);
  });
const outcomes = await Promise.allSettled([leaveByTypeOrm('Ada'), leaveByTypeOrm('Grace')]);
console.log('TypeORM:', ...outcomes.map(({ status }) => status).sort(), 'on call:', await onCall(pool));
const refused = outcomes.find((outcome) => outcome.status === 'rejected');
told(refused?.reason as Error);
await everybodyIsBack();
await dataSource.destroy();

// With nestjs-people: who is refused runs again, counts anew, and decides by what is there now.
const app = await openPeople();
const leaveAgain = (name: string) =>
  app.transactions.run({ isolationLevel: 'SERIALIZABLE' }, async ({ manager }) => {
    const [row] = await manager.query<{ n: number }[]>(ON_CALL);
    if (row!.n < 2) return 'has to stay';
    await manager.query(LEAVE, [name]);
    return 'may leave';
  });
const answers = await Promise.all([leaveAgain('Ada'), leaveAgain('Grace')]);
console.log('nestjs-people:', answers.sort(), 'on call:', await onCall(pool));
await app.close();
await pool.end();
