// transactions/unit/: One unit of work from its first attempt to its last: the outcome of its COMMIT, waiting for others of its key.
// Promises: each attempt has a connection and context of its own; the outcome of a COMMIT is known, or told as unknown.
// May know: session/, database/, and the options and errors of transactions/; nothing of Nest's handlers.

import { randomUUID } from 'node:crypto';
import type { DatabaseFailure } from '../../database/database-failure.js';
import { toMessageError } from '../../errors/error-responses.js';
import { DEFAULT_MAX_ATTEMPTS } from '../retry-policy.js';
import { type TransactionOutcomeUnknownError, TransactionTimeoutError } from '../transaction-errors.js';
import {
  type TransactionBegin,
  transactionChannels,
  type TransactionFailed,
  type TransactionPhase,
} from '../transaction-events.js';
import type { UnitOptions } from '../transaction-options.js';

/** What became of one attempt. */
export type AttemptOutcome<T> =
  | { committed: true; value: T; afterCommit?: () => Promise<unknown[]> }
  | {
      committed: false;
      error: unknown;
      phase: TransactionPhase;
      /** How the attempt's own connection failed; undefined where the work threw without that. */
      failure?: DatabaseFailure | undefined;
      /** The statement that failed first, for whoever is told: the work may have made something else of it. */
      firstFailure?: DatabaseFailure | undefined;
      /** True when COMMIT was lost and the server says that it was not done: repeated whatever the failure. */
      lostCommit?: boolean;
      afterRollback?: () => Promise<unknown[]>;
    };

/** One unit of work, from the first attempt to the last. */
export class Unit {
  readonly maxAttempts: number;
  /** Aborted when the budget is over; undefined without a budget. */
  readonly signal: AbortSignal | undefined;
  /** The first attempt whose COMMIT got no answer: it may be applied, so the unit may not be reported as rolled back any more. */
  doubt: { error: TransactionOutcomeUnknownError; since: number } | undefined;
  queueWaitMs = 0;
  /** Its statements have spans. */
  isTraced = false;
  /** How often it has run again because a connection was not what the client believed. */
  repairs = 0;
  readonly startedAt = performance.now();
  private name: string | undefined;
  private readonly budget: NodeJS.Timeout | undefined;

  constructor(
    readonly options: UnitOptions,
    /** Aborted when the application stops: nobody waits between attempts any more. */
    readonly stopping: AbortSignal,
  ) {
    if (options.doubt) this.doubt = { error: options.doubt, since: this.startedAt };
    this.maxAttempts = options.maxAttempts ?? DEFAULT_MAX_ATTEMPTS;
    const { timeoutMs } = options;
    if (timeoutMs === undefined) return;
    const controller = new AbortController();
    this.signal = controller.signal;
    this.budget = setTimeout(() => controller.abort(this.timeout(undefined, 0)), timeoutMs);
  }

  /** Made when something first has to name the unit; most single statements never do. */
  get id(): string {
    return (this.name ??= randomUUID());
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

/** Says that an attempt has its connection. @param poolWaitMs how long it waited for it */
export function publishBegin(unit: Unit, attempt: number, poolWaitMs: number): void {
  if (!transactionChannels.begin.hasSubscribers) return;
  const begin: TransactionBegin = { transactionId: unit.id, attempt, poolWaitMs };
  transactionChannels.begin.publish(begin);
}

/** Says that a unit did not have the turn of its key, so that nothing of it was begun. */
export function publishNotBegun(unit: Unit, error: unknown): void {
  const failed: TransactionFailed = {
    ...{ transactionId: unit.id, attempt: 0, phase: 'begin' },
    code: toMessageError(error).code,
  };
  transactionChannels.failed.publish(failed);
}
