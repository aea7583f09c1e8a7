// transactions/unit/: One unit of work from its first attempt to its last: session, COMMIT, its outcome, waiting for others of
// its key.
// Promises: each attempt has a connection and context of its own; the outcome of a COMMIT is known, or told as unknown.
// May know: database/, and the options and errors of transactions/; nothing of Nest's handlers.

import { Logger } from '@nestjs/common';
import { setTimeout as sleep } from 'node:timers/promises';
import { v7 as uuidv7 } from 'uuid';
import { type DatabaseFailure, hasSqlState } from '../../database/database-failure.js';
import {
  DatabaseUnavailableError,
  IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
  toDatabaseError,
  TRANSACTION_TIMEOUT,
} from '../../database/postgres-errors.js';
import {
  backoffDelay,
  DEFAULT_BACKOFF,
  DEFAULT_MAX_ATTEMPTS,
  describeAttempt,
  isRetryable,
} from '../retry-policy.js';
import { transactionChannels, type TransactionPhase, type TransactionRetry } from '../transaction-events.js';
import {
  AfterCommitError,
  ClaimTakenError,
  TransactionOutcomeUnknownError,
  TransactionRetriesExhaustedError,
  TransactionTimeoutError,
} from '../transaction-errors.js';
import type { Companion } from '../../database/statement-flight.js';
import type { TransactionOptions } from '../transaction-options.js';
import { inSpan } from './tracing.js';

const logger = new Logger('Transactions');
/** How long it is tried to learn, by a repetition, what became of an attempt that may have been applied. */
const IN_DOUBT_MS = 10_000;
const ASK_EVERY_MS = 250;
/** A new connection mostly has it right; one that was made between two changes of a table does not. */
const MOST_REPAIRS = 3;
/** Prefix of the attributes of a unit's span. */
const SPAN = 'nestjs_people.transaction';

/** What became of one attempt. */
export type AttemptOutcome<T> =
  | { committed: true; value: T; afterCommit?: () => Promise<unknown[]> }
  | {
      committed: false;
      error: unknown;
      phase: TransactionPhase;
      /** How the attempt's own connection failed; undefined where the work threw without that. */
      failure?: DatabaseFailure | undefined;
      /** True when COMMIT was lost and the server says that it was not done: repeated whatever the failure. */
      lostCommit?: boolean;
      afterRollback?: () => Promise<unknown[]>;
    };

/** One unit of work, from the first attempt to the last. */
export class Unit {
  readonly maxAttempts: number;
  /** Aborted when the budget is over; undefined without a budget. */
  readonly signal: AbortSignal | undefined;
  /** The first attempt that may have been applied without an answer: from here on nobody may be told that none was. */
  doubt: { error: TransactionOutcomeUnknownError; since: number } | undefined;
  queueWaitMs = 0;
  /** How often it has run again because a connection was not what the client believed. */
  repairs = 0;
  readonly startedAt = performance.now();
  private name: string | undefined;
  private readonly budget: NodeJS.Timeout | undefined;

  constructor(
    readonly options: TransactionOptions,
    /** Aborted when the application stops: nobody waits between attempts any more. */
    readonly stopping: AbortSignal,
    /** See `ClaimTakenError`. */
    readonly claim?: Companion,
  ) {
    this.maxAttempts = options.maxAttempts ?? DEFAULT_MAX_ATTEMPTS;
    const { timeoutMs } = options;
    if (timeoutMs === undefined) return;
    const controller = new AbortController();
    this.signal = controller.signal;
    this.budget = setTimeout(() => controller.abort(this.timeout(undefined, 0)), timeoutMs);
  }

  /** Made when something first has to name the unit; most single statements never do. */
  get id(): string {
    return (this.name ??= uuidv7());
  }

  /** Ms left of the budget; undefined without one. */
  remainingMs(): number | undefined {
    const { timeoutMs } = this.options;
    return timeoutMs === undefined ? undefined : timeoutMs - (performance.now() - this.startedAt);
  }

  timeout(cause: unknown, attempts: number, errors?: readonly unknown[]): TransactionTimeoutError {
    return new TransactionTimeoutError({
      transactionId: this.id,
      attempts,
      cause,
      ...(errors && { errors }),
    });
  }

  end(): void {
    clearTimeout(this.budget);
  }
}

/** Runs attempts at a unit until one is committed, or none may follow. */
export function repeatUntilCommitted<T>(
  unit: Unit,
  attemptOnce: (attempt: number) => Promise<AttemptOutcome<T>>,
): Promise<T> {
  return inSpan('transaction', async (span) => {
    const errors: unknown[] = [];
    for (;;) {
      const attempt = errors.length + 1;
      const outcome = await inSpan('transaction attempt', async (attemptSpan) => {
        const done = await attemptOnce(attempt);
        if (!done.committed) attemptSpan.recordException(done.error as Error);
        return done;
      });
      if (span.isRecording()) span.setAttributes({ [`${SPAN}.id`]: unit.id, [`${SPAN}.attempts`]: attempt });
      if (outcome.committed) return finish(unit, attempt, outcome);
      if (await asksAgain(unit, outcome)) continue;
      if (runsAgainAtOnce(unit, outcome)) continue;
      errors.push(outcome.error);
      try {
        await waitForNext(unit, outcome, errors);
      } catch (error) {
        if (unit.doubt) throw stillInDoubt(unit, error, errors);
        await tellRolledBack(unit, outcome);
        throw error;
      }
    }
  });
}

