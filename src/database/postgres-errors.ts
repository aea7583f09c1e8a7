import { ApplicationError } from '../errors/application-error.js';

// The condition names of https://www.postgresql.org/docs/current/errcodes-appendix.html
export const SERIALIZATION_FAILURE = '40001';
export const DEADLOCK_DETECTED = '40P01';
export const FOREIGN_KEY_VIOLATION = '23503';
export const UNIQUE_VIOLATION = '23505';
export const QUERY_CANCELED = '57014';
export const LOCK_NOT_AVAILABLE = '55P03';
export const IN_FAILED_SQL_TRANSACTION = '25P02';
export const IDLE_IN_TRANSACTION_SESSION_TIMEOUT = '25P03';
export const TRANSACTION_TIMEOUT = '25P04';

/** What pg parses out of an ErrorResponse message. */
export interface PostgresError extends Error {
  code: string;
  severity: string;
  detail?: string;
  constraint?: string;
  /** Context of the failure; COPY names the line here. */
  where?: string;
}

/** The database can't be reached or is going away; nothing was changed. HTTP 503, safe to send again. */
export class DatabaseUnavailableError extends ApplicationError {
  constructor(cause: unknown) {
    super(
      'The database cannot be reached; nothing was changed, try again.',
      { type: 'database-unavailable', status: 503, retryable: true, retryAfterSeconds: 1 },
      { cause },
    );
  }
}

/** No connection of the pool became free in time (`DB_ACQUIRE_TIMEOUT_MS`); nothing was changed. HTTP 503. */
export class PoolExhaustedError extends ApplicationError {
  constructor(cause: unknown) {
    super(
      'Every database connection is busy; nothing was changed, try again.',
      { type: 'pool-exhausted', status: 503, retryable: true, retryAfterSeconds: 1 },
      { cause },
    );
  }
}

/** A statement ran longer than `DB_STATEMENT_TIMEOUT_MS` and was cancelled; nothing was changed. HTTP 503. */
export class StatementTimeoutError extends ApplicationError {
  constructor(cause: unknown) {
    super(
      'The database took too long and the operation was cancelled; nothing was changed, try again.',
      { type: 'statement-timeout', status: 503, retryable: true, retryAfterSeconds: 1 },
      { cause },
    );
  }
}

/** A statement waited longer than allowed for a lock that others hold; nothing was changed. HTTP 503. */
export class LockTimeoutError extends ApplicationError {
  constructor(cause: unknown) {
    super(
      'What the operation works on is locked by others; nothing was changed, try again.',
      { type: 'lock-timeout', status: 503, retryable: true, retryAfterSeconds: 1 },
      { cause },
    );
  }
}

/** What is read of an error. By its shape, not by `instanceof`: it may come from another realm or another copy of pg. */
interface ErrorShape extends Partial<PostgresError> {
  driverError?: unknown;
}

const CAUSES_AT_MOST = 10;

/**
 * The error and the causes in it: TypeORM's `QueryFailedError` keeps pg's in `driverError`, applications wrap in `cause`,
 * and of an AggregateError the first counts.
 */
function* causesOf(error: unknown): Generator<ErrorShape> {
  for (let depth = 0; depth < CAUSES_AT_MOST && typeof error === 'object' && error !== null; depth++) {
    const shape = error as ErrorShape;
    yield shape;
    const first: unknown = error instanceof AggregateError ? error.errors[0] : undefined;
    error = shape.driverError ?? shape.cause ?? first;
  }
}

/**
 * The PostgreSQL error in a chain of causes. An error of another origin that merely has a five-character `code` is not one:
 * pg always sets `severity`. TypeORM copies pg's fields to its own error, so the innermost match is pg's.
 */
export function findPostgresError(error: unknown): PostgresError | undefined {
  const matches = [...causesOf(error)].filter(
    ({ severity, code }) => typeof severity === 'string' && /^[0-9A-Z]{5}$/.test(code ?? ''),
  );
  return matches.at(-1) as PostgresError | undefined;
}

/** True when the PostgreSQL error behind `error` has one of these SQLSTATEs. */
export function hasSqlState(error: unknown, ...codes: readonly string[]): boolean {
  const code = findPostgresError(error)?.code;
  return code !== undefined && codes.includes(code);
}

// Connection exceptions, the server shutting down or killing the session, and no slot for one more client.
const CONNECTION_SQLSTATE = /^(08...|57P0[1-5]|25P0[34]|53300)$/;
const SOCKET_CODES = new Set([
  'ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'ERR_STREAM_DESTROYED',
]); // prettier-ignore
// pg gives its own connection failures no code, only these texts (pg/lib/client.js, pg-pool/index.js).
const DRIVER_MESSAGES =
  /^(Connection terminated|Client has encountered a connection error|Client was closed and is not queryable|timeout expired)/;

/** True when the connection itself is lost or unusable: it must not return to the pool. */
export function isConnectionFailure(error: unknown): boolean {
  const postgres = findPostgresError(error);
  if (postgres) return CONNECTION_SQLSTATE.test(postgres.code);
  return isSocketFailure(error);
}

/** True when the connection was lost without an answer of the server, so what was sent last may have been done. */
export function isSocketFailure(error: unknown): boolean {
  for (const { code, message = '', name } of causesOf(error)) {
    if (SOCKET_CODES.has(code ?? '') || DRIVER_MESSAGES.test(message)) return true;
    // TypeORM released the runner when its client died.
    if (name === 'QueryRunnerAlreadyReleasedError') return true;
  }
  return false;
}

/** True when pg-pool gave up waiting for a free client (pg-pool/index.js has no code for it, only this text). */
export function isPoolTimeout(error: unknown): boolean {
  return error instanceof Error && error.message === 'timeout exceeded when trying to connect';
}

/** The typed error for what is the database's condition rather than the caller's doing; any other error as it is. */
export function toDatabaseError(error: unknown): unknown {
  if (error instanceof ApplicationError) return error;
  // TypeORM wraps whatever its client throws, also our own words for why there is none.
  const { driverError } = Object(error) as ErrorShape;
  if (driverError instanceof ApplicationError) return driverError;
  if (hasSqlState(error, QUERY_CANCELED)) return new StatementTimeoutError(error);
  if (hasSqlState(error, LOCK_NOT_AVAILABLE)) return new LockTimeoutError(error);
  if (isConnectionFailure(error)) return new DatabaseUnavailableError(error);
  return error;
}
