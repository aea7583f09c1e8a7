import { createParamDecorator, type ExecutionContext, UnsupportedMediaTypeException } from '@nestjs/common';
import { Readable } from 'node:stream';
import { InvalidInputError } from '../errors/application-error.js';

/** What Express' and Fastify's requests have in common here, as Nest leaves them. */
export interface BodyRequest {
  headers: Record<string, string | string[] | undefined>;
  url: string;
  /** Express' own: `url` may have lost a prefix. */
  originalUrl?: string;
  /** The bytes, or what a parser of the host application made of them. */
  body?: unknown;
  /** Nest's own copy of the bytes, with `NestFactory.create(AppModule, { rawBody: true })`. */
  rawBody?: Uint8Array;
  /** Fastify's: Node's request. */
  raw?: Readable;
}

/**
 * The path that was asked for, with whatever prefix the application gives its routes. Always a path: a target may name a
 * host (`http://host/people`), and one that begins with `//` would be read as one.
 */
export const pathOf = ({ url, originalUrl = url }: BodyRequest) =>
  originalUrl
    .split('?', 1)[0]
    ?.replace(/^https?:\/\/[^/]*/i, '')
    .replace(/^\/+/, '/')
    .replace(/\/$/, '');

/** The media type of the request's body, without its parameters. */
export const mediaTypeOf = (request: Pick<BodyRequest, 'headers'>) =>
  String(request.headers['content-type'] ?? '')
    .split(';', 1)[0]
    ?.trim()
    .toLowerCase() ?? '';

/**
 * The bytes of a body, as a handler is given them. No class to its decorators: the ValidationPipe of Nest 11, with
 * `validateCustomDecorators`, would take `Uint8Array` for a DTO, in which the properties 0, 1, … should not exist.
 */
export type BodyBytes = Uint8Array | Buffer;

/** Injects the bytes of the body, unparsed, when the request's media type is one of `accepted`; see `bodyBytes`. */
export const RawBodyOf = createParamDecorator(
  (accepted: readonly string[], context: ExecutionContext): Uint8Array => {
    const request = context.switchToHttp().getRequest<BodyRequest>();
    assertMediaType(request, accepted);
    return bodyBytes(request);
  },
);

/**
 * @throws InvalidInputError no body
 * @throws Error the host's parser has consumed the bytes
 */
export function bodyBytes({ body, rawBody }: BodyRequest): Uint8Array {
  const bytes = body instanceof Uint8Array ? body : rawBody;
  if (bytes && bytes.length > 0) return bytes;
  if (body === undefined || body === null || bytes || body instanceof Readable)
    throw new InvalidInputError('The request needs a JSON body.');
  // Going on would store numbers that JSON.parse has changed.
  throw new Error(
    'PeopleModule needs the bytes of the body, and middleware of the application has parsed it: have that leave out the routes of people, or keep the bytes as request.rawBody.',
  );
}

/** The body as a stream, for a media type that no parser has read. */
export function bodyStream(request: BodyRequest): Readable {
  if (request.body instanceof Readable) return request.body;
  return request.raw ?? (request as unknown as Readable);
}

/**
 * @throws UnsupportedMediaTypeException the request's media type is none of `accepted`, or it is encoded or in another
 *   charset than UTF-8 (415)
 * @throws InvalidInputError no body at all
 */
export function assertMediaType(request: BodyRequest, accepted: readonly string[]): void {
  const { 'content-type': type, 'content-encoding': encoding } = request.headers;
  // As nearly all have it: nothing is to be taken apart.
  if (encoding === undefined && accepted.includes(type as string)) return;
  const mediaType = mediaTypeOf(request);
  if (mediaType === '' && !hasBody(request)) throw new InvalidInputError('The request needs a JSON body.');
  if (!accepted.includes(mediaType)) {
    throw new UnsupportedMediaTypeException(`The content type must be ${accepted.join(' or ')}.`);
  }
  if (!/^(identity)?$/i.test(String(encoding ?? '').trim()))
    throw new UnsupportedMediaTypeException('The body must not be encoded: leave Content-Encoding out.');
  const charsets = [...String(type).matchAll(/;\s*charset\s*=\s*("?)([^";\s]*)\1/gi)];
  if (charsets.some(([, , charset]) => !/^utf-?8$/i.test(charset!)))
    throw new UnsupportedMediaTypeException('The charset of the body must be utf-8.');
}

/** True where the bytes of a body are still the client's to send. */
export function isUnread(request: BodyRequest): boolean {
  const { body, rawBody } = request;
  if (rawBody !== undefined || !(body === undefined || body === null || body instanceof Readable))
    return false;
  return hasBody(request) && !bodyStream(request).readableEnded;
}

/** True when a body is announced, however long. */
const hasBody = ({ headers }: BodyRequest) =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
