import { ShuttingDownError } from '../../src/transactions/transaction-errors.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import { barrier, eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { type PeopleApp, poolOf, startPeopleApp } from '../support/people-app.js';
import { nextRetry } from '../support/retries.js';
import { createDatabase } from '../support/test-database.js';

const database = duringTests(() => createDatabase());
let app: PeopleApp;
beforeEach(async () => {
  await database.query('TRUNCATE people');
  app = await startPeopleApp({ DB_POOL_SIZE: '1' }, database);
});

const names = async () =>
  (await database.query<{ name: string }>('SELECT name FROM people ORDER BY name')).map(({ name }) => name);

it('what runs is finished before the pool closes, and what waits for its connection never sees its transaction', async () => {
  const [begun, held] = [barrier(2), barrier(2)];
  const running = app.transactions.run({}, async (outer) => {
    await app.people.create({ name: 'running' });
    await begun();
    await held();
    // What it needs is part of it, also now.
    await app.transactions.run({}, async (joined) => expect(joined).toBe(outer));
    await app.people.create({ name: 'running too' });
  });
  await begun();
  const waiting = app.transactions.run({}, async (transaction) => {
    const status = transaction.client.getTransactionStatus();
    const { rows } = await transaction.query({ text: 'SELECT name FROM people ORDER BY name' });
    return { status, rows };
  });
  await eventually(() => poolOf(app.dataSource).waiting === 1);
  const closed = app.app.close();
  await held();
  await running;
  expect(await waiting).toEqual({ status: 'I', rows: [{ name: 'running' }, { name: 'running too' }] });
  await closed;
  expect(await names()).toEqual(['running', 'running too']);
});

it('what comes is refused with an error that says where to go', async () => {
  const [begun, held] = [barrier(2), barrier(2)];
  const running = app.transactions.run({}, async () => {
    await begun();
    await held();
  });
  await begun();
  const closed = app.app.close();
  const late = () => app.people.create({ name: 'late' });
  await eventually(() =>
    late().then(
      () => false,
      (error: unknown) => error instanceof ShuttingDownError,
    ),
  );
  await expect(late()).rejects.toMatchObject({ type: 'shutting-down', status: 503, retryable: true });
  await expect(app.transactions.run({}, late)).rejects.toBeInstanceOf(ShuttingDownError);
  await held();
  await running;
  await closed;
});

it('a unit of work between two attempts goes on at once', async () => {
  const { id } = await app.people.create({ name: 'Ada' });
  const retry = nextRetry();
  const unit = app.transactions.run(
    { isolationLevel: 'REPEATABLE READ', backoff: () => 2 ** 30 },
    async (transaction) => {
      await transaction.query({ text: 'SELECT FROM people WHERE id = $1', values: [id] });
      if (transaction.attempt === 1)
        await database.query(`UPDATE people SET name = 'other' WHERE id = $1`, [id]);
      await transaction.query({ text: `UPDATE people SET name = 'mine' WHERE id = $1`, values: [id] });
    },
  );
  await retry;
  await app.close();
  await unit;
  expect(await names()).toEqual(['mine']);
});

it('what waits for something that is no statement does not keep the application from stopping', async () => {
  const runner = new TransactionRunner(app.dataSource, { drainTimeoutMs: 20 });
  const begun = barrier(3);
  const never = new Promise<never>(() => undefined);
  // Committed, and its connection given back.
  const behind = runner.run({}, async (transaction) => {
    transaction.afterCommit(async () => {
      await begun();
      await never;
    });
  });
  const working = runner.run({}, async (transaction) => {
    await transaction.query({ text: `INSERT INTO people (name) VALUES ('late')` });
    await begun();
    await never;
  });
  const notice = working.catch((error: unknown) => error);
  void behind.catch(() => undefined);
  await begun();
  await runner.beforeApplicationShutdown();
  expect(await notice).toMatchObject({ type: 'database-unavailable' });
  expect(runner.unfinished).toBe(2);
  await app.close();
  expect(await names()).toEqual([]);
});

it('a unit of work that runs may use another DataSource as long as it runs, also while both stop', async () => {
  const other = await startPeopleApp({}, database);
  const [begun, held] = [barrier(2), barrier(2)];
  const running = app.transactions.run({}, async () => {
    await app.people.create({ name: 'here' });
    await begun();
    await held();
    await other.people.create({ name: 'there' });
  });
  await begun();
  const stopped = [app.transactions, other.transactions].map((runner) => runner.beforeApplicationShutdown());
  await held();
  await running;
  await Promise.all(stopped);
  await expect(other.people.create({ name: 'late' })).rejects.toBeInstanceOf(ShuttingDownError);
  expect(await names()).toEqual(['here', 'there']);
  await Promise.all([app.close(), other.close()]);
});

it('what does not end in time loses its connection, and its changes', async () => {
  const runner = new TransactionRunner(app.dataSource, { drainTimeoutMs: 20 });
  const begun = barrier(2);
  const hangs = runner.run({}, async (transaction) => {
    await transaction.query({ text: `INSERT INTO people (name) VALUES ('late')` });
    await begun();
    await transaction.query({ text: 'SELECT pg_sleep(60)' });
  });
  await begun();
  const stopped = runner.beforeApplicationShutdown();
  await expect(hangs).rejects.toMatchObject({ type: 'database-unavailable' });
  await stopped;
  expect((await app.people.findByName('late')).items).toEqual([]);
  await app.close();
});
