import pg from 'pg';
import { barrier, eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { poolOf, startPeopleApp } from '../support/people-app.js';
import { startTcpProxyTo } from '../support/tcp-proxy.js';

let id: string;
const BUDGET = { timeoutMs: 150 };
const TIMEOUT = { type: 'transaction-timeout', status: 503, retryable: true };

const app = duringTests(() => startPeopleApp());
const proxy = duringTests(() => startTcpProxyTo(app.database.url));
/** The same database through the proxy, with a single connection. */
const single = duringTests(() =>
  startPeopleApp({ DATABASE_URL: proxy.through(app.database.url), DB_POOL_SIZE: '1' }, app.database),
);
beforeEach(async () => {
  ({ id } = await app.people.create({ name: 'Ada' }));
});
afterEach(async () => {
  proxy.onClientData = () => 'pass';
  await eventually(() => poolOf(single.dataSource).borrowed === 0);
  // Whatever ended before it, the next one finds a connection that is idle.
  const status = await single.transactions.run({}, async ({ client }) => client.getTransactionStatus());
  expect(status).toBe('I');
});

const nameOf = async () => (await app.people.get(id)).name;

describe('a budget that ends', () => {
  it('while a statement runs stops it on the server, and nothing was changed', async () => {
    const unit = single.transactions.run(BUDGET, async (transaction) => {
      await transaction.query({ text: `UPDATE people SET name = 'late' WHERE id = $1`, values: [id] });
      await transaction.query({ text: 'SELECT pg_sleep(60)' });
    });
    await expect(unit).rejects.toMatchObject({ ...TIMEOUT, attempts: 1 });
    expect(await nameOf()).toBe('Ada');
    const running = `SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'`;
    await eventually(async () => (await app.database.query(running)).length === 0);
  });

  it('while the work waits for something else gives up, and what the work sends later is refused', async () => {
    const over = barrier(2);
    let late: Promise<unknown> | undefined;
    const unit = single.transactions.run(BUDGET, async (transaction) => {
      await transaction.query({ text: `UPDATE people SET name = 'late' WHERE id = $1`, values: [id] });
      expect(transaction.signal!.aborted).toBe(false);
      late = over().then(() => {
        expect(transaction.signal!.aborted).toBe(true);
        return transaction.query({ text: 'SELECT 1' });
      });
      late.catch(() => undefined);
      await late;
    });
    await expect(unit).rejects.toMatchObject(TIMEOUT);
    await over();
    await expect(late).rejects.toThrow('has ended');
    expect(await nameOf()).toBe('Ada');
  });

  it('while it waits for a connection gives up its place, and the connection it would have had goes on', async () => {
    const held = barrier(2);
    const holder = single.transactions.run({}, () => held());
    const unit = single.transactions.run(BUDGET, () => Promise.resolve('never'));
    await expect(unit).rejects.toMatchObject({ ...TIMEOUT, attempts: 1, cause: undefined });
    const next = single.people.get(id);
    await held();
    await holder;
    expect((await next).name).toBe('Ada');
  });

  it('while it waits for the turn of its key gives up its place, and the one behind it moves up', async () => {
    const held = barrier(2);
    const key = { conflictKey: 'k' };
    const first = single.transactions.run(key, () => held());
    const second = single.transactions.run({ ...key, ...BUDGET }, () => Promise.resolve('never'));
    const third = single.transactions.run(key, () => Promise.resolve('third'));
    await expect(second).rejects.toMatchObject({ ...TIMEOUT, attempts: 0 });
    await held();
    await first;
    expect(await third).toBe('third');
  });

  it('before the next attempt is due ends the attempts, with the conflict as the cause', async () => {
    const unit = single.transactions.run({ timeoutMs: 5000, backoff: () => 60_000 }, (transaction) =>
      transaction.query({ text: `DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$` }),
    );
    await expect(unit).rejects.toMatchObject({ ...TIMEOUT, code: '40001', attempts: 1 });
  });

  it('while COMMIT is stuck cuts the connection and asks what became of it: not done', async () => {
    proxy.onClientData = (data) => (data.includes('COMMIT') ? 'swallow' : 'pass');
    const unit = single.transactions.run({ timeoutMs: 300 }, (transaction) =>
      transaction.query({ text: `UPDATE people SET name = 'stuck' WHERE id = $1`, values: [id] }),
    );
    await expect(unit).rejects.toMatchObject(TIMEOUT);
    expect(await nameOf()).toBe('Ada');
  });
});

it('a statement that waits too long for a lock is a 503 that can be repeated', async () => {
  const outsider = new pg.Client(app.database.url);
  await outsider.connect();
  await outsider.query('BEGIN');
  await outsider.query('SELECT FROM people WHERE id = $1 FOR UPDATE', [id]);
  const unit = single.transactions.run({ lockTimeoutMs: 20 }, () =>
    single.people.update(id, { name: 'locked' }),
  );
  await expect(unit).rejects.toMatchObject({ type: 'lock-timeout', status: 503, retryable: true });
  await outsider.end();
});

it('a statement beyond statementTimeoutMs is a 503 that can be repeated', async () => {
  const unit = single.transactions.run({ statementTimeoutMs: 20 }, (transaction) =>
    transaction.query({ text: 'SELECT pg_sleep(60)' }),
  );
  await expect(unit).rejects.toMatchObject({ type: 'statement-timeout', status: 503, retryable: true });
});
