import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import zlib from 'node:zlib';
import { CorruptBytesError, TooManyBytesError } from './compression-errors.js';

/** What the worker answers. */
type Answer = { found: Uint8Array } | { isTooLarge: true } | { reason: string };

/**
 * Reads frames with zstd itself, compiled to WebAssembly. That module has one memory for good, and gives back nothing of what a decoder
 * has taken that fails; so it runs in a thread, which is ended then. It tells of an error by pieces that are empty, for ever.
 */
const WORKER = `
const { parentPort, workerData } = require('node:worker_threads');
const ready = import(workerData).then(async ({ ZSTDDecoder }) => {
  const decoder = new ZSTDDecoder();
  await decoder.init();
  return decoder;
});
parentPort.on('message', async ({ bytes, atMost }) => {
  try {
    const pieces = [];
    let size = 0;
    let empty = 0;
    for (const piece of (await ready).decodeStreaming([bytes])) {
      size += piece.length;
      if (size > atMost) return parentPort.postMessage({ isTooLarge: true });
      if (piece.length > 0) pieces.push(piece);
      empty = piece.length > 0 ? 0 : empty + 1;
      if (empty > 2) return parentPort.postMessage({ reason: 'They are no bytes of zstd.' });
    }
    const found = new Uint8Array(size);
    let at = 0;
    for (const piece of pieces) {
      found.set(piece, at);
      at += piece.length;
    }
    parentPort.postMessage({ found }, [found.buffer]);
  } catch (error) {
    parentPort.postMessage({ reason: String(error?.message ?? error) });
  }
});
`;

/**
 * Decompresses zstd's frames by a thread of its own, one batch after another. For versions of Node whose zlib has no zstd (before
 * 22.15).
 */
export class ZstdThread {
  private worker: Worker | undefined;
  private last: Promise<unknown> = Promise.resolve();
  private settle: (answer: Answer) => void = () => undefined;

  /** @throws TooManyBytesError it has more than `atMost` bytes @throws CorruptBytesError it is none of zstd's */
  decompress(bytes: Buffer, atMost: number): Promise<Buffer> {
    const asked = this.last.then(() => this.ask(bytes, atMost));
    this.last = asked.catch(() => undefined);
    return asked;
  }

  /** Ends the thread; the next call begins another. */
  async close(): Promise<void> {
    const { worker } = this;
    this.worker = undefined;
    await worker?.terminate();
  }

  private async ask(bytes: Buffer, atMost: number): Promise<Buffer> {
    const answer = await new Promise<Answer>((resolve) => {
      this.settle = resolve;
      this.worker ??= this.start();
      this.worker.postMessage({ bytes, atMost });
    });
    if ('found' in answer) return Buffer.from(answer.found.buffer, 0, answer.found.length);
    await this.close();
    throw 'reason' in answer ? new CorruptBytesError(answer.reason) : new TooManyBytesError(atMost);
  }

  private start(): Worker {
    const module = createRequire(import.meta.url).resolve('zstddec/stream');
    const worker = new Worker(WORKER, { eval: true, workerData: pathToFileURL(module).href });
    const ended = (reason: string) => {
      if (worker !== this.worker) return;
      this.worker = undefined;
      this.settle({ reason });
    };
    worker.on('message', (answer: Answer) => this.settle(answer));
    worker.on('error', (error) => ended(error.message));
    worker.on('exit', () => ended('The thread that decompresses has ended.'));
    // It keeps nobody from ending.
    worker.unref();
    return worker;
  }
}

const native = 'zstdDecompress' in zlib ? promisify(zlib.zstdDecompress as typeof zlib.unzip) : undefined;
const thread = new ZstdThread();

/**
 * Decompresses zstd's frames, beside the event loop.
 *
 * @throws Error it has more than `atMost` bytes (code `ERR_BUFFER_TOO_LARGE`), or is none of zstd's
 */
export async function unzstd(bytes: Buffer, atMost: number): Promise<Buffer> {
  // To a decoder they are no frame, and no mistake.
  if (bytes.length === 0) throw new CorruptBytesError('There are no bytes.');
  return native ? native(bytes, { maxOutputLength: atMost }) : thread.decompress(bytes, atMost);
}