async function finish<T>(
  unit: Unit,
  attempt: number,
  outcome: AttemptOutcome<T> & { committed: true },
): Promise<T> {
  publishCommit(unit, attempt);
  const errors = (await outcome.afterCommit?.()) ?? [];
  if (errors.length === 0) return outcome.value;
  const cause =
    errors.length === 1 ? errors[0] : new AggregateError(errors, `${errors.length} callbacks failed.`);
  throw new AfterCommitError({ transactionId: unit.id, attempts: attempt, cause, errors }, outcome.value);
}

/**
 * An attempt that may have been applied is repeated where that is harmless, and its repetition tells. While the database can't
 * be reached that is no attempt: it is waited for, for a while.
 */
async function asksAgain<T>(
  { doubt, options, stopping, signal }: Unit,
  { phase }: AttemptOutcome<T> & { committed: false },
): Promise<boolean> {
  if (!doubt || !options.idempotent || phase !== 'begin' || stopping.aborted || signal?.aborted) return false;
  if (performance.now() - doubt.since > IN_DOUBT_MS) return false;
  await sleep(ASK_EVERY_MS, undefined, { signal: stopping }).catch(() => undefined);
  return true;
}

/**
 * What failed because its connection has not prepared what the client believes was not done, and is no attempt: that connection
 * is closed, and others have it right. Work that may run only once is not run again.
 */
function runsAgainAtOnce<T>(unit: Unit, { failure }: AttemptOutcome<T> & { committed: false }): boolean {
  if (!failure?.isOutdated || failure.isLost) return false;
  return unit.maxAttempts > 1 && unit.repairs++ < MOST_REPAIRS;
}

/** An earlier attempt may have been applied, whatever ended the last. But a claim that is taken proves what became of it. */
function stillInDoubt({ id, doubt }: Unit, error: unknown, errors: readonly unknown[]): unknown {
  if (error instanceof TransactionOutcomeUnknownError) return error;
  if (error instanceof ClaimTakenError) return Object.assign(error, { doubt: doubt!.error });
  const { xid } = doubt!.error;
  return new TransactionOutcomeUnknownError({
    ...{ transactionId: id, attempts: errors.length, cause: error, errors, xid },
  });
}

/** The unit's own failure is what the caller has to know, so that of a callback goes to the log. */
async function tellRolledBack<T>(
  unit: Unit,
  outcome: AttemptOutcome<T> & { committed: false },
): Promise<void> {
  for (const err of (await outcome.afterRollback?.()) ?? [])
    logger.error({ msg: 'An afterRollback callback failed', transactionId: unit.id, err });
}

/** Waits until the next attempt is due. @throws what the caller gets when there is none */
async function waitForNext<T>(
  unit: Unit,
  { error, phase, failure: ofDatabase, lostCommit }: AttemptOutcome<T> & { committed: false },
  errors: readonly unknown[],
): Promise<void> {
  const { retryOn, backoff = DEFAULT_BACKOFF, idempotent, beforeRetry } = unit.options;
  const attempt = errors.length;
  const failure = describeAttempt(error, phase, attempt, ofDatabase);
  const event = { transactionId: unit.id, attempt, phase, code: failure.code ?? '' };
  const isUnknown = error instanceof TransactionOutcomeUnknownError && phase === 'commit';
  if (isUnknown) unit.doubt ??= { error, since: performance.now() };
  if (isUnknown) transactionChannels.outcomeUnknown.publish({ ...event, xid: error.xid });
  else transactionChannels.rollback.publish(event);
  const repeats = isUnknown ? idempotent : lostCommit || isRetryable(failure, retryOn);
  if (!repeats) throw toFinalError(unit, error, errors, ofDatabase);
  if (attempt >= unit.maxAttempts) {
    if (isUnknown) throw error;
    transactionChannels.exhausted.publish(event);
    // It has met nobody: the server would not commit.
    if (lostCommit) throw new DatabaseUnavailableError(error, failure.code);
    throw new TransactionRetriesExhaustedError(unit.id, errors);
  }
  const delayMs = backoffDelay(attempt, backoff);
  const remainingMs = unit.remainingMs();
  if (remainingMs !== undefined && delayMs >= remainingMs) throw unit.timeout(error, attempt, errors);
  const retry: TransactionRetry = { ...event, delayMs, error };
  transactionChannels.retry.publish(retry);
  // An application that stops finishes what it has begun, without waiting.
  await sleep(delayMs, undefined, { signal: unit.stopping }).catch(() => undefined);
  if ((await beforeRetry?.(retry)) === false) throw new TransactionRetriesExhaustedError(unit.id, errors);
}

function toFinalError(
  unit: Unit,
  error: unknown,
  errors: readonly unknown[],
  failure: DatabaseFailure | undefined,
): unknown {
  if (hasSqlState(error, IDLE_IN_TRANSACTION_SESSION_TIMEOUT, TRANSACTION_TIMEOUT))
    return unit.timeout(error, errors.length, errors);
  if (unit.signal?.aborted && !(error instanceof TransactionOutcomeUnknownError)) {
    const cause = error === unit.signal.reason ? errors.at(-2) : error;
    return unit.timeout(cause, errors.length, errors);
  }
  return toDatabaseError(error, failure, unit.options.readOnly ?? false);
}

/** Says that an attempt has its connection. @param poolWaitMs how long it waited for it */
export function publishBegin(unit: Unit, attempt: number, poolWaitMs: number): void {
  if (!transactionChannels.begin.hasSubscribers) return;
  transactionChannels.begin.publish({ transactionId: unit.id, attempt, poolWaitMs });
}

function publishCommit(unit: Unit, attempt: number): void {
  if (!transactionChannels.commit.hasSubscribers) return;
  const durationMs = performance.now() - unit.startedAt;
  const { id: transactionId, queueWaitMs } = unit;
  transactionChannels.commit.publish({ transactionId, attempt, durationMs, queueWaitMs });
}
