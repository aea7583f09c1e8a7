import {
  applyDecorators,
  type CanActivate,
  type ExecutionContext,
  Inject,
  Injectable,
  SetMetadata,
  UseGuards,
} from '@nestjs/common';
import { whenOver } from '../../http/answer-end.js';
import { type BodyRoom, ClientLeftException, readBody } from '../../http/body-reading.js';
import { assertMediaType, type BodyRequest, isUnread, mediaTypeOf } from '../../json/body.decorator.js';
import { ByteBudget } from '../byte-budget.js';
import { NDJSON } from '../../json/ndjson.js';
import { PEOPLE_OPTIONS, type PeopleOptions } from '../people.options.js';
import { TAKES_BODY, type TakenBody, UnreadBodies } from './unread-bodies.js';

/** A slow but honest upload is faster than this; whoever sends a byte a second is not. */
export const DEFAULT_MIN_BODY_BYTES_PER_SECOND = 5;
/** How far a body may lag behind that rate. */
export const DEFAULT_BODY_GRACE_MS = 10_000;

/** On a handler: what Nest's adapter for Fastify hands over as the `config` of its route. */
const FASTIFY_ROUTE_CONFIG = '__fastify_route_config__';

/** Says which media types a handler takes; its body is then read by `RequestBodyGuard`, the last of its guards. */
export const TakesBody = (types: readonly string[], { isBulk = false } = {}) =>
  applyDecorators(
    SetMetadata<symbol, TakenBody>(TAKES_BODY, { types, isBulk }),
    SetMetadata(FASTIFY_ROUTE_CONFIG, { [TAKES_BODY]: { types, isBulk } }),
    UseGuards(RequestBodyGuard),
  );

/**
 * Reads the bodies that no parser of the host application has read, so that who asks is known before a byte of it is in
 * memory. NDJSON stays a stream. A guard, as an interceptor would have every request go through rxjs.
 */
@Injectable()
export class RequestBodyGuard implements CanActivate {
  constructor(
    private readonly budget: ByteBudget,
    private readonly bodies: UnreadBodies,
    @Inject(PEOPLE_OPTIONS) private readonly options: PeopleOptions,
  ) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const { types, isBulk } = Reflect.getMetadata(TAKES_BODY, context.getHandler()) as TakenBody;
    const http = context.switchToHttp();
    const request = http.getRequest<BodyRequest>();
    assertMediaType(request, types);
    if (isUnread(request) && mediaTypeOf(request) !== NDJSON)
      request.body = await this.read(request, http.getResponse(), isBulk);
    return true;
  }

  private read(request: BodyRequest, response: unknown, isBulk: boolean): Promise<Buffer> {
    const { bodyLimitBytes, bulkBodyLimitBytes } = this.bodies.limits;
    const {
      minBodyBytesPerSecond: minBytesPerSecond = DEFAULT_MIN_BODY_BYTES_PER_SECOND,
      bodyGraceMs: graceMs = DEFAULT_BODY_GRACE_MS,
    } = this.options;
    const limitBytes = isBulk ? bulkBodyLimitBytes : bodyLimitBytes;
    return readBody(request, limitBytes, { minBytesPerSecond, graceMs }, roomOf(this.budget, response));
  }
}

/** Room in the budget for the body of one request. It is given back when the answer is over: until then the body is in use. */
function roomOf(budget: ByteBudget, response: unknown): BodyRoom {
  const share = budget.open();
  // Most bodies are so small that they are not counted, and few others wait.
  let left: AbortController | undefined;
  const leaving = () => {
    const controller = new AbortController();
    whenOver(response, () => {
      share.close();
      controller.abort(new ClientLeftException());
    });
    return controller;
  };
  return {
    growNow: (bytes) => share.growFree(bytes),
    grow: (bytes) => share.grow(bytes, (left ??= leaving()).signal),
  };
}
