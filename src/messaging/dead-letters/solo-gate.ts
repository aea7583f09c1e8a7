import { setTimeout as sleep } from 'node:timers/promises';

/** Lets work run side by side, or alone. */
export class SoloGate {
  private running = 0;
  private solo: Promise<void> | undefined;
  private emptied: (() => void) | undefined;

  /** @param patienceMs how long one that is to be alone waits for those that run; then it runs beside them */
  constructor(private readonly patienceMs: number) {}

  async together<T>(work: () => Promise<T>): Promise<T> {
    while (this.solo) await this.solo;
    this.running++;
    try {
      return await work();
    } finally {
      if (--this.running === 0) this.emptied?.();
    }
  }

  async alone<T>(work: () => Promise<T>): Promise<T> {
    while (this.solo) await this.solo;
    let end!: () => void;
    this.solo = new Promise((resolve) => (end = resolve));
    try {
      if (this.running > 0) await this.untilEmpty();
      return await work();
    } finally {
      this.solo = this.emptied = undefined;
      end();
    }
  }

  private async untilEmpty(): Promise<void> {
    const late = new AbortController();
    const empty = new Promise<void>((resolve) => (this.emptied = resolve));
    await Promise.race([
      empty,
      sleep(this.patienceMs, undefined, { signal: late.signal }).catch(() => undefined),
    ]);
    late.abort();
  }
}
