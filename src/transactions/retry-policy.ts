import type { DatabaseFailure } from '../database/database-failure.js';
import { DEADLOCK_DETECTED, SERIALIZATION_FAILURE } from '../database/postgres-errors.js';
import type { TransactionPhase } from './transaction-events.js';

/** The wait before another attempt, exponential from `baseMs` up to `capMs`, or a function of one's own. */
export type Backoff = ExponentialBackoff | ((attempt: number) => number);

/** A wait that doubles with each attempt, and is partly random. */
export interface ExponentialBackoff {
  /** Upper bound of the first wait, in ms. */
  baseMs: number;
  /** Upper bound of any wait, in ms. */
  capMs: number;
  /**
   * How much of a wait is random: half of it (`equal`, the default), so that the wait is never nothing, or all (`full`)
   * (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
   */
  jitter?: 'equal' | 'full';
}

/** What a `retryOn` function decides about. */
export interface TransactionFailure {
  /** What ended the attempt: the first statement that failed, or what the work threw. */
  error: unknown;
  /** Its SQLSTATE; undefined where the server gave none. */
  code: string | undefined;
  /** Where it showed. */
  phase: TransactionPhase;
  /** The attempt that failed; 1 is the first. */
  attempt: number;
  /** The connection was lost before COMMIT was sent, or COMMIT is known not to be done. */
  connectionLost: boolean;
}

/** SQLSTATEs that are repeated, or a function that says whether a failure is. */
export type RetryPolicy = readonly string[] | ((failure: TransactionFailure) => boolean);

/** Without a wait a fifth of the writers of one hot row use up ten attempts; from 25 ms on none does. */
export const DEFAULT_BACKOFF: ExponentialBackoff = { baseMs: 25, capMs: 250 };

/** "At most 10 attempts in all", the first one included. */
export const DEFAULT_MAX_ATTEMPTS = 10;

/**
 * The failures after which PostgreSQL asks for the whole unit of work to run again
 * (https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html).
 */
export const DEFAULT_RETRY_ON: readonly string[] = [SERIALIZATION_FAILURE, DEADLOCK_DETECTED];

/**
 * What an attempt's end is to a retry policy.
 *
 * @param failure that of the attempt's own connection; undefined for what the work threw, also where it comes of another unit
 *   of work, which has had its own attempts
 */
export function describeAttempt(
  error: unknown,
  phase: TransactionPhase,
  attempt: number,
  failure: DatabaseFailure | undefined,
): TransactionFailure {
  const { postgres, isLost = false } = failure ?? {};
  return { error, code: postgres?.code, phase, attempt, connectionLost: isLost };
}

/** True when the whole unit of work is to run again after this failure. */
export function isRetryable(failure: TransactionFailure, retryOn: RetryPolicy = DEFAULT_RETRY_ON): boolean {
  if (typeof retryOn === 'function') return retryOn(failure);
  return failure.code !== undefined && retryOn.includes(failure.code);
}

/** Milliseconds to wait after attempt number `attempt` (1 = the first) failed. */
export function backoffDelay(attempt: number, backoff: Backoff, random = Math.random): number {
  if (typeof backoff === 'function') return backoff(attempt);
  const { baseMs, capMs, jitter = 'equal' } = backoff;
  const bound = Math.min(capMs, baseMs * 2 ** (attempt - 1));
  return jitter === 'full' ? random() * bound : bound / 2 + (random() * bound) / 2;
}
