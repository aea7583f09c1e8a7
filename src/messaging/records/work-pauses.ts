import { setImmediate as immediate } from 'node:timers/promises';

/** How long is worked without a break. */
const SLICE_MS = 10;

/** Lets others run now and then. */
export class WorkPauses {
  private since = performance.now();
  private steps = 0;

  /** @param stepsAtOnce after so many steps the clock is looked at */
  constructor(private readonly stepsAtOnce: number) {}

  /** To be awaited after each step; undefined where the work may go on at once. */
  now(): Promise<void> | undefined {
    if (++this.steps % this.stepsAtOnce !== 0 || performance.now() - this.since < SLICE_MS) return undefined;
    return immediate().then(() => void (this.since = performance.now()));
  }
}
