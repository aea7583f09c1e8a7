import {
  type CallHandler,
  createParamDecorator,
  type ExecutionContext,
  Injectable,
  type NestInterceptor,
  ServiceUnavailableException,
  type Type,
} from '@nestjs/common';
import { validateSync } from 'class-validator';
import { Readable } from 'node:stream';
import { unchanged } from '../errors/application-error.js';
import { type BodyPace, type BodyRoom, readBody } from '../http/body-reading.js';
import { assertMediaType, bodyBytes, type BodyRequest, isUnread } from '../json/body.decorator.js';
import { readJsonObject } from '../json/input.js';
import { fieldsOf, invalid, noRefusals, refuseFields } from '../json/refusals.js';
import { JsonText } from '../json/text.js';

/** Two corrected values of the largest that is shown, as JSON may have them. */
const BODY_BYTES = 4 * 1024 * 1024;
/** So that no body holds its place for more than a minute. */
const PACE: BodyPace = { minBytesPerSecond: BODY_BYTES / 30, graceMs: 30_000 };
/** Bodies that are read at once. */
const PLACES = 4;
/** Those have it. */
const ROOM: BodyRoom = { growNow: () => true, grow: () => Promise.resolve() };
const JSON_TYPE = ['application/json'];

/** Reads the bodies that no parser of the host application has read, behind the guards, in bounds. */
@Injectable()
export class OperatorBodyInterceptor implements NestInterceptor {
  private reading = 0;

  async intercept(context: ExecutionContext, next: CallHandler) {
    const request = context.switchToHttp().getRequest<BodyRequest>();
    assertMediaType(request, JSON_TYPE);
    if (isUnread(request)) {
      if (this.reading >= PLACES)
        throw new ServiceUnavailableException(unchanged('Others send at this moment', 'try again'));
      this.reading++;
      try {
        request.body = await readBody(request, BODY_BYTES, PACE, ROOM);
      } finally {
        this.reading--;
      }
    }
    return next.handle();
  }
}

/** Injects the body, checked against a class-validator class. */
export const Input = createParamDecorator((dto: Type<object>, context: ExecutionContext): object => {
  const request = context.switchToHttp().getRequest<BodyRequest>();
  return checkedInput(dto, membersOf(request, fieldsOf(dto)));
});

/** @throws InvalidInputError a field that is wrong, or unknown */
export function checkedInput<T extends object>(dto: Type<T>, members: object): T {
  const input = Object.assign(new dto(), members);
  const failures = validateSync(input, { whitelist: true, forbidNonWhitelisted: true });
  const refusals = refuseFields(noRefusals(), failures, '#');
  if (refusals.errors.length > 0) throw invalid(refusals.errors, { more: refusals.more });
  return input;
}

/** Of the bytes, or of what a parser of the host application has made of them. */
function membersOf(request: BodyRequest, fields: ReadonlySet<string>): object {
  const { body, rawBody } = request;
  const isParsed =
    typeof body === 'object' && body !== null && !(body instanceof Uint8Array || body instanceof Readable);
  if (rawBody === undefined && isParsed) return body;
  const parsed = readJsonObject(bodyBytes(request), 'the body', { parsed: new Set(), asText: fields });
  return Object.fromEntries(
    Object.entries(parsed).map(([name, value]) => [
      name,
      value instanceof JsonText && fields.has(name) ? (JSON.parse(value.text) as unknown) : value,
    ]),
  );
}
