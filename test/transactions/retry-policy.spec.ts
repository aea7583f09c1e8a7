import pg from 'pg';
import { QueryFailedError } from 'typeorm';
import {
  backoffDelay,
  DEFAULT_BACKOFF,
  describeAttempt,
  isRetryable,
} from '../../src/transactions/retry-policy.js';
import { AfterCommitError } from '../../src/transactions/transaction-errors.js';

const postgresError = (code: string) =>
  Object.assign(new pg.DatabaseError('text', 4, 'error'), { code, severity: 'ERROR' });
const conflict = postgresError('40001');
const cyclic = new Error('a');
cyclic.cause = cyclic;

describe('which failures are repeated', () => {
  it.each<[string, unknown, boolean]>([
    ['a serialization failure', conflict, true],
    ['a deadlock', postgresError('40P01'), true],
    ['one inside TypeORM’s error', new QueryFailedError('SELECT 1', [], conflict), true],
    [
      'one that the work wrapped',
      new Error('mine', { cause: new Error('inner', { cause: conflict }) }),
      true,
    ],
    ['a unique violation', postgresError('23505'), false],
    ['a query that was cancelled', postgresError('57014'), false],
    ['a foreign error with the same code', Object.assign(new Error('x'), { code: '40001' }), false],
    [
      'a conflict met after the commit',
      new AfterCommitError({ transactionId: 'id', attempts: 1, cause: conflict }, undefined),
      false,
    ],
    ['an error that is its own cause', cyclic, false],
    ['a value that is no error', '40001', false],
  ])('%s: %p → %p', (_, error, expected) =>
    expect(isRetryable(describeAttempt(error, 'statement', 1))).toBe(expected),
  );
});

it('waits grow from 25 ms to 250 ms, half of each fixed and half random', () => {
  const attempts = [1, 2, 3, 4, 5, 9];
  expect(attempts.map((attempt) => backoffDelay(attempt, DEFAULT_BACKOFF, () => 0))).toEqual([
    12.5, 25, 50, 100, 125, 125,
  ]);
  expect(attempts.map((attempt) => backoffDelay(attempt, DEFAULT_BACKOFF, () => 1))).toEqual([
    25, 50, 100, 200, 250, 250,
  ]);
});
