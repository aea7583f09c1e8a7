import { execFile } from 'node:child_process';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { PoolExhaustedError } from '../../src/database/postgres-errors.js';
import { barrier } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { poolOf, startPeopleApp } from '../support/people-app.js';
import { startTcpProxyTo } from '../support/tcp-proxy.js';

const app = duringTests(() => startPeopleApp());
const proxy = duringTests(() => startTcpProxyTo(app.database.url));
/** The same database through the proxy, with a single connection. */
const single = duringTests(() =>
  startPeopleApp(
    { DATABASE_URL: proxy.through(app.database.url), DB_POOL_SIZE: '1', DB_ACQUIRE_TIMEOUT_MS: '500' },
    app.database,
  ),
);
afterEach(() => {
  proxy.onClientData = () => 'pass';
  expect(poolOf(single.dataSource).borrowed).toBe(0);
});

const cutOnce = (word: string, decision: 'cut-before' | 'cut-after') => {
  let cuts = 0;
  proxy.onClientData = (data) => (data.includes(word) && cuts++ === 0 ? decision : 'pass');
};

it.each(['cut-before', 'cut-after'] as const)(
  'a unit that could only read is read again when its COMMIT is lost (%s), and never unknown',
  async (decision) => {
    cutOnce('COMMIT', decision);
    const attempts: number[] = [];
    const read = { isolationLevel: 'SERIALIZABLE', readOnly: true } as const;
    await single.transactions.run(read, async (transaction) => {
      attempts.push(transaction.attempt);
      await transaction.query({ text: 'SELECT FROM people' });
    });
    expect(attempts).toEqual([1, 2]);
  },
);

it('a dead client that nobody can replace is told as a busy pool, also to who asked through TypeORM', async () => {
  cutOnce('START TRANSACTION', 'cut-before');
  const over = barrier(2);
  const dead = single.transactions.run({}, ({ manager }) => manager.query('SELECT 1'));
  // Waits for the connection already when the first asks for another.
  const waiter = single.transactions.run({}, async (transaction) => {
    await transaction.query({ text: 'SELECT 1' });
    await over();
  });
  await expect(dead).rejects.toBeInstanceOf(PoolExhaustedError);
  await over();
  await waiter;
});

it('work whose budget is over before it could begin is not begun', async () => {
  const timeoutMs = 20;
  const subscriber = { beforeTransactionStart: async () => sleep(2 * timeoutMs) };
  single.dataSource.subscribers.push(subscriber);
  try {
    let ran = false;
    const late = single.transactions.run({ timeoutMs }, async () => {
      ran = true;
      throw new Error('unheard');
    });
    await expect(late).rejects.toMatchObject({ type: 'transaction-timeout' });
    expect(ran).toBe(false);
  } finally {
    single.dataSource.subscribers.splice(single.dataSource.subscribers.indexOf(subscriber), 1);
  }
});

it('any number of units may wait for their next attempt at once, without a warning of Node', async () => {
  // In a process of its own: a test hears no warnings.
  const script = `
    import { DataSource } from 'typeorm';
    import { TransactionRunner } from '${path.resolve('dist/src/index.js')}';
    const dataSource = await new DataSource({ type: 'postgres', url: process.argv[1] }).initialize();
    const runner = new TransactionRunner(dataSource, { backoff: () => 200 });
    const conflict = { text: "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$" };
    const unit = () => runner.run({}, async (transaction) => {
      if (transaction.attempt === 1) await transaction.query(conflict);
    });
    await Promise.all(Array.from({ length: 30 }, unit));
    await dataSource.destroy();`;
  const { stderr } = await promisify(execFile)(process.execPath, [
    '--input-type=module',
    '-e',
    script,
    app.database.url,
  ]);
  expect(stderr).toBe('');
});
