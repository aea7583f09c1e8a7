import { type ExecutionContext, StreamableFile } from '@nestjs/common';
import {
  RESPONSE_PASSTHROUGH_METADATA,
  ROUTE_ARGS_METADATA,
  SSE_METADATA,
} from '@nestjs/common/constants.js';
import { RouteParamtypes } from '@nestjs/common/enums/route-paramtypes.enum.js';
import { isObservable } from 'rxjs';
import { TransactionUsageError } from './transaction-errors.js';

/** `@Res()`, `@Next()`, and `@Ack()` of a WebSocket's gateway. */
const ANSWERS_BY_ITSELF = new Set<number>([
  RouteParamtypes.RESPONSE,
  RouteParamtypes.NEXT,
  RouteParamtypes.ACK,
]);

/**
 * Refuses handlers whose answer can't wait for the commit.
 *
 * @throws TransactionUsageError
 */
export function assertAnswersAfterCommit(target: object, key: string | symbol, handler: object): void {
  const name = `${target.constructor.name}.${String(key)}`;
  if (Reflect.getMetadata(SSE_METADATA, handler))
    throw new TransactionUsageError(
      `${name}: events of @Sse() are sent before a commit; begin units of work inside of it.`,
    );
  if (Reflect.getMetadata(RESPONSE_PASSTHROUGH_METADATA, target.constructor, key)) return;
  const parameters = (Reflect.getMetadata(ROUTE_ARGS_METADATA, target.constructor, key) ?? {}) as object;
  for (const parameter of Object.keys(parameters)) {
    const type = Number(parameter.split(':')[0]);
    if (ANSWERS_BY_ITSELF.has(type))
      throw new TransactionUsageError(
        `${name}: a handler that sends the answer itself sends it before the commit. Return the answer, with @Res({ passthrough: true }) for status and headers.`,
      );
  }
}

/**
 * A result that is read after the unit of work would be read from a transaction that is over.
 *
 * @throws TransactionUsageError the result is a stream, an Observable or another lazy sequence
 */
export function assertPlainResult<T>(result: T): T {
  const isLazy =
    result instanceof StreamableFile ||
    isObservable(result) ||
    (typeof result === 'object' &&
      result !== null &&
      (Symbol.asyncIterator in result || typeof (result as { pipe?: unknown }).pipe === 'function'));
  if (isLazy)
    throw new TransactionUsageError(
      'A unit of work returned a stream, which would be read after its end: read it into memory, or page by page in units of their own.',
    );
  return result;
}

/**
 * What pipes and parameter decorators read anew for each attempt, and a failed attempt may have changed. Sockets, requests
 * and the schema of GraphQL are not the attempt's to put back.
 *
 * @throws TransactionUsageError a kind of handler of which it is not known
 */
export function inputsOf(context: ExecutionContext): unknown[] {
  const type = context.getType<string>();
  const [first, second] = context.getArgs<unknown[]>();
  if (type === 'http') {
    const { body, query, params } = context.switchToHttp().getRequest<Request>();
    return [body, query, params];
  }
  if (type === 'rpc') return [first];
  // (socket, data)
  if (type === 'ws') return [second];
  // (parent, arguments, context, info)
  if (type === 'graphql') return [first, second];
  throw new TransactionUsageError(
    `${context.getClass().name}.${context.getHandler().name}: what handlers of the kind "${type}" are given can not be put back for another attempt. ` +
      'Allow one attempt only (maxAttempts: 1), or begin the unit of work in a method of a provider.',
  );
}

/** The request of an HTTP handler as far as attempts have to know it; undefined for other handlers. */
export function replayOf(context: ExecutionContext): Replay | undefined {
  if (context.getType() !== 'http') return undefined;
  const request = context.switchToHttp().getRequest<Request>();
  const response = context.switchToHttp().getResponse<Response>();
  const stream = request.raw ?? request;
  return {
    wasRead: stream.readableDidRead ?? true,
    isSent: () => response.raw?.headersSent ?? response.headersSent ?? response.sent ?? false,
    isRead: () => stream.readableDidRead ?? true,
  };
}

export interface Replay {
  /** True when the body had been read before the first attempt, and so is the same for all. */
  wasRead: boolean;
  isSent: () => boolean;
  isRead: () => boolean;
}

/** Of Express and of Fastify, which keeps Node's own in `raw`. */
interface Request {
  body?: unknown;
  query?: unknown;
  params?: unknown;
  raw?: { readableDidRead?: boolean };
  readableDidRead?: boolean;
}
interface Response {
  raw?: { headersSent?: boolean };
  headersSent?: boolean;
  sent?: boolean;
}
