import { Logger } from '@nestjs/common';
import { setTimeout as sleep } from 'node:timers/promises';
import { OpenSessions } from './open-sessions.js';

/** What was cut has this long to notice. */
const AFTER_CUT_MS = 1000;

/** The units of work that run, and the connections they use: whoever stops the application waits for them, and cuts what is late. */
export class RunningUnits {
  readonly sessions = new OpenSessions();
  private readonly logger = new Logger('TransactionRunner');
  private readonly running = new Set<Promise<unknown>>();
  private left = 0;

  add(unit: Promise<unknown>): void {
    this.running.add(unit);
  }

  delete(unit: Promise<unknown>): void {
    this.running.delete(unit);
  }

  /** Those that did not end before the deadline of stopping. */
  get unfinished(): number {
    return this.sessions.cut + this.left;
  }

  /** Waits until what runs has ended, and cuts the connections of what does not end in time. Ends soon after that, whatever waits. */
  async drain(atMostMs: number): Promise<void> {
    // Also where all has ended here: a unit on another DataSource, which runs still, may begin one.
    setTimeout(() => this.sessions.cutAll(), atMostMs).unref();
    if (await this.isIdleWithin(atMostMs)) return;
    this.logger.error('Units of work did not end in time; their connections are cut.');
    this.sessions.cutAll();
    // Those that have no connection to be cut: they wait for one, or for what follows their commit.
    if (!(await this.isIdleWithin(AFTER_CUT_MS)))
      this.left = Math.max(0, this.running.size - this.sessions.size);
  }

  private async isIdleWithin(milliseconds: number): Promise<boolean> {
    const over = new AbortController();
    const late = sleep(milliseconds, false, { signal: over.signal }).catch(() => false);
    const isIdle = await Promise.race([this.untilIdle().then(() => true), late]);
    over.abort();
    return isIdle;
  }

  private async untilIdle(): Promise<void> {
    while (this.running.size > 0) await Promise.allSettled(this.running);
  }
}
