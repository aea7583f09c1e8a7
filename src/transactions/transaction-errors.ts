import { findPostgresError } from '../database/postgres-errors.js';
import { ApplicationError, type ErrorDescription } from '../errors/application-error.js';

/** Base of what can become of a unit of work besides success and the work's own error. */
export abstract class TransactionError extends ApplicationError {
  /** SQLSTATE of the failure behind it, where the server gave one. */
  readonly code: string | undefined;
  /** Identifies the unit of work in logs, across its attempts. */
  readonly transactionId: string;
  /** How often the work was started. */
  readonly attempts: number;

  constructor(
    message: string,
    description: ErrorDescription,
    unit: { transactionId: string; attempts: number; cause: unknown },
  ) {
    super(message, description, { cause: unit.cause });
    this.code = findPostgresError(unit.cause)?.code;
    this.transactionId = unit.transactionId;
    this.attempts = unit.attempts;
  }
}

/**
 * Every attempt met a conflict; nothing was changed. `cause` is the last failure, `failures` all of them in order.
 * HTTP 503 with `Retry-After`; safe to send again.
 */
export class TransactionRetriesExhaustedError extends TransactionError {
  constructor(
    transactionId: string,
    readonly failures: readonly unknown[],
  ) {
    super(
      `The operation collided with others in each of its ${failures.length} attempts; nothing was changed, try again.`,
      { type: 'transaction-retries-exhausted', status: 503, retryable: true, retryAfterSeconds: 1 },
      { transactionId, attempts: failures.length, cause: failures.at(-1) },
    );
  }
}

/**
 * The connection was lost while the server was asked to commit: the unit of work may or may not have been applied.
 * Look before doing it again. HTTP 500, never retried.
 */
export class TransactionOutcomeUnknownError extends TransactionError {
  constructor(transactionId: string, attempts: number, cause: unknown) {
    super(
      'The connection to the database was lost during the commit: whether the operation was applied is unknown.',
      { type: 'transaction-outcome-unknown', status: 500 },
      { transactionId, attempts, cause },
    );
  }
}

/**
 * The server answered COMMIT with ROLLBACK: a statement had failed and the work went on without telling. Nothing was
 * changed. HTTP 500; the work must not swallow the errors of its statements.
 */
export class TransactionRolledBackError extends TransactionError {
  constructor(transactionId: string, attempts: number, cause: unknown) {
    super(
      'The operation was rolled back because one of its statements had failed; nothing was changed.',
      { type: 'transaction-rolled-back', status: 500 },
      { transactionId, attempts, cause },
    );
  }
}

/**
 * The unit of work is committed, but a TypeORM subscriber of `afterTransactionCommit` failed. HTTP 500; doing it again
 * would do it twice.
 */
export class AfterCommitError extends TransactionError {
  readonly committed = true;

  constructor(transactionId: string, attempts: number, cause: unknown) {
    super(
      'The operation was applied, but something that follows it failed; do not repeat it.',
      { type: 'after-commit-failed', status: 500 },
      { transactionId, attempts, cause },
    );
  }
}
