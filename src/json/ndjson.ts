import type { Readable } from 'node:stream';
import { InvalidInputError } from '../errors/application-error.js';
import { BATCH_WORK, BATCHES, BESIDE, type InBatches, oneByOne } from './batches.js';
import { type JsonInput, type KnownMembers, readJsonObject } from './input.js';
import { relocate } from './refusals.js';
import { WorkSlices } from './work-slices.js';

export const NDJSON = 'application/x-ndjson';

/** A line longer than this is refused, so that one line can't fill the memory. */
const MAX_LINE_BYTES = 1024 * 1024;

const NEWLINE = 0x0a;
const EMPTY = Buffer.alloc(0);

/** A chunk of the source, and where its next line begins. */
interface Chunk {
  bytes: Buffer;
  at: number;
}

/** The objects of newline-delimited JSON, as the bytes arrive; blank lines are skipped. Read once. */
export class NdjsonReader implements AsyncIterableIterator<JsonInput>, InBatches<JsonInput> {
  /** The line that was read last, from 1. */
  private line = 0;
  /** What was thrown here, and so speaks of the line, not of the people. */
  private refusal: unknown;
  private readonly begun: BegunLine;
  private readonly batches: AsyncGenerator<Iterable<JsonInput>>;
  private readonly objects: AsyncGenerator<JsonInput>;

  constructor(
    source: Readable,
    private readonly known: KnownMembers,
    private readonly lineBytes = MAX_LINE_BYTES,
  ) {
    this.begun = new BegunLine(lineBytes);
    this.batches = this.read(source);
    this.objects = oneByOne(this.batches);
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

  [BATCHES](): AsyncGenerator<Iterable<JsonInput>> {
    return this.batches;
  }

  /** Tells which line an InvalidInputError is about: the one just read, as lines are read as they are checked. */
  locate(error: unknown): unknown {
    if (!(error instanceof InvalidInputError)) return error;
    // The service counts people, from 0; whoever looks at the file counts lines.
    const located = error === this.refusal ? error : (relocate(error, /^#\/\d+/, '#') as InvalidInputError);
    const { message, errors, more } = located;
    return new InvalidInputError(`Line ${this.line}: ${message}`, errors, { cause: error, more });
  }

  private async *read(source: Readable): AsyncGenerator<Iterable<JsonInput>> {
    const slices = new WorkSlices();
    const { begun } = this;
    for await (const bytes of source as AsyncIterable<Buffer>) {
      const chunk: Chunk = { bytes, at: 0 };
      while (bytes.includes(NEWLINE, chunk.at)) {
        yield this.objectsOf(chunk);
        if (slices.isOver(BATCH_WORK)) await slices.giveWay();
      }
      begun.add(bytes.subarray(chunk.at));
      // Said before the line ends: it may never.
      if (begun.length > this.lineBytes) {
        this.line++;
        throw this.tooLong();
      }
      if (slices.isOver(bytes.length)) await slices.giveWay();
    }
    const last = begun.endedWith(EMPTY);
    if (last.length === 0) return;
    this.line++;
    if (!isBlank(last)) yield [this.parse(last)];
  }

  /** The objects of the lines that end in the chunk, until they are enough for one go. */
  private *objectsOf(chunk: Chunk): Generator<JsonInput> {
    for (let work = 0; work < BATCH_WORK;) {
      const line = this.nextLine(chunk);
      if (!line) return;
      work += line.length + BESIDE;
      if (!isBlank(line)) yield this.parse(line);
    }
  }

  private nextLine(chunk: Chunk): Buffer | undefined {
    const { begun } = this;
    const { bytes } = chunk;
    if (begun.length === 0) this.skipEmptyLines(chunk);
    const end = bytes.indexOf(NEWLINE, chunk.at);
    if (end === -1) return undefined;
    const line = begun.endedWith(bytes.subarray(chunk.at, end));
    chunk.at = end + 1;
    this.line++;
    return line;
  }

  /** A chunk may be nothing else. */
  private skipEmptyLines(chunk: Chunk): void {
    let end = chunk.at;
    while (chunk.bytes[end] === NEWLINE) end++;
    this.line += end - chunk.at;
    chunk.at = end;
  }

  private parse(line: Buffer): JsonInput {
    if (line.length > this.lineBytes) throw this.tooLong();
    try {
      return readJsonObject(line, 'the line', this.known);
    } catch (error) {
      this.refusal = error;
      throw error;
    }
  }

  private tooLong(): InvalidInputError {
    return new InvalidInputError(`The line is longer than ${this.lineBytes} bytes.`);
  }
}

/** What has come of a line whose end has not: each byte is copied a few times at most, however small the chunks are. */
class BegunLine {
  private bytes = EMPTY;
  length = 0;

  /** @param most bytes that are kept at least; what is beyond is counted alone */
  constructor(private readonly most: number) {}

  add(chunk: Buffer): void {
    const needed = Math.min(this.length + chunk.length, this.most + 1);
    if (needed > this.bytes.length) {
      const larger = Buffer.allocUnsafeSlow(
        Math.max(needed, Math.min(2 * this.bytes.length, this.most + 1), 256),
      );
      this.bytes.copy(larger, 0, 0, this.length);
      this.bytes = larger;
    }
    chunk.copy(this.bytes, this.length);
    this.length += chunk.length;
  }

  /** The whole line; the next begins. */
  endedWith(rest: Buffer): Buffer {
    if (this.length === 0) return rest;
    this.add(rest);
    const line = this.bytes.subarray(0, this.length);
    this.bytes = EMPTY;
    this.length = 0;
    return line;
  }
}

function isBlank(line: Buffer): boolean {
  let at = 0;
  while (line[at] === 0x20 || line[at] === 0x09 || line[at] === 0x0d) at++;
  return at === line.length;
}
