// http/: Bodies on their way in, and answers on their way out, at every door of HTTP that is ours.
// Promises: what is read has a bound in bytes and in time; the end of an answer is told also where it never got its turn.
// May know: requests and responses as Node, Express and Fastify have them, json/ and errors/; neither routes nor what is done.

import { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { HttpException, PayloadTooLargeException, RequestTimeoutException } from '@nestjs/common';
import { unchanged } from '../errors/application-error.js';
import { type BodyRequest, bodyStream } from '../json/body.decorator.js';

/** The client has gone before its body was whole; nobody reads the answer. The status is the one that proxies log for it. */
export class ClientLeftException extends HttpException {
  constructor(cause?: unknown) {
    super('The client has left', 499, { cause });
  }
}

const TOO_LARGE = 'Request body is too large';

/** How fast a body has to come: it may lag behind `minBytesPerSecond` (0: none) by `graceMs`. */
export interface BodyPace {
  minBytesPerSecond: number;
  graceMs: number;
}

/** What a body may take of memory. */
export interface BodyRoom {
  /** Takes so much more at once. @returns false where that has to be waited for */
  growNow(bytes: number): boolean;
  /** Takes so much more, waiting for room. @throws there was none */
  grow(bytes: number): Promise<void>;
}

/**
 * The bytes of a request's body, which take room as they arrive; while there is none the client waits. Ends without destroying the
 * stream, whose connection is needed for the answer.
 *
 * By events, as an iterator costs a turn of the event loop for each chunk, and those may be of a byte.
 *
 * @throws PayloadTooLargeException it has, or is announced to have, more than `limitBytes`
 * @throws RequestTimeoutException it comes too slowly
 * @throws ClientLeftException it does not come any more
 */
export async function readBody(
  request: BodyRequest,
  limitBytes: number,
  pace: BodyPace,
  room: BodyRoom,
): Promise<Buffer> {
  const declared = Number(request.headers['content-length'] ?? NaN);
  if (declared > limitBytes) throw new PayloadTooLargeException(TOO_LARGE);
  const atMost = Math.min(limitBytes, declared || limitBytes);
  const source = bodyStream(request);
  // The parser, which may have told of the headers a moment ago, goes through what came with them first.
  await Promise.resolve();
  return readWhole(source, atMost, room) ?? readAsItComes(source, atMost, pace, room);
}

/** A body that is here already, as most are that came with their headers: without a listener or a timer. */
function readWhole(source: Readable, atMost: number, room: BodyRoom): Buffer | undefined {
  if (!(source instanceof IncomingMessage) || !source.complete || source.readableFlowing !== null)
    return undefined;
  const { readableLength: bytes } = source;
  return bytes > 0 && bytes <= atMost && room.growNow(bytes) ? (source.read() as Buffer) : undefined;
}

function readAsItComes(
  source: Readable,
  atMost: number,
  { minBytesPerSecond, graceMs }: BodyPace,
  room: BodyRoom,
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
      const size = length === 0 ? end : Math.min(atMost, Math.max(end, 2 * whole.length));
      await room.grow(size - whole.length);
      if (length === 0) return;
      const larger = Buffer.allocUnsafe(size);
      whole.copy(larger, 0, 0, length);
      whole = larger;
    };
    const take = (chunk: Buffer) => {
      spend();
      credit = Math.min(graceMs, credit + (chunk.length * 1000) / minBytesPerSecond);
      if (length + chunk.length > atMost) return fail(new PayloadTooLargeException(TOO_LARGE));
      if (length + chunk.length <= whole.length || (length === 0 && room.growNow(chunk.length)))
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
