import { HttpException } from '@nestjs/common';
import { KafkaRetriableException } from '@nestjs/microservices';
import {
  DatabaseUnavailableError,
  isConnectionFailure,
  PoolExhaustedError,
  toDatabaseError,
} from '../database/postgres-errors.js';
import { ApplicationError } from '../errors/application-error.js';
import { type MessageError, originalOf, toMessageError } from '../errors/error-responses.js';
import { backoffDelay } from '../transactions/retry-policy.js';
import { ShuttingDownError, TransactionOutcomeUnknownError } from '../transactions/transaction-errors.js';

/**
 * What a failure of a message means.
 *
 * - `infrastructure`: the database is away or full, or the application stops. No message can be handled; none is to blame.
 * - `transient`: the message collided with others. It may pass later.
 * - `permanent`: the message is at fault, and will be whenever it is handled.
 * - `unexpected`: anything else.
 */
export type FailureKind = 'infrastructure' | 'transient' | 'permanent' | 'unexpected';

export function classify(thrown: unknown): FailureKind {
  const error = originalOf(thrown);
  if (
    error instanceof DatabaseUnavailableError ||
    error instanceof PoolExhaustedError ||
    error instanceof ShuttingDownError ||
    isConnectionFailure(error)
  )
    return 'infrastructure';
  // Its claim tells, the next time, whether it was applied.
  if (error instanceof TransactionOutcomeUnknownError) return 'transient';
  if (error instanceof KafkaRetriableException) return 'transient';
  if (error instanceof ApplicationError || error instanceof HttpException) {
    if (error instanceof ApplicationError && error.retryable) return 'transient';
    return statusOf(error) < 500 ? 'permanent' : 'unexpected';
  }
  if (isMessageError(error)) return error.retryable ? 'transient' : 'permanent';
  return 'unexpected';
}

/** The error in a dead letter. */
export function describe(error: unknown): MessageError {
  if (isMessageError(error)) return error;
  if (error instanceof Error || typeof error !== 'object' || error === null) return toMessageError(error);
  const { code, status, message } = error as Record<string, unknown>;
  const text = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value ?? ''));
  return { code: text(code ?? status ?? 'INTERNAL_ERROR'), message: text(message), retryable: false };
}

/**
 * The error as it is told to a sender: what Nest's filters have made of it, or, where none did, what is safe to tell. Filters
 * see an error of PostgreSQL before its transaction has ended, which makes of it something that is worth another try.
 */
export function replyErrorOf(error: unknown): unknown {
  const original = toDatabaseError(originalOf(error));
  return original instanceof Error ? toMessageError(original) : error;
}

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
