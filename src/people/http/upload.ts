import { finished, type Readable, Transform } from 'node:stream';
import { ClientLeftException } from '../../http/body-reading.js';
import type { ByteBudget, ByteShare } from '../byte-budget.js';
import type { ImportSource } from '../importing/pace.js';

/** So much of a body that nobody wants is read away, so that its sender comes to read the answer. */
const READ_AWAY_BYTES = 64 * 1024 * 1024;
const READ_AWAY_MS = 10_000;

/**
 * A body that is read as it comes. What has come and is no person yet counts in the budget. It can be ended at any time, and the
 * connection stays for the answer.
 */
export class Upload implements ImportSource {
  /** What is to be read. */
  readonly stream: Readable;
  received = 0;
  isHeld = false;
  private share: ByteShare;
  private shared = 0;

  constructor(
    private readonly body: Readable,
    private readonly budget: ByteBudget,
  ) {
    this.share = budget.open();
    const stream = new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        this.received += chunk.length;
        this.hold(chunk.length).then(() => done(null, chunk), done);
      },
    });
    this.stream = body.pipe(stream);
    // A pipe does not tell its end that the sender is gone.
    finished(body, { writable: false }, (error) => {
      if (error) stream.destroy(new ClientLeftException(error));
    });
  }

  personRead(): void {
    if (this.shared === 0) return;
    this.shared = 0;
    this.share.close();
    this.share = this.budget.open();
  }

  /** Nobody reads on. */
  end(): void {
    this.share.close();
    // At once: a pipe whose end is destroyed pauses its source later.
    this.body.unpipe();
    this.stream.destroy();
    readAway(this.body);
  }

  private async hold(bytes: number): Promise<void> {
    this.isHeld = true;
    this.shared += bytes;
    await this.share.grow(bytes);
    this.isHeld = false;
  }
}

/** A sender that is cut off while it sends never reads why. */
function readAway(body: Readable): void {
  if (body.readableEnded || body.destroyed) return;
  let left = READ_AWAY_BYTES;
  const timer = setTimeout(() => body.destroy(), READ_AWAY_MS).unref();
  body.on('data', (chunk: Buffer) => {
    if ((left -= chunk.length) < 0) body.destroy();
  });
  body.resume();
  finished(body, { writable: false }, () => clearTimeout(timer));
}
