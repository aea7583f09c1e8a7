import { writeSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import type { DestinationStream } from 'pino';

/** What waits for a reader that does not read is kept up to this many bytes. */
export const DEFAULT_BUFFER_BYTES = 8 * 1024 * 1024;
/** How long the end of the process waits for a reader. */
const AT_EXIT_MS = 1000;
const LOOK_EVERY_MS = 5;

/** A stream of the process, and the place that it writes to. */
export interface OutputStream extends Writable {
  readonly fd: number;
}

/**
 * Lines on their way to a stream of the process. Nobody waits for them: a line that its reader takes is written at once, what it does
 * not take is kept up to a bound, and past that lines are dropped and counted.
 */
export class BoundedOutput implements DestinationStream {
  /** Lines that were dropped since the start. */
  dropped = 0;
  private untold = 0;
  private waiting: string[] = [];
  private waitingBytes = 0;
  /** What the stream has, until it says that it is written. */
  private unwritten: Buffer | undefined;
  private isGone = false;
  /** A pipe, a socket or a terminal: not to be waited for where it is full, which Node has it say. */
  private readonly isPipe: boolean;

  constructor(
    private readonly stream: OutputStream,
    private readonly maxBytes = DEFAULT_BUFFER_BYTES,
  ) {
    this.isPipe = stream instanceof Socket;
    stream.on('error', () => this.gone());
  }

  write(line: string): void {
    if (this.isGone) this.drop(1);
    else if (this.unwritten) this.keep(line);
    else this.writeNow(line);
  }

  /** Writes what is left at the end of the process, as far as its reader takes it in time. */
  flushAtExit(atMostMs = AT_EXIT_MS): void {
    const { unwritten, stream } = this;
    if (this.isGone || !unwritten) return;
    this.tellDropped();
    // Of what the stream has, only its handle knows how much has left.
    const { _handle: handle } = stream as unknown as { _handle?: { writeQueueSize?: number } | null };
    const left = Math.min(handle?.writeQueueSize ?? 0, unwritten.length);
    const tail = unwritten.subarray(unwritten.length - left);
    writeWithin(stream.fd, Buffer.concat([tail, this.taken()]), atMostMs);
  }

  private writeNow(line: string): void {
    let written = 0;
    try {
      if (this.untold > 0) this.writeDropped();
      written = writeSync(this.stream.fd, line);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EPIPE') return this.gone(1);
      // A disk that is full is not full for ever.
      if (code !== 'EAGAIN') return this.drop(1);
    }
    if (written < Buffer.byteLength(line) && this.isPipe) this.send(Buffer.from(line).subarray(written));
  }

  /** Only where nothing waits, so that a line is whole or not there. */
  private writeDropped(): void {
    writeSync(this.stream.fd, lineOfDropped(this.untold));
    this.untold = 0;
  }

  private keep(line: string): void {
    const bytes = Buffer.byteLength(line);
    if (this.waitingBytes + this.unwritten!.length + bytes > this.maxBytes) return this.drop(1);
    this.waiting.push(line);
    this.waitingBytes += bytes;
  }

  /** By the stream, which knows when the reader takes more. */
  private send(bytes: Buffer): void {
    this.unwritten = bytes;
    this.stream.write(bytes, (error) => {
      this.unwritten = undefined;
      if (error) return this.gone();
      // Where the gap is: what was taken before it has left, or stands before this line.
      this.tellDropped();
      if (this.waiting.length > 0) this.send(this.taken());
    });
  }

  private tellDropped(): void {
    if (this.untold === 0) return;
    this.waiting.push(lineOfDropped(this.untold));
    this.untold = 0;
  }

  private taken(): Buffer {
    const bytes = Buffer.from(this.waiting.join(''));
    this.waiting = [];
    this.waitingBytes = 0;
    return bytes;
  }

  private drop(lines: number): void {
    this.dropped += lines;
    this.untold += lines;
  }

  /** Its reader is not there any more. That is no reason to go as well. */
  private gone(lines = 0): void {
    this.isGone = true;
    this.drop(lines + this.waiting.length);
    this.taken();
  }
}

const lineOfDropped = (lines: number): string => {
  const msg = 'lines of the log were dropped, as its reader did not take them';
  return `${JSON.stringify({ level: 'warn', time: new Date().toISOString(), msg, lines })}\n`;
};

function writeWithin(fd: number, bytes: Buffer, atMostMs: number): void {
  const deadline = performance.now() + atMostMs;
  const sleeping = new Int32Array(new SharedArrayBuffer(4));
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      // A pipe that is full says so; anything else will not pass.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || performance.now() > deadline) return;
      Atomics.wait(sleeping, 0, 0, LOOK_EVERY_MS);
    }
  }
}

let output: BoundedOutput | undefined;

/** Standard output, for all who log in this process; what is left of their lines is written when it ends. */
export function standardOutput(maxBytes?: number): BoundedOutput {
  if (!output) {
    const made = (output = new BoundedOutput(process.stdout, maxBytes));
    process.on('exit', () => made.flushAtExit());
  }
  return output;
}
