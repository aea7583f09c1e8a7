import { ApplicationError, unchanged } from '../errors/application-error.js';
import { type DatabaseFailure, failureOf, type PostgresError } from './database-failure.js';
import { faultOf, isUniqueness, refusalOf } from './faults.js';

// The condition names of https://www.postgresql.org/docs/current/errcodes-appendix.html
export const FEATURE_NOT_SUPPORTED = '0A000';
export const NUMERIC_VALUE_OUT_OF_RANGE = '22003';
export const INVALID_TEXT_REPRESENTATION = '22P02';
export const UNTRANSLATABLE_CHARACTER = '22P05';
export const INVALID_COLUMN_REFERENCE = '42P10';
export const UNDEFINED_COLUMN = '42703';
export const UNDEFINED_FUNCTION = '42883';
export const UNDEFINED_OBJECT = '42704';
export const UNDEFINED_TABLE = '42P01';
export const SERIALIZATION_FAILURE = '40001';
export const DEADLOCK_DETECTED = '40P01';
export const FOREIGN_KEY_VIOLATION = '23503';
export const UNIQUE_VIOLATION = '23505';
export const READ_ONLY_SQL_TRANSACTION = '25006';
export const TOO_MANY_CONNECTIONS = '53300';
export const QUERY_CANCELED = '57014';
export const LOCK_NOT_AVAILABLE = '55P03';
export const ACTIVE_SQL_TRANSACTION = '25001';
export const INVALID_TRANSACTION_TERMINATION = '2D000';
export const IN_FAILED_SQL_TRANSACTION = '25P02';
export const IDLE_IN_TRANSACTION_SESSION_TIMEOUT = '25P03';
export const TRANSACTION_TIMEOUT = '25P04';

/**
 * The database can't be reached, the connection was lost before anything could be committed, or the server can't do it in
 * the state it is in (`sqlState` says which: a full disk, no writes, a table that is not there). HTTP 503, safe to send again.
 */
export class DatabaseUnavailableError extends ApplicationError {
  constructor(
    cause: unknown,
    /** What the server said that it can't do now; undefined where it can't be reached. */
    readonly sqlState?: string,
  ) {
    const what =
      sqlState === undefined
        ? 'The database cannot be reached'
        : `The database cannot do this at the moment (${sqlState})`;
    super(
      unchanged(what, 'try again'),
      { type: 'database-unavailable', status: 503, retryable: true, retryAfterSeconds: 1 },
      { cause },
    );
  }
}

/** No connection of the pool became free in time (`DB_ACQUIRE_TIMEOUT_MS`). HTTP 503. */
export class PoolExhaustedError extends ApplicationError {
  constructor(cause: unknown) {
    super(
      unchanged('Every database connection is busy', 'try again'),
      { type: 'pool-exhausted', status: 503, retryable: true, retryAfterSeconds: 1 },
      { cause },
    );
  }
}

/** A statement ran longer than `DB_STATEMENT_TIMEOUT_MS`, and was cancelled and rolled back. HTTP 503. */
export class StatementTimeoutError extends ApplicationError {
  constructor(cause: unknown) {
    super(
      unchanged('The database took too long and the operation was cancelled', 'try again'),
      { type: 'statement-timeout', status: 503, retryable: true, retryAfterSeconds: 1 },
      { cause },
    );
  }
}

/** A statement waited longer than allowed for a lock that others hold, and was rolled back. HTTP 503. */
export class LockTimeoutError extends ApplicationError {
  constructor(cause: unknown) {
    super(
      unchanged('What the operation works on is locked by others', 'try again'),
      { type: 'lock-timeout', status: 503, retryable: true, retryAfterSeconds: 1 },
      { cause },
    );
  }
}

/**
 * The database refuses what it was given, and will again: its types, a constraint, a trigger, row security. Names the
 * constraint or column, and no value. HTTP 400, and 409 for what exists already.
 */
export class DatabaseRefusedError extends ApplicationError {
  constructor(cause: PostgresError) {
    super(
      `Refused by ${refusalOf(cause)} of the database.`,
      { type: 'database-refused', status: isUniqueness(cause) ? 409 : 400 },
      { cause },
    );
  }
}

/**
 * The typed error for what is the database's condition rather than the caller's doing; any other error as it is.
 *
 * @param error what ended a unit of work that is rolled back
 * @param failure the failure of the unit's own connection that it is: of another one it is not known what it has changed
 * @param readOnly true: the unit was not to write, so that a server which takes no writes is not to blame
 */
export function toDatabaseError(
  error: unknown,
  failure: DatabaseFailure | undefined,
  readOnly: boolean,
): unknown {
  const own = ownWords(error);
  if (own) return own;
  if (!failure) return error;
  const { postgres, isLost, isOutdated } = failure;
  if (isLost || !postgres) return new DatabaseUnavailableError(error);
  const { code } = postgres;
  if (code === QUERY_CANCELED) return new StatementTimeoutError(error);
  if (code === LOCK_NOT_AVAILABLE) return new LockTimeoutError(error);
  if (code === READ_ONLY_SQL_TRANSACTION && readOnly) return error;
  return isOutdated || faultOf(postgres) === 'server' ? new DatabaseUnavailableError(error, code) : error;
}

/** An error that says something of itself, where it may: also what the database refuses. */
export function toTellableError(error: unknown): unknown {
  const own = ownWords(error);
  if (own) return own;
  const { postgres, isLost } = failureOf(error) ?? {};
  return postgres && !isLost && faultOf(postgres) === 'input' ? new DatabaseRefusedError(postgres) : error;
}

/** TypeORM wraps whatever its client throws, also our own words for why there is none. */
function ownWords(error: unknown): ApplicationError | undefined {
  const { driverError } = Object(error) as { driverError?: unknown };
  return [error, driverError].find((each) => each instanceof ApplicationError);
}
