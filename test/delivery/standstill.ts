import { setTimeout as sleep } from 'node:timers/promises';
import type { Topics } from './topics.js';

const EVERY_MS = 200;

/** Watches, until `stop`, how long a partition stays where it is while there is something left in it. */
export class Standstill {
  longestMs = 0;
  private readonly last = new Map<number, { committed: number; since: number }>();
  private isOver = false;
  private readonly watching: Promise<void>;

  constructor(private readonly topics: Topics) {
    this.watching = this.watch();
  }

  async stop(): Promise<number> {
    this.isOver = true;
    await this.watching;
    return this.longestMs;
  }

  private async watch(): Promise<void> {
    while (!this.isOver) {
      const progress = await this.topics.progress().catch(() => undefined);
      const now = Date.now();
      // Nobody knows what stands while the broker is away.
      if (!progress) this.last.clear();
      for (const [partition, { committed, end }] of progress ?? []) {
        const last = this.last.get(partition);
        if (!last || committed >= end || committed !== last.committed)
          this.last.set(partition, { committed, since: now });
        else this.longestMs = Math.max(this.longestMs, now - last.since);
      }
      await sleep(EVERY_MS);
    }
  }
}
