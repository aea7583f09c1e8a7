import { HttpException } from '@nestjs/common';
import { KafkaRetriableException } from '@nestjs/microservices';
import { type DatabaseFailure, failureOf } from '../database/database-failure.js';
import { faultOf } from '../database/faults.js';
import {
  DatabaseUnavailableError,
  PoolExhaustedError,
  toTellableError,
  READ_ONLY_SQL_TRANSACTION,
} from '../database/postgres-errors.js';
import { ApplicationError } from '../errors/application-error.js';
import { type MessageError, originalOf, toMessageError } from '../errors/error-responses.js';
import { jsonAtMost, plainText } from '../errors/plain-text.js';
import { backoffDelay } from '../transactions/retry-policy.js';
import { ShuttingDownError, TransactionOutcomeUnknownError } from '../transactions/transaction-errors.js';
import { originOf } from '../transactions/unit-failures.js';

/** Longest text of an error of our own; that of others is cut to `SHOWN_CHARACTERS`. */
const SENTENCES = 1000;
/** Longest JSON of an error reply: it is a header, which counts towards the size of the record. */
const LONGEST_REPLY = 16 * 1024;

/**
 * What a failure of a message means.
 *
 * - `infrastructure`: the connection to the database was lost or can't be had, it takes no writes, or the application stops.
 * - `transient`: the message collided with others, or the server can't do it in the state it is in. It may pass later.
 * - `permanent`: the message is at fault, and will be whenever it is handled.
 * - `unexpected`: anything else.
 */
export type FailureKind = 'infrastructure' | 'transient' | 'permanent' | 'unexpected';

/** What the failure means, whatever was thrown: where looking at it throws as well, it is unexpected. */
export function classify(thrown: unknown): FailureKind {
  try {
    return kindOf(thrown);
  } catch {
    return 'unexpected';
  }
}

function kindOf(thrown: unknown): FailureKind {
  const error = causeOf(thrown);
  // The table is not there, the disk is full: others may well be handled meanwhile. Where it takes no writes none can be.
  if (error instanceof DatabaseUnavailableError && error.sqlState !== undefined)
    return error.sqlState === READ_ONLY_SQL_TRANSACTION ? 'infrastructure' : 'transient';
  if (
    error instanceof DatabaseUnavailableError ||
    error instanceof PoolExhaustedError ||
    error instanceof ShuttingDownError
  )
    return 'infrastructure';
  // When it is tried again, its claim in the inbox tells whether it was applied.
  if (error instanceof TransactionOutcomeUnknownError) return 'transient';
  if (error instanceof KafkaRetriableException) return 'transient';
  if (error instanceof ApplicationError || error instanceof HttpException) {
    if (error instanceof ApplicationError && error.retryable) return 'transient';
    return statusOf(error) < 500 ? 'permanent' : 'unexpected';
  }
  const failure = failureOf(error);
  if (failure) return kindOfFailure(failure);
  // Of what is nobody's but the host's, its filter may say more.
  const told = isMessageError(error) ? error : originalOf(thrown);
  if (isMessageError(told)) return told.retryable ? 'transient' : 'permanent';
  return 'unexpected';
}

/** Where a handler's error comes from, whatever Nest's filters have made of it. */
export function causeOf(thrown: unknown): unknown {
  const { unit, handler = thrown } = originOf(thrown);
  return handler instanceof ApplicationError || handler instanceof KafkaRetriableException
    ? handler
    : (unit ?? originalOf(handler));
}

/** Of a statement that a handler has sent. */
function kindOfFailure({ isLost, isOutdated, postgres }: DatabaseFailure): FailureKind {
  if (isLost || !postgres) return 'infrastructure';
  if (isOutdated) return 'transient';
  const fault = faultOf(postgres);
  return fault === 'input' ? 'permanent' : fault === 'program' ? 'unexpected' : 'transient';
}

/**
 * True when a message may be to blame for such a failure although it looks like the infrastructure's: one that ends its own
 * connection does so each time. One that finds no free connection has not been handled at all.
 */
export const mayBeItsOwn = (thrown: unknown): boolean => {
  const error = causeOf(thrown);
  return !(error instanceof PoolExhaustedError || error instanceof ShuttingDownError);
};

/** The error as a dead letter has it: never throws, and cuts what is too long. */
export function describe(thrown: unknown): MessageError {
  try {
    const { code, message, ...rest } = described(thrown);
    return { ...rest, code: plainText(code), message: plainText(message, SENTENCES) };
  } catch {
    return toMessageError(undefined);
  }
}

function described(thrown: unknown): MessageError {
  const cause = toTellableError(causeOf(thrown));
  if (cause instanceof ApplicationError) return toMessageError(cause);
  if (isMessageError(thrown)) return { ...thrown, message: plainText(thrown.message) };
  const told = unboxed(thrown);
  if (told instanceof Error || typeof told !== 'object' || told === null) return toMessageError(told);
  const { code, status, message } = told as Record<string, unknown>;
  return {
    code: plainText(code ?? status ?? 'INTERNAL_ERROR'),
    message: plainText(message ?? ''),
    retryable: false,
  };
}

/**
 * The error as it is told to a sender: what Nest's filters have made of it, or, where none did, what is safe to tell. Filters
 * see an error of PostgreSQL before its transaction has ended, which makes of it something that is worth another try.
 */
export function replyErrorOf(error: unknown): unknown {
  const original = toTellableError(originalOf(error));
  const told = original instanceof Error ? toMessageError(original) : unboxed(error);
  // Without a value the reply would not be an error.
  if (told === undefined || told === null) return toMessageError(told);
  return jsonAtMost(told, LONGEST_REPLY) === undefined ? describe(told) : told;
}

/** What is no object has been thrown on as one, so that it is known where it comes from. */
const unboxed = (thrown: unknown): unknown =>
  thrown instanceof String || thrown instanceof Number || thrown instanceof Boolean
    ? thrown.valueOf()
    : thrown;

/** What `MessageErrorFilter`, or a filter that does the same, makes of an error. */
const isMessageError = (error: unknown): error is MessageError =>
  typeof error === 'object' &&
  error !== null &&
  'code' in error &&
  'retryable' in error &&
  !(error instanceof Error);

/** The wait before a message is tried again, by how often it has failed. */
export const retryDelay = (attempts: number): number =>
  backoffDelay(Math.max(1, attempts), { baseMs: 100, capMs: 30_000 });

const statusOf = (error: ApplicationError | HttpException) =>
  error instanceof HttpException ? error.getStatus() : error.status;
