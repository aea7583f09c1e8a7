import { writeFileSync, writeSync } from 'node:fs';
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
 * Lines on their way to a stream of the process. Nobody waits for them: what its reader does not take is kept up to a bound, and past
 * it lines are dropped and counted. Lines of one turn of the event loop leave in one write.
 */
export class BoundedOutput implements DestinationStream {
  /** Lines that were dropped since the start. */
  dropped = 0;
  private untold = 0;
  private waiting: string[] = [];
  private waitingBytes = 0;
  private isScheduled = false;
  /** What the stream has, until it says that it is written. */
  private written: Buffer | undefined;
  private isGone = false;
  private readonly isFile: boolean;

  constructor(
    private readonly stream: OutputStream,
    private readonly maxBytes = DEFAULT_BUFFER_BYTES,
  ) {
    // Pipes, sockets and terminals have a handle.
    this.isFile = !('_handle' in stream);
    // Its reader has gone. That is no reason to go as well.
    stream.on('error', () => this.gone());
  }

  write(line: string): void {
    const bytes = Buffer.byteLength(line);
    if (this.isGone || this.waitingBytes + (this.written?.length ?? 0) + bytes > this.maxBytes) {
      this.dropped++;
      this.untold++;
      return;
    }
    this.keep(line, bytes);
    if (this.isScheduled || this.written) return;
    this.isScheduled = true;
    setImmediate(() => this.send());
  }

  /** Writes what is left at the end of the process, as far as its reader takes it in time. */
  flushAtExit(atMostMs = AT_EXIT_MS): void {
    const { written, stream } = this;
    this.tellDropped();
    // Of what the stream has, only its handle knows how much has left.
    const { _handle: handle } = stream as unknown as { _handle?: { writeQueueSize?: number } | null };
    const unsent = Math.min(handle?.writeQueueSize ?? 0, written?.length ?? 0);
    const tail = written?.subarray(written.length - unsent) ?? Buffer.alloc(0);
    if (!this.isGone) writeWithin(stream.fd, Buffer.concat([tail, this.taken()]), atMostMs);
  }

  private send(): void {
    this.isScheduled = false;
    if (this.written || this.waiting.length === 0) return;
    if (this.isFile) return this.writeToFile();
    this.written = this.taken();
    this.stream.write(this.written, (error) => {
      this.written = undefined;
      if (error) return this.gone();
      // Where the gap is: what was taken before it has left, or stands before this line.
      this.tellDropped();
      this.send();
    });
  }

  private gone(): void {
    this.isGone = true;
    this.dropped += this.waiting.length;
    this.taken();
  }

  /** Node's stream of a file ends with the first failure; but a disk that is full is not full for ever. */
  private writeToFile(): void {
    const { untold } = this;
    const lines = this.waiting.length;
    try {
      if (untold > 0) this.waiting.unshift(this.lineOfDropped());
      writeFileSync(this.stream.fd, this.taken());
    } catch {
      this.dropped += lines;
      this.untold = untold + lines;
    }
  }

  private tellDropped(): void {
    if (this.untold === 0) return;
    const line = this.lineOfDropped();
    this.keep(line, line.length);
  }

  private lineOfDropped(): string {
    const told = {
      level: 'warn',
      time: new Date().toISOString(),
      msg: 'lines of the log were dropped, as its reader did not take them',
      lines: this.untold,
    };
    this.untold = 0;
    return `${JSON.stringify(told)}\n`;
  }

  private keep(line: string, bytes: number): void {
    this.waiting.push(line);
    this.waitingBytes += bytes;
  }

  private taken(): Buffer {
    const bytes = Buffer.from(this.waiting.join(''));
    this.waiting = [];
    this.waitingBytes = 0;
    return bytes;
  }
}

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
