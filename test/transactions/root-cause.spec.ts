import { HttpException } from '@nestjs/common';
import { RpcException } from '@nestjs/microservices';
import type { TransactionContext } from '../../src/transactions/transaction-context.js';
import { barrier } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { poolOf, startPeopleApp } from '../support/people-app.js';

const app = duringTests(() => startPeopleApp());
let id: string;
beforeEach(async () => {
  ({ id } = await app.people.create({ name: 'Ada' }));
});
afterEach(() => expect(poolOf(app.dataSource).borrowed).toBe(0));

const insertAgain = (transaction: TransactionContext) =>
  transaction.query({ text: `INSERT INTO people (id, name) VALUES ($1, 'again')`, values: [id] });

/** A work whose first attempt meets a serialization failure, which `handle` makes something of. */
const conflicting = (
  handle: (conflict: Promise<unknown>, transaction: TransactionContext) => Promise<unknown>,
) => {
  const runs = { count: 0 };
  const unit = app.transactions.run({ isolationLevel: 'REPEATABLE READ' }, async (transaction) => {
    runs.count++;
    await transaction.query({ text: 'SELECT FROM people WHERE id = $1', values: [id] });
    if (runs.count === 1) await app.database.query(`UPDATE people SET name = 'other' WHERE id = $1`, [id]);
    const update = transaction.query({ text: `UPDATE people SET name = 'mine' WHERE id = $1`, values: [id] });
    await handle(update, transaction);
  });
  return { runs, unit };
};

describe('a failure that the work swallowed', () => {
  it('and then returned is reported with the statement that failed, after one run, with nothing changed', async () => {
    let runs = 0;
    const unit = app.transactions.run({}, async (transaction) => {
      runs++;
      await app.people.create({ name: 'swallowed' });
      await insertAgain(transaction).catch(() => 'never mind');
      return 'ok';
    });
    await expect(unit).rejects.toMatchObject({
      type: 'transaction-rolled-back',
      code: '23505',
      attempts: 1,
      cause: { code: '23505' },
      errors: [{ code: '23505' }],
    });
    expect(runs).toBe(1);
    expect((await app.people.findByName('swallowed')).items).toEqual([]);
  });

  it('and that shows up as 25P02 later is reported as itself', async () => {
    const unit = app.transactions.run({}, async (transaction) => {
      await insertAgain(transaction).catch(() => 'never mind');
      await transaction.query({ text: 'SELECT 1' });
    });
    await expect(unit).rejects.toMatchObject({ type: 'transaction-rolled-back', code: '23505' });
  });

  it('and made into an error of its own stays that error', async () => {
    const answer = new HttpException('exists already', 409);
    const unit = app.transactions.run({}, (transaction) =>
      insertAgain(transaction).catch(() => Promise.reject(answer)),
    );
    await expect(unit).rejects.toBe(answer);
  });

  it.each<[string, (conflict: Promise<unknown>, transaction: TransactionContext) => Promise<unknown>]>([
    ['and returned', (conflict) => conflict.catch(() => 'never mind')],
    [
      'and met as 25P02',
      (conflict, transaction) =>
        conflict.catch(() => 'never mind').then(() => transaction.query({ text: 'SELECT 1' })),
    ],
    [
      'and wrapped in an HttpException',
      (conflict) => conflict.catch((cause) => Promise.reject(new HttpException('x', 500, { cause }))),
    ],
    [
      'and replaced by an RpcException without a cause',
      (conflict) => conflict.catch(() => Promise.reject(new RpcException('x'))),
    ],
    ['in an AggregateError', (conflict) => Promise.any([conflict])],
  ])('is repeated when it is a conflict (%s)', async (_, handle) => {
    const { runs, unit } = conflicting(handle);
    await unit;
    expect(runs.count).toBe(2);
    expect((await app.people.get(id)).name).toBe('mine');
  });
});

it('a code 40001 of something that is not PostgreSQL is not repeated', async () => {
  let runs = 0;
  const foreign = Object.assign(new Error('of an HTTP client'), { code: '40001' });
  const unit = app.transactions.run({}, () => {
    runs++;
    return Promise.reject(foreign);
  });
  await expect(unit).rejects.toBe(foreign);
  expect(runs).toBe(1);
});

describe('a unique violation', () => {
  /** Takes the next free name after reading the highest: a conflict in disguise. */
  const takeNext = (bothRead: () => Promise<void>) =>
    app.transactions.run({ retryOn: ['40001', '40P01', '23505'], backoff: () => 1 }, async (transaction) => {
      const { rows } = await transaction.query<{ next: string }>({
        text: `SELECT coalesce(max(number), 0) + 1 AS next FROM numbers`,
      });
      if (transaction.attempt === 1) await bothRead();
      await transaction.query({ text: 'INSERT INTO numbers VALUES ($1)', values: [rows[0]!.next] });
      return Number(rows[0]!.next);
    });

  beforeAll(() => app.database.query('CREATE TABLE numbers (number int PRIMARY KEY)'));

  it('is not repeated by default', async () => {
    let runs = 0;
    const unit = app.transactions.run({}, (transaction) => {
      runs++;
      return insertAgain(transaction);
    });
    await expect(unit).rejects.toMatchObject({ code: '23505' });
    expect(runs).toBe(1);
  });

  it('that is a conflict in disguise is repeated where retryOn names it', async () => {
    const bothRead = barrier(2);
    expect((await Promise.all([takeNext(bothRead), takeNext(bothRead)])).sort()).toEqual([1, 2]);
  });

  it('that stays one ends after the attempts, and names itself', async () => {
    const unit = app.transactions.run(
      {
        retryOn: ({ code, phase }) => code === '23505' && phase === 'statement',
        maxAttempts: 3,
        backoff: () => 1,
      },
      insertAgain,
    );
    await expect(unit).rejects.toMatchObject({
      type: 'transaction-retries-exhausted',
      code: '23505',
      attempts: 3,
    });
  });
});

it('a deferred constraint that fails at COMMIT is reported as itself, and the client stays in use', async () => {
  await app.database.query(
    'CREATE TABLE deferred (id int PRIMARY KEY, twin int REFERENCES deferred DEFERRABLE INITIALLY DEFERRED)',
  );
  const pid = { text: 'SELECT pg_backend_pid() AS pid' };
  const single = await startPeopleApp({ DB_POOL_SIZE: '1' }, app.database);
  let before: unknown;
  const unit = single.transactions.run({}, async (transaction) => {
    ({
      rows: [before],
    } = await transaction.query(pid));
    await transaction.query({ text: 'INSERT INTO deferred VALUES (1, 2)' });
  });
  await expect(unit).rejects.toMatchObject({ code: '23503' });
  const { rows } = await single.transactions.run({}, (transaction) => transaction.query(pid));
  expect(rows).toEqual([before]);
  await single.close();
});
