import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { TransactionOutcomeUnknownError } from '../../src/transactions/transaction-errors.js';
import type { TransactionOptions } from '../../src/transactions/transaction-options.js';
import type { TransactionContext } from '../../src/transactions/transaction-context.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { startLossyProxy } from '../support/lossy-proxy.js';
import { poolOf, startPeopleApp } from '../support/people-app.js';
import { createDatabase, openDatabase } from '../support/test-database.js';

const POOL_SIZE = 3;

const database = duringTests(() => createDatabase());
const proxy = duringTests(() => startLossyProxy(database.url));
const behind = duringTests(() => openDatabase(proxy.url));
const app = duringTests(() =>
  startPeopleApp({ DB_POOL_SIZE: String(POOL_SIZE), DB_ACQUIRE_TIMEOUT_MS: '500' }, behind),
);
beforeEach(() => database.query('TRUNCATE people'));
afterEach(() => proxy.recover());

const INSERT = `INSERT INTO people (name) VALUES ('once')`;
const stored = async () => (await database.query(`SELECT FROM people WHERE name = 'once'`)).length;

/** Far beyond every budget here. */
const FOR_EVER_MS = 15_000;

/** What a unit ended with: its error's class, or what became of it else. */
const endOf = (unit: Promise<unknown>) =>
  Promise.race([
    unit.then(
      () => 'done',
      (error: Error) => error.constructor.name,
    ),
    sleep(FOR_EVER_MS, 'still running', { ref: false }),
  ]);

describe('a unit of work whose COMMIT is done and not answered', () => {
  /** Runs `first`, loses the answer of its COMMIT, and lets `then` decide what the next attempt meets. */
  async function repeated(
    options: TransactionOptions,
    then: (transaction: TransactionContext) => Promise<unknown>,
    meanwhile: () => unknown = () => undefined,
  ): Promise<unknown> {
    const held = proxy.holdAnswers(/COMMIT\0/);
    const unit = app.transactions.run(
      // Doing it twice does no harm, says the caller; the server is not asked.
      { idempotent: true, commitOutcome: 'report', backoff: { baseMs: 1, capMs: 1 }, ...options },
      (transaction) => (transaction.attempt === 1 ? transaction.query({ text: INSERT }) : then(transaction)),
    );
    unit.catch(() => undefined);
    const [answer] = await held;
    await meanwhile();
    answer!.cut();
    const end = await endOf(unit);
    await proxy.recover();
    return end;
  }

  const conflict = (transaction: TransactionContext) =>
    transaction.query({ text: `DO $$ BEGIN RAISE EXCEPTION 'collided' USING ERRCODE = '40001'; END $$` });
  const nothing = () => Promise.resolve();

  it('is done when its repetition is', async () => {
    expect(await repeated({}, nothing)).toBe('done');
    expect(await stored()).toBe(1);
  });

  it.each<[what: string, ...Parameters<typeof repeated>]>([
    ['collides with others each time', {}, conflict],
    ['collides with others at its last attempt', { maxAttempts: 2 }, conflict],
    ['is no more allowed', { beforeRetry: () => false }, nothing],
    ['can not connect', {}, nothing, () => proxy.refuse()],
    ['meets a server that hangs', {}, nothing, () => proxy.hang()],
    ['outlasts the budget', { timeoutMs: 1000 }, (t) => t.query({ text: 'SELECT pg_sleep(20)' })],
    ['would begin behind the end of the budget', { timeoutMs: 1000, backoff: { baseMs: 5000, capMs: 5000 } }, nothing], // prettier-ignore
    ['is cancelled', {}, (t) => t.query({ text: `SET LOCAL statement_timeout = 100; SELECT pg_sleep(20)` })],
    ['waits for a lock for too long', {}, (t) => t.query({ text: `DO $$ BEGIN RAISE EXCEPTION 'locked' USING ERRCODE = '55P03'; END $$` })], // prettier-ignore
    ['is refused by the work', {}, () => Promise.reject(new Error('This is there already.'))],
    ['fails in a statement', {}, (t) => t.query({ text: 'SELECT 1 / 0' })],
  ])('is unknown when its repetition %s', async (_, ...parameters) => {
    expect(await repeated(...parameters)).toBe(TransactionOutcomeUnknownError.name);
    expect(await stored()).toBe(1);
  });

  it('is unknown when its repetition finds no free connection', async () => {
    let free!: () => void;
    const freed = new Promise<void>((resolve) => (free = resolve));
    const taken: Promise<unknown>[] = [];
    const takeAll = async () => {
      for (let n = 0; n < POOL_SIZE; n++)
        taken.push(
          app.transactions.run({}, async (transaction) => {
            await transaction.query({ text: 'SELECT' });
            await freed;
          }),
        );
      // All but the one that the unit has, and for which the last one waits in front of it.
      await eventually(() => poolOf(app.dataSource).waiting === 1);
    };
    const end = await repeated({}, nothing, takeAll).finally(free);
    await Promise.all(taken);
    expect([end, await stored()]).toEqual([TransactionOutcomeUnknownError.name, 1]);
  });
});

