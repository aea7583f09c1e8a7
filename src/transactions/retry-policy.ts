import { DEADLOCK_DETECTED, findPostgresError, SERIALIZATION_FAILURE } from '../database/postgres-errors.js';
import { AfterCommitError } from './transaction-errors.js';

/**
 * How long to wait before another attempt: exponential from `baseMs` up to `capMs`, half of it fixed and half random
 * ("equal jitter", https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
 */
export interface Backoff {
  /** Upper bound of the first wait, in ms. */
  baseMs: number;
  /** Upper bound of any wait, in ms. */
  capMs: number;
}

/** Without a wait a fifth of the writers of one hot row use up ten attempts; from 25 ms on none does. */
export const DEFAULT_BACKOFF: Backoff = { baseMs: 25, capMs: 250 };

/** "At most 10 attempts in all", the first one included. */
export const DEFAULT_MAX_ATTEMPTS = 10;

/**
 * True when PostgreSQL asks for the whole unit of work to run again
 * (https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html).
 */
export function isRetryable(error: unknown): boolean {
  if (error instanceof AfterCommitError) return false;
  const code = findPostgresError(error)?.code;
  return code === SERIALIZATION_FAILURE || code === DEADLOCK_DETECTED;
}

/** Milliseconds to wait after attempt number `attempt` (1 = the first) failed. */
export function backoffDelay(attempt: number, { baseMs, capMs }: Backoff, random = Math.random): number {
  const bound = Math.min(capMs, baseMs * 2 ** (attempt - 1));
  return bound / 2 + (random() * bound) / 2;
}
