import { Logger } from '@nestjs/common';
import { setTimeout as sleep } from 'node:timers/promises';
import { noteFailure } from '../unit-failures.js';
import { OpenSessions } from './open-sessions.js';

/** What was cut has this long to notice. */
const AFTER_CUT_MS = 1000;

/** The units of work that run, and the connections they use: whoever stops the application waits for them, and cuts what is late. */
export class RunningUnits {
  readonly sessions = new OpenSessions();
  private readonly logger = new Logger('TransactionRunner');
  /** Counted: a Set that grew and shrank with each of them would hold on to what they hold until a full garbage collection. */
  private running = 0;
  private left = 0;
  private readonly waitingForIdle: (() => void)[] = [];

  /** Waits for a unit of work of the calling code, and is waited for meanwhile by whoever stops the application. */
  async of<T>(unit: Promise<T>): Promise<T> {
    this.running++;
    try {
      const value = await unit;
      noteFailure(undefined);
      return value;
    } catch (error) {
      noteFailure(error);
      throw error;
    } finally {
      this.ended();
    }
  }

  /** Has something waited for that nobody else waits for; it must not reject. */
  add(aside: Promise<void>): void {
    this.running++;
    void aside.then(() => this.ended());
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
    if (!(await this.isIdleWithin(AFTER_CUT_MS))) this.left = Math.max(0, this.running - this.sessions.size);
  }

  private async isIdleWithin(milliseconds: number): Promise<boolean> {
    const over = new AbortController();
    const late = sleep(milliseconds, false, { signal: over.signal }).catch(() => false);
    const isIdle = await Promise.race([this.untilIdle().then(() => true), late]);
    over.abort();
    return isIdle;
  }

  private async untilIdle(): Promise<void> {
    while (this.running > 0) await new Promise<void>((resolve) => this.waitingForIdle.push(resolve));
  }

  private ended(): void {
    this.running--;
    if (this.running > 0 || this.waitingForIdle.length === 0) return;
    for (const goOn of this.waitingForIdle.splice(0)) goOn();
  }
}