describe('asking for the outcome of a COMMIT that was lost', () => {
  const run = (options: TransactionOptions) =>
    app.transactions.run(options, async (transaction) => {
      await transaction.query({ text: INSERT });
    });

  it.each(['refuse', 'hang'] as const)(
    'ends with the budget when the server is away (connections: %s): it is unknown',
    async (outage) => {
      const held = proxy.holdAnswers(/COMMIT\0/);
      const unit = run({ timeoutMs: 2000 });
      unit.catch(() => undefined);
      await held;
      await proxy[outage]();
      expect(await endOf(unit)).toBe(TransactionOutcomeUnknownError.name);
      await proxy.recover();
      expect(await stored()).toBe(1);
    },
  );

  it('ends with the budget when the server has taken the question and does not answer', async () => {
    const held = proxy.holdAnswers(/COMMIT\0/);
    const unit = run({ timeoutMs: 2000 });
    unit.catch(() => undefined);
    const [answer] = await held;
    const asked = proxy.holdAnswers(/pg_xact_status/);
    answer!.cut();
    await asked;
    expect(await endOf(unit)).toBe(TransactionOutcomeUnknownError.name);
    await proxy.recover();
    expect(await stored()).toBe(1);
  });

  it('finds it done when the server comes back in time', async () => {
    const held = proxy.holdAnswers(/COMMIT\0/);
    const unit = run({});
    await held;
    await proxy.refuse();
    setTimeout(() => void proxy.recover(), 300);
    expect(await endOf(unit)).toBe('done');
    expect(await stored()).toBe(1);
  });
});

describe('a single statement that may be repeated', () => {
  const runStatement = (options: TransactionOptions = {}) =>
    app.transactions.runStatement({ text: INSERT }, { writes: true, idempotent: true, ...options });

  it.each<[what: string, TransactionOptions, meanwhile: () => unknown]>([
    ['can not connect', {}, () => proxy.refuse()],
    ['meets a server that hangs', {}, () => proxy.hang()],
    ['is no more allowed', { beforeRetry: () => false }, () => undefined],
    ['has no attempt left', { maxAttempts: 1 }, () => undefined],
    ['meets a server that hangs until its budget is over', { timeoutMs: 1500 }, () => proxy.hang()],
  ])('and was made without an answer is unknown when its repetition %s', async (_, options, meanwhile) => {
    const held = proxy.holdAnswers(/INSERT INTO people|COMMIT\0/);
    const unit = runStatement(options);
    unit.catch(() => undefined);
    const [answer] = await held;
    await meanwhile();
    answer!.cut();
    expect(await endOf(unit)).toBe(TransactionOutcomeUnknownError.name);
    await proxy.recover();
    expect(await stored()).toBe(1);
  });

  it('and waits for a lock when it is lost, is unknown when its repetition is cancelled: the server makes it later', async () => {
    const locker = new pg.Client(database.url);
    await locker.connect();
    await locker.query('BEGIN; LOCK TABLE people IN SHARE ROW EXCLUSIVE MODE');
    const waiting = async () => {
      const [row] = await database.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM pg_locks WHERE NOT granted AND relation = 'people'::regclass`,
      );
      return row!.n;
    };
    const unit = app.transactions.runStatement(
      { text: INSERT },
      { writes: true, idempotent: true, maxAttempts: 2 },
    );
    unit.catch(() => undefined);
    await eventually(async () => (await waiting()) === 1);
    proxy.cut();
    await eventually(async () => (await waiting()) === 2);
    // The repetition alone, whose session is the younger one. Found by its lock: a wait_event shows a moment later only.
    await database.query(
      `SELECT pg_cancel_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
       WHERE NOT granted AND pg_locks.relation = 'people'::regclass ORDER BY backend_start DESC LIMIT 1`,
    );
    expect(await endOf(unit)).toBe(TransactionOutcomeUnknownError.name);
    expect(await stored()).toBe(0);
    await locker.query('ROLLBACK');
    await locker.end();
    // The first attempt, whose session nobody holds any more, has its lock now: it is made a moment later.
    await eventually(async () => (await stored()) === 1);
  });
});
