import { performance } from 'node:perf_hooks';

/** How long what was seen last is believed. */
const LOOK_EVERY_MS = 50;
/** Of its time: a process that works for more of it has none to spare. */
const BUSY = 0.85;

/** Knows whether this process mostly works, or mostly waits for others. */
export class SpareTime {
  private before = performance.eventLoopUtilization();
  private lookedAt = performance.now();
  private isBusy = false;

  /** True where it waits for others. */
  isThere(now: number): boolean {
    if (now - this.lookedAt > LOOK_EVERY_MS) {
      const seen = performance.eventLoopUtilization();
      this.isBusy = performance.eventLoopUtilization(seen, this.before).utilization > BUSY;
      this.before = seen;
      this.lookedAt = now;
    }
    return !this.isBusy;
  }
}
