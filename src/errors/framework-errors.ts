import { HttpException } from '@nestjs/common';
import { STATUS_CODES } from 'node:http';
import { ApplicationError } from './application-error.js';

/** By this @fastify/error knows its own errors, whichever copy of it made them. */
const OF_FASTIFY = Symbol.for('fastify-error-generic');

/**
 * What Fastify, or Express' parsers, have refused of a request (its type, its length), as Nest's own exception. From version 12 on
 * Nest's adapters do this before a filter is asked, version 11 leaves it to the filter. Their 5xx are faults of the server and stay
 * what they are.
 */
export function asHttpException(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof ApplicationError) return error;
  const { status, statusCode, expose } = error as Error & Record<'status' | 'statusCode' | 'expose', unknown>;
  if (typeof statusCode !== 'number' || statusCode < 400 || statusCode >= 500) return error;
  // As Nest 12 knows those of http-errors.
  const isOfParser = status === statusCode && typeof expose === 'boolean';
  if (!isOfParser && !(OF_FASTIFY in error)) return error;
  const text = expose === false ? STATUS_CODES[statusCode]! : error.message;
  return new HttpException(text, statusCode, { cause: error });
}
