import {
  applyDecorators,
  type CallHandler,
  type ExecutionContext,
  HttpException,
  Inject,
  Injectable,
  type NestInterceptor,
  PayloadTooLargeException,
  RequestTimeoutException,
  SetMetadata,
  UseInterceptors,
} from '@nestjs/common';
import type { Readable, Writable } from 'node:stream';
import { unchanged } from '../../errors/application-error.js';
import { ByteBudget, type ByteShare } from '../byte-budget.js';
import {
  assertMediaType,
  type BodyRequest,
  bodyStream,
  isUnread,
  mediaTypeOf,
} from '../../json/body.decorator.js';
import { NDJSON } from '../../json/ndjson.js';
import { PEOPLE_OPTIONS, type PeopleOptions } from '../people.options.js';
import { TAKES_BODY, type TakenBody, UnreadBodies } from './unread-bodies.js';

/** A slow but honest upload is faster than this; whoever sends a byte a second is not. */
export const DEFAULT_MIN_BODY_BYTES_PER_SECOND = 5;
/** How far a body may lag behind that rate. */
export const DEFAULT_BODY_GRACE_MS = 10_000;

/** The client has gone before its body was whole; nobody reads the answer. The status is the one that proxies log for it. */
export class ClientLeftException extends HttpException {
  constructor(cause?: unknown) {
    super('The client has left', 499, { cause });
  }
}

/** On a handler: what Nest's adapter for Fastify hands over as the `config` of its route. */
const FASTIFY_ROUTE_CONFIG = '__fastify_route_config__';

/** Says which media types a handler takes; its body is then read behind the guards, by `RequestBodyInterceptor`. */
export const TakesBody = (types: readonly string[], { isBulk = false } = {}) =>
  applyDecorators(
    SetMetadata<symbol, TakenBody>(TAKES_BODY, { types, isBulk }),
    SetMetadata(FASTIFY_ROUTE_CONFIG, { [TAKES_BODY]: { types, isBulk } }),
    UseInterceptors(RequestBodyInterceptor),
  );

/**
 * Reads the bodies that no parser of the host application has read, so that who asks is known before a byte of it is in
 * memory. NDJSON stays a stream.
 */
@Injectable()
export class RequestBodyInterceptor implements NestInterceptor {
  constructor(
    private readonly budget: ByteBudget,
    private readonly bodies: UnreadBodies,
    @Inject(PEOPLE_OPTIONS) private readonly options: PeopleOptions,
  ) {}

  async intercept(context: ExecutionContext, next: CallHandler) {
    const taken = Reflect.getMetadata(TAKES_BODY, context.getHandler()) as TakenBody | undefined;
    if (taken) {
      const http = context.switchToHttp();
      const request = http.getRequest<BodyRequest>();
      assertMediaType(request, taken.types);
      if (isUnread(request) && mediaTypeOf(request) !== NDJSON) {
        const response = http.getResponse<Writable & { raw?: Writable }>();
        request.body = await this.read(request, response.raw ?? response, taken.isBulk);
      }
    }
    return next.handle();
  }

  private async read(request: BodyRequest, response: Writable, isBulk: boolean): Promise<Buffer> {
    const { bodyLimitBytes, bulkBodyLimitBytes } = this.bodies.limits;
    const { minBodyBytesPerSecond = DEFAULT_MIN_BODY_BYTES_PER_SECOND, bodyGraceMs = DEFAULT_BODY_GRACE_MS } =
      this.options;
    const limitBytes = isBulk ? bulkBodyLimitBytes : bodyLimitBytes;
    const declared = Number(request.headers['content-length'] ?? NaN);
    if (declared > limitBytes) throw new PayloadTooLargeException(TOO_LARGE);
    const share = this.budget.open();
    // Few bodies ever wait for room.
    let left: AbortController | undefined;
    // What a body takes is given back when the answer is over: until then it is in use.
    response.once('close', () => {
      share.close();
      left?.abort(new ClientLeftException());
    });
    const pace = { minBytesPerSecond: minBodyBytesPerSecond, graceMs: bodyGraceMs };
    return readWhole(
      bodyStream(request),
      Math.min(limitBytes, declared || limitBytes),
      pace,
      share,
      () => (left ??= new AbortController()).signal,
    );
  }
}

const TOO_LARGE = 'Request body is too large';

/** How fast a body has to come: it may lag behind `minBytesPerSecond` (0: none) by `graceMs`. */
export interface BodyPace {
  minBytesPerSecond: number;
  graceMs: number;
}

/**
 * The bytes of `source`, taken from `share` as they arrive; while there is no room for them the client waits. Ends without
 * destroying the source, whose connection is needed for the answer.
 *
 * By events, as an iterator costs a turn of the event loop for each chunk, and those may be of a byte.
 */
function readWhole(
  source: Readable,
  limitBytes: number,
  { minBytesPerSecond, graceMs }: BodyPace,
  share: ByteShare,
  left: () => AbortSignal,
): Promise<Buffer> {
  let whole: Buffer = Buffer.alloc(0);
  let length = 0;
  let credit = graceMs;
  let waitsSince = performance.now();
  let timer: NodeJS.Timeout | undefined;
  let isMakingRoom = false;
  let hasEnded = false;
  return new Promise((resolve, reject) => {
    const end = (settle: () => void) => {
      clearTimeout(timer);
      source.off('data', take).off('end', finish).off('error', lose).off('close', lose);
      source.pause();
      settle();
    };
    const fail = (error: Error) => end(() => reject(error));
    // The end may come while there is no room yet for the last chunk.
    const finish = () => {
      hasEnded = true;
      if (!isMakingRoom) end(() => resolve(whole.subarray(0, length)));
    };
    const lose = (cause?: unknown) => {
      if (!hasEnded) fail(new ClientLeftException(cause));
    };
    /** Only the client's pauses count, not those of this side. */
    const spend = () => {
      const now = performance.now();
      credit -= now - waitsSince;
      waitsSince = now;
    };
    const look = () => {
      spend();
      if (credit > 0) timer = setTimeout(look, credit);
      else fail(new RequestTimeoutException(unchanged('The body came too slowly', 'send it again, faster')));
    };
    const append = (chunk: Buffer) => {
      if (length === 0) whole = chunk;
      else chunk.copy(whole, length);
      length += chunk.length;
    };
    /** Doubling keeps the copying linear, however small the chunks are. */
    const makeRoom = async (chunk: Buffer) => {
      const end = length + chunk.length;
      const size = length === 0 ? end : Math.min(limitBytes, Math.max(end, 2 * whole.length));
      await share.grow(size - whole.length, left());
      if (length === 0) return;
      const larger = Buffer.allocUnsafe(size);
      whole.copy(larger, 0, 0, length);
      whole = larger;
    };
    const take = (chunk: Buffer) => {
      spend();
      credit = Math.min(graceMs, credit + (chunk.length * 1000) / minBytesPerSecond);
      if (length + chunk.length > limitBytes) return fail(new PayloadTooLargeException(TOO_LARGE));
      if (length + chunk.length <= whole.length || (length === 0 && share.growFree(chunk.length)))
        return append(chunk);
      isMakingRoom = true;
      source.pause();
      clearTimeout(timer);
      makeRoom(chunk).then(() => {
        isMakingRoom = false;
        append(chunk);
        if (hasEnded) return finish();
        waitsSince = performance.now();
        if (minBytesPerSecond > 0) timer = setTimeout(look, credit);
        source.resume();
      }, fail);
    };
    source.on('data', take).on('end', finish).on('error', lose).on('close', lose);
    if (minBytesPerSecond > 0) timer = setTimeout(look, credit);
  });
}
