import { Logger } from '@nestjs/common';
import { setTimeout as sleep } from 'node:timers/promises';
import { type DatabaseFailure, hasSqlState } from '../../database/database-failure.js';
import {
  DatabaseUnavailableError,
  IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
  toDatabaseError,
  TRANSACTION_TIMEOUT,
} from '../../database/postgres-errors.js';
import { ApplicationError } from '../../errors/application-error.js';
import { originalOf, toMessageError } from '../../errors/error-responses.js';
import { errorType, inSpan } from '../../tracing/spans.js';
import { backoffDelay, DEFAULT_BACKOFF, describeAttempt, isRetryable } from '../retry-policy.js';
import {
  AfterCommitError,
  ClaimTakenError,
  TransactionOutcomeUnknownError,
  TransactionRetriesExhaustedError,
} from '../transaction-errors.js';
import { transactionChannels, type TransactionCommit, type TransactionRetry } from '../transaction-events.js';
import type { AttemptOutcome, Unit } from './unit-of-work.js';

const logger = new Logger('Transactions');
/** How long it is tried to learn, by a repetition, what became of an attempt that may have been applied. */
const IN_DOUBT_MS = 10_000;
const ASK_EVERY_MS = 250;
/** A new connection mostly has it right; one that was made between two changes of a table does not. */
const MOST_REPAIRS = 3;
/** Prefix of the attributes of a unit's span. */
const SPAN = 'nestjs_people.transaction';

/** Runs attempts at a unit until one is committed, or none may follow. */
export function repeatUntilCommitted<T>(
  unit: Unit,
  attemptOnce: (attempt: number) => Promise<AttemptOutcome<T>>,
): Promise<T> {
  return inSpan('transaction', {}, async (span) => {
    const isRecording = span?.isRecording() === true;
    unit.isTraced = isRecording;
    const errors: unknown[] = [];
    for (;;) {
      const attempt = errors.length + 1;
      const outcome = await (isRecording
        ? inSpan('transaction attempt', {}, async (attemptSpan) => {
            const done = await attemptOnce(attempt);
            if (!done.committed)
              attemptSpan?.addEvent('exception', { 'exception.type': errorType(done.error) });
            return done;
          })
        : attemptOnce(attempt));
      if (isRecording) span.setAttributes({ [`${SPAN}.id`]: unit.id, [`${SPAN}.attempts`]: attempt });
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
  outcome: AttemptOutcome<T> & { committed: false },
  errors: readonly unknown[],
): Promise<void> {
  const { error, phase, failure: ofDatabase, lostCommit } = outcome;
  const { retryOn, backoff = DEFAULT_BACKOFF, idempotent, beforeRetry } = unit.options;
  const attempt = errors.length;
  const failure = describeAttempt(error, phase, attempt, ofDatabase);
  const event = { transactionId: unit.id, attempt, phase, code: codeOf(unit, outcome) };
  const isUnknown = error instanceof TransactionOutcomeUnknownError && phase === 'commit';
  if (isUnknown) unit.doubt ??= { error, since: performance.now() };
  if (isUnknown) transactionChannels.outcomeUnknown.publish({ ...event, xid: error.xid });
  else transactionChannels.rollback.publish(event);
  const repeats = isUnknown ? idempotent : lostCommit || isRetryable(failure, retryOn);
  const givenUp = (reason: unknown): unknown => {
    // Of what is in doubt it is told already that nobody knows whether it is rolled back.
    if (!unit.doubt) transactionChannels.failed.publish(event);
    return reason;
  };
  if (!repeats) throw givenUp(toFinalError(unit, error, errors, ofDatabase));
  if (attempt >= unit.maxAttempts) {
    if (isUnknown) throw error;
    transactionChannels.exhausted.publish(event);
    // It has met nobody: the server would not commit.
    if (lostCommit) throw new DatabaseUnavailableError(error, failure.code);
    throw new TransactionRetriesExhaustedError(unit.id, errors);
  }
  const delayMs = backoffDelay(attempt, backoff);
  const remainingMs = unit.remainingMs();
  if (remainingMs !== undefined && delayMs >= remainingMs)
    throw givenUp(unit.timeout(error, attempt, errors));
  const retry: TransactionRetry = { ...event, delayMs, error };
  transactionChannels.retry.publish(retry);
  // An application that stops finishes what it has begun, without waiting.
  await sleep(delayMs, undefined, { signal: unit.stopping }).catch(() => undefined);
  if ((await beforeRetry?.(retry)) === false)
    throw givenUp(new TransactionRetriesExhaustedError(unit.id, errors));
}

/** What events call a failure: see `TransactionRollback`. */
function codeOf<T>(
  { signal }: Unit,
  { error, phase, failure, firstFailure }: AttemptOutcome<T> & { committed: false },
): string {
  const { postgres, isLost } = failure ?? firstFailure ?? {};
  if (postgres) return postgres.code;
  const isOurs = phase === 'begin' || (signal?.aborted && error === signal.reason);
  if (isOurs && error instanceof ApplicationError) return toMessageError(error).code;
  return isLost ? 'DATABASE_UNAVAILABLE' : '';
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
  // A filter of Nest's may have described it already, when it was not known yet that nothing stays of the unit.
  const cause = originalOf(error);
  const typed = toDatabaseError(cause, failure, unit.options.readOnly ?? false);
  return typed === cause ? error : typed;
}

function publishCommit(unit: Unit, attempt: number): void {
  if (!transactionChannels.commit.hasSubscribers) return;
  const { id: transactionId, startedAt, queueWaitMs } = unit;
  const durationMs = performance.now() - startedAt;
  const commit: TransactionCommit = { transactionId, attempt, durationMs, queueWaitMs };
  transactionChannels.commit.publish(commit);
}
