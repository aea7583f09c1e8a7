import type { Readable } from 'node:stream';
import { InvalidInputError } from '../errors/application-error.js';
import { type JsonInput, readJsonObject } from './json-input.js';
import { relocate } from './person-data.js';

export const NDJSON = 'application/x-ndjson';

/** A line longer than this is refused, so that one line can't fill the memory. */
export const MAX_LINE_BYTES = 1024 * 1024;

const NEWLINE = 0x0a;
const BLANK = /^[ \t\r]*$/;

/** The objects of newline-delimited JSON, one at a time as the bytes arrive; blank lines are skipped. Read once. */
export class NdjsonReader implements AsyncIterableIterator<JsonInput> {
  /** The line that was read last, from 1. */
  private line = 0;
  private readonly objects: AsyncGenerator<JsonInput>;

  constructor(source: Readable) {
    this.objects = this.read(source);
  }

  next(): Promise<IteratorResult<JsonInput>> {
    return this.objects.next();
  }

  async return(): Promise<IteratorResult<JsonInput>> {
    return this.objects.return(undefined);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Tells which line an InvalidInputError is about: the one just read, as lines are checked one by one. */
  locate(error: unknown): unknown {
    if (!(error instanceof InvalidInputError)) return error;
    // The service counts people, from 0; whoever looks at the file counts lines.
    const { message, errors, more } = relocate(error, /^#\/\d+/, '#') as InvalidInputError;
    return new InvalidInputError(`Line ${this.line}: ${message}`, errors, { cause: error, more });
  }

  private async *read(source: Readable): AsyncGenerator<JsonInput> {
    let parts: Buffer[] = [];
    let length = 0;
    for await (const chunk of source as AsyncIterable<Buffer>) {
      let start = 0;
      for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
        yield* this.parse(Buffer.concat([...parts, chunk.subarray(start, end)]));
        parts = [];
        length = 0;
        start = end + 1;
      }
      parts.push(chunk.subarray(start));
      length += chunk.length - start;
      // Said before the line ends: it may never.
      if (length > MAX_LINE_BYTES) yield* this.parse(Buffer.concat(parts));
    }
    if (length > 0) yield* this.parse(Buffer.concat(parts));
  }

  private *parse(bytes: Buffer): Generator<JsonInput> {
    this.line++;
    if (bytes.length > MAX_LINE_BYTES)
      throw new InvalidInputError(`The line is longer than ${MAX_LINE_BYTES} bytes.`);
    if (!BLANK.test(bytes.toString('latin1', 0, 100)) || bytes.length > 100)
      yield readJsonObject(bytes, 'the line');
  }
}
