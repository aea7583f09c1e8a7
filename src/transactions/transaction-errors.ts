import { failureOf } from '../database/database-failure.js';
import { ApplicationError, type ErrorDescription, unchanged } from '../errors/application-error.js';

/** Which unit of work failed, and how. */
export interface FailedUnit {
  /** Identifies the unit of work in logs, across its attempts. */
  transactionId: string;
  /** How often the work was started. */
  attempts: number;
  cause: unknown;
  /** What ended each attempt, in order; left out, `cause` alone. */
  errors?: readonly unknown[];
}

/** Base of what can become of a unit of work besides success and the work's own error. */
export abstract class TransactionError extends ApplicationError {
  /** SQLSTATE of the failure behind it, where the server gave one. */
  readonly code: string | undefined;
  /** Identifies the unit of work in logs, across its attempts. */
  readonly transactionId: string;
  /** How often the work was started. */
  readonly attempts: number;
  /** What ended each attempt, in order. For the log: it may hold SQL and data. */
  readonly errors: readonly unknown[];

  constructor(message: string, description: ErrorDescription, unit: FailedUnit) {
    super(message, description, { cause: unit.cause });
    this.code = failureOf(unit.cause)?.postgres?.code;
    this.transactionId = unit.transactionId;
    this.attempts = unit.attempts;
    this.errors = unit.errors ?? (unit.cause === undefined ? [] : [unit.cause]);
  }
}

/**
 * Every attempt met a conflict, and was rolled back. `cause` is the last failure, `errors` all of them in order.
 * HTTP 503 with `Retry-After`; safe to send again.
 */
export class TransactionRetriesExhaustedError extends TransactionError {
  constructor(transactionId: string, errors: readonly unknown[]) {
    const times = errors.length === 1 ? 'its only attempt' : `each of its ${errors.length} attempts`;
    super(
      unchanged(`The operation collided with others in ${times}`, 'try again'),
      { type: 'transaction-retries-exhausted', status: 503, retryable: true, retryAfterSeconds: 1 },
      { transactionId, attempts: errors.length, cause: errors.at(-1), errors },
    );
  }
}

/**
 * The connection was lost while the server was asked to commit, and the server could not tell afterwards what became of
 * it: the unit of work may or may not have been applied. Look before doing it again. HTTP 500, never retried, except with
 * the option `idempotent`.
 */
export class TransactionOutcomeUnknownError extends TransactionError {
  /** PostgreSQL's id of the transaction (`xid8`), where it is known: `SELECT pg_xact_status('<xid>')` may tell later. */
  readonly xid: string | undefined;

  constructor({ xid, ...unit }: FailedUnit & { xid?: string | undefined }) {
    super(
      'The connection to the database was lost during the commit: whether the operation was applied is unknown.',
      { type: 'transaction-outcome-unknown', status: 500 },
      unit,
    );
    this.xid = xid;
  }
}

/**
 * A statement had failed and the work went on without telling, so the transaction could only be rolled back, and was.
 * `cause` is the first statement's failure. HTTP 500; the work must not swallow the errors of its statements, or
 * must run those that may fail in a unit of work with `propagation: 'NESTED'`.
 */
export class TransactionRolledBackError extends TransactionError {
  constructor(unit: FailedUnit) {
    super(
      unchanged('The operation was rolled back because one of its statements had failed'),
      { type: 'transaction-rolled-back', status: 500 },
      unit,
    );
  }
}

/**
 * The unit of work was not finished within `timeoutMs`, or was idle for longer than `idleInTransactionTimeoutMs`, and was
 * rolled back. `cause` is what it was doing, where that is known. HTTP 503; safe to send again.
 */
export class TransactionTimeoutError extends TransactionError {
  constructor(unit: FailedUnit) {
    super(
      unchanged('The operation took too long and was given up', 'try again'),
      { type: 'transaction-timeout', status: 503, retryable: true, retryAfterSeconds: 1 },
      unit,
    );
  }
}

/**
 * The unit of work is committed, but something that follows it failed: an `afterCommit` callback, or a TypeORM subscriber
 * of `afterTransactionCommit`. HTTP 500; doing it again would do it twice.
 */
export class AfterCommitError extends TransactionError {
  /** Always true: what was asked for is done. */
  readonly committed = true;

  constructor(
    unit: FailedUnit,
    /** What the unit of work returned. */
    readonly result: unknown,
  ) {
    super(
      'The operation was applied, but something that follows it failed; do not repeat it.',
      { type: 'after-commit-failed', status: 500 },
      unit,
    );
  }
}

/** Too many units of work of one `conflictKey` wait for each other already; this one was not begun. HTTP 503. */
export class ConflictQueueFullError extends ApplicationError {
  constructor() {
    super(unchanged('Too many operations on the same thing are waiting', 'try again'), {
      type: 'conflict-queue-full',
      status: 503,
      retryable: true,
      retryAfterSeconds: 1,
    });
  }
}

/**
 * Who has the `conflictKey` waits for a unit of work around this one, so both would wait for ever: of two units of work that
 * take two keys crosswise, one is refused. Not begun. HTTP 503; take keys in one order.
 */
export class ConflictKeyDeadlockError extends ApplicationError {
  constructor() {
    super(unchanged('The operation and another one wait for each other', 'try again'), {
      type: 'conflict-key-deadlock',
      status: 503,
      retryable: true,
      retryAfterSeconds: 1,
    });
  }
}

/** The application is stopping and begins no unit of work any more. HTTP 503. */
export class ShuttingDownError extends ApplicationError {
  constructor() {
    super(unchanged('The application is stopping', 'send it to another instance'), {
      type: 'shutting-down',
      status: 503,
      retryable: true,
      retryAfterSeconds: 1,
    });
  }
}

/**
 * The unit of work was run with a claim, an INSERT that travels ahead of its first statement, and the row is there already:
 * another unit of work has done the same. This one is without effect. For whoever made the claim, who knows what was done.
 */
export class ClaimTakenError extends Error {
  /** Always `ClaimTakenError`. */
  override readonly name = 'ClaimTakenError';
  /** Set where an earlier attempt of the same unit may be the one that has the claim. */
  doubt: TransactionOutcomeUnknownError | undefined;
}

/** Transactions are used in a way that can't be right. A mistake of the program: the message is for its author. */
export class TransactionUsageError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}
