// errors/: How a failure looks from outside, at every door.
// Promises: one mapping to problem details and to error replies; no SQL, no values, no text of more than 200 characters from
// outside.
// May know: nothing else of src.

import {
  type ArgumentsHost,
  Catch,
  type ExceptionFilter,
  HttpException,
  Logger,
  type RpcExceptionFilter,
} from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import { type Observable, throwError } from 'rxjs';
import { STATUS_CODES } from 'node:http';
import { ApplicationError, type FieldError } from './application-error.js';
import { FailureLog } from './failure-log.js';
import { asHttpException } from './framework-errors.js';
import { isExpected } from './expected-errors.js';
import { PROBLEMS_AT_MOST, shown, TEXT_CHARACTERS } from './shown.js';

/** How a failure looks from outside, whichever door it leaves by. */
export interface Failure {
  /** Stable name in kebab case, the last part of the problem's `type`. */
  type: string;
  /** The same for people to read. */
  title: string;
  /** The HTTP status. */
  status: number;
  /** What happened and what to do, as a sentence without anything secret. */
  detail: string;
  /** True when the same may succeed later and doing it again is safe. */
  retryable: boolean;
  /** Seconds after which to try again. */
  retryAfterSeconds?: number | undefined;
  /** The fields that were refused. */
  errors?: readonly FieldError[] | undefined;
}

/** The error reply of a message handler, as `ClientKafka` receives it. */
export interface MessageError {
  /** The `type` in upper case with underscores: `PERSON_NOT_FOUND`. */
  code: string;
  /** What happened and what to do. */
  message: string;
  /** True when the same message may succeed later and sending it again is safe. */
  retryable: boolean;
  /** The fields that were refused. */
  errors?: readonly FieldError[];
}

const kebab = (text: string) => text.toLowerCase().replace(/[^a-z0-9]+/g, '-');
const titleOf = (type: string) => type.charAt(0).toUpperCase() + type.slice(1).replaceAll('-', ' ');

/**
 * The one table from error to answer. An error that is neither ours nor Nest's is a 500 that says nothing about itself:
 * its text may hold SQL, paths or data.
 */
export function describeFailure(error: unknown): Failure {
  if (error instanceof ApplicationError) {
    const { type, status, retryable, retryAfterSeconds, fields: errors } = error;
    const detail = shown(error.message, TEXT_CHARACTERS);
    return { type, title: titleOf(type), status, detail, retryable, retryAfterSeconds, errors };
  }
  if (error instanceof HttpException) {
    const status = error.getStatus();
    const title = STATUS_CODES[status] ?? 'Error';
    return { type: kebab(title), title, status, detail: httpDetail(error, title), retryable: status === 503 };
  }
  return {
    type: 'internal-error',
    title: 'Internal error',
    status: 500,
    detail: 'An unexpected error; the log tells more.',
    retryable: false,
  };
}

function httpDetail(error: HttpException, title: string): string {
  const body = error.getResponse();
  const message: unknown = typeof body === 'string' ? body : (body as { message?: unknown }).message;
  if (error.getStatus() >= 500 && typeof message !== 'string') return title;
  if (!Array.isArray(message)) return typeof message === 'string' ? message : title;
  const texts = message.slice(0, PROBLEMS_AT_MOST).map((text) => shown(String(text)));
  const more = message.length - texts.length;
  return `${texts.join('; ')}${more > 0 ? `; and ${more} more` : ''}`;
}

const originals = new WeakMap<object, unknown>();

/** The error that `toMessageError` has described, for those who have to know more than the sender; else `error` itself. */
export function originalOf(error: unknown): unknown {
  return typeof error === 'object' && error !== null && originals.has(error) ? originals.get(error) : error;
}

/** The body of an error message reply. */
export function toMessageError(error: unknown): MessageError {
  const { type, detail, retryable, errors } = describeFailure(error);
  const described = {
    code: type.toUpperCase().replaceAll('-', '_'),
    message: shown(detail, TEXT_CHARACTERS),
    retryable,
    ...(errors && { errors: [...errors] }),
  };
  originals.set(described, error);
  return described;
}

