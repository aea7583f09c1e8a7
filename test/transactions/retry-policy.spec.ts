import {
  backoffDelay,
  DEFAULT_BACKOFF,
  describeAttempt,
  isRetryable,
} from '../../src/transactions/retry-policy.js';

describe('which failures are repeated', () => {
  const failure = (code: string) => ({ postgres: { code } as never, isLost: false, connection: {} });

  it.each<[string, Parameters<typeof describeAttempt>[3], boolean]>([
    ['a serialization failure', failure('40001'), true],
    ['a deadlock', failure('40P01'), true],
    ['a unique violation', failure('23505'), false],
    ['a query that was cancelled', failure('57014'), false],
    ['a connection that was lost', { postgres: undefined, isLost: true, connection: {} }, false],
    ['an error of other origin', undefined, false],
  ])('%s: %p → %p', (_, ofDatabase, expected) =>
    expect(isRetryable(describeAttempt(new Error('x'), 'statement', 1, ofDatabase))).toBe(expected),
  );

  it('a function that decides is told of a connection that was lost, and of no SQLSTATE of other origin', () => {
    const foreign = Object.assign(new Error('x'), { code: '40001', severity: 'ERROR' });
    expect(describeAttempt(foreign, 'statement', 1, undefined)).toMatchObject({
      code: undefined,
      connectionLost: false,
    });
    const lost = { postgres: undefined, isLost: true, connection: {} };
    expect(describeAttempt(foreign, 'statement', 1, lost)).toMatchObject({ connectionLost: true });
  });
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
