import { setImmediate } from 'node:timers/promises';

/** Others wait about so long for their turn. */
const SLICE_MS = 10;
/** How much is done before the clock is looked at: about a millisecond's worth. */
const BYTES_PER_LOOK = 16 * 1024;

/** Cuts long work on the event loop into slices, so that other requests have their turn in between. */
export class WorkSlices {
  private since = performance.now();
  private bytes = 0;

  /** Whether it is time to give way. @param bytes how much was done since it was asked last */
  isOver(bytes: number): boolean {
    this.bytes += bytes;
    if (this.bytes < BYTES_PER_LOOK) return false;
    this.bytes = 0;
    return performance.now() - this.since > SLICE_MS;
  }

  /** Lets others work. */
  async giveWay(): Promise<void> {
    await setImmediate();
    this.since = performance.now();
  }
}