export interface ProblemRequest {
  id?: unknown;
  method?: string;
  url?: string;
  originalUrl?: string;
  /** Fastify's. */
  routeOptions?: { url?: string };
}

const failureLogs = new WeakMap<HttpAdapterHost, FailureLog>();

/** The one log of an application's failed requests, for its filters and for who sees requests succeed. */
export function failuresOf(adapterHost: HttpAdapterHost): FailureLog {
  let log = failureLogs.get(adapterHost);
  if (!log) failureLogs.set(adapterHost, (log = new FailureLog(new Logger(ProblemDetailsFilter.name))));
  return log;
}

/** What a request does, without what it does it to. */
export const operationOf = ({ method, routeOptions }: ProblemRequest): string =>
  `${method} ${routeOptions?.url ?? ''}`;

/**
 * Answers every error as `application/problem+json` (RFC 9457), on Fastify and on Express. Errors with status 500 and
 * above are logged with their causes, those that every request meets once a minute; others are the caller's and are not.
 */
@Catch()
export class ProblemDetailsFilter implements ExceptionFilter {
  private readonly failures: FailureLog;

  constructor(private readonly adapterHost: HttpAdapterHost) {
    this.failures = failuresOf(adapterHost);
  }

  catch(error: unknown, host: ArgumentsHost): void {
    const { httpAdapter } = this.adapterHost;
    answerFailure({ httpAdapter, failures: this.failures }, error, host, (failure, request, response) => {
      httpAdapter.setHeader(response, 'Content-Type', 'application/problem+json; charset=utf-8');
      return JSON.stringify(toProblem(failure, request.originalUrl ?? request.url));
    });
  }
}

/** Logs what is not the caller's fault, and answers with the failure's status, its `Retry-After`, and the body that is made of it. */
export function answerFailure(
  { httpAdapter, failures }: { httpAdapter: HttpAdapterHost['httpAdapter']; failures: FailureLog },
  error: unknown,
  host: ArgumentsHost,
  toBody: (failure: Failure, request: ProblemRequest, response: unknown) => unknown,
): void {
  const http = host.switchToHttp();
  const request = http.getRequest<ProblemRequest>();
  const response = http.getResponse<unknown>();
  const failure = describeFailure(asHttpException(error));
  if (failure.status >= 500) {
    const { id: requestId, method } = request;
    failures.failed({ ...failure, error }, { requestId, method }, operationOf(request));
  }
  if (httpAdapter.isHeadersSent(response)) return;
  if (failure.retryAfterSeconds !== undefined)
    httpAdapter.setHeader(response, 'Retry-After', String(failure.retryAfterSeconds));
  httpAdapter.reply(response, toBody(failure, request, response), failure.status);
}

/** The body of a problem (RFC 9457). @param instance the request's URL */
export function toProblem(failure: Failure, instance: string | undefined) {
  const { type, title, status, errors } = failure;
  const where = instance === undefined ? undefined : shown(instance);
  const detail = shown(withShortUrl(failure.detail, instance), TEXT_CHARACTERS);
  return { type: `/problems/${type}`, title, status, detail, instance: where, ...(errors && { errors }) };
}

/** Routers repeat the URL, or its path, in their texts. */
function withShortUrl(detail: string, url = ''): string {
  const long = [url, url.split('?', 1)[0]!].filter((part) => shown(part) !== part);
  return long.reduce((text, part) => text.replaceAll(part, () => shown(part)), detail);
}

/** Answers every error of a message handler with `MessageError`, which the transport sends or dead-letters. */
@Catch()
export class MessageErrorFilter implements RpcExceptionFilter {
  private readonly failures = new FailureLog(new Logger(MessageErrorFilter.name));

  catch(error: unknown, host: ArgumentsHost): Observable<never> {
    const failure = describeFailure(error);
    const topic = host.switchToRpc().getContext<{ getTopic?: () => string }>().getTopic?.();
    if (failure.status >= 500 && !isExpected(error)) this.failures.failed({ ...failure, error }, { topic });
    return throwError(() => toMessageError(error));
  }
}
