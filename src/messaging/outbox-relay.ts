import { Logger } from '@nestjs/common';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DataSource } from 'typeorm';
import type { TransactionRunner } from '../transactions/transaction-runner.js';
import { runUntraced } from '../tracing/trace-context.js';
import type { KafkaProducer } from './kafka-driver.js';
import type { Outbox } from './outbox.js';
import type { RefusedTopics } from './outbox/refused-topics.js';
import { canListen, untilPending } from './outbox/notifications.js';
import { OutboxShards } from './outbox/shards.js';

/** After a failure; doubled with each that follows it. */
const FAILED_MS = 1000;
const FAILED_AT_MOST_MS = 5000;
/** How long stopping sends what is left. */
const FLUSH_MS = 5000;
/** How often it is looked for what others have left undone. */
const REPAIR_EVERY_MS = 10_000;

/**
 * Sends what is in the outbox to Kafka and removes it, at least once and in order per aggregate, wherever it runs: in each
 * instance there is one, and they share the 16 shards among them (`OutboxShards`).
 */
export class OutboxRelay {
  private readonly stopping = new AbortController();
  private readonly over = new AbortController();
  private readonly shards: OutboxShards;
  private failures = 0;
  private repairAt = 0;
  private wakeUp: (() => void) | undefined;
  private isAwake = false;
  private running: Promise<void> | undefined;
  private forgetRelay: () => void = () => undefined;

  constructor(
    transactions: TransactionRunner,
    private readonly outbox: Outbox,
    private readonly dataSource: DataSource,
    private readonly pollMs: number,
    producer: () => KafkaProducer | undefined,
    refusedTopics?: RefusedTopics,
  ) {
    const logger = new Logger(OutboxRelay.name);
    const over = this.over.signal;
    this.shards = new OutboxShards({ transactions, dataSource, producer, logger, refusedTopics, over });
  }

  start(): void {
    if (this.running) return this.wake();
    this.forgetRelay = this.outbox.addRelay(() => this.wake());
    this.running = runUntraced(() => this.run());
  }

  /** Sends what is there, once more, and ends. @param withinMs what that may take */
  async stop(withinMs = Infinity): Promise<void> {
    this.forgetRelay();
    this.stopping.abort();
    this.wake();
    // Rows that are left then are sent by another instance, or after the next start.
    const abandon = () => this.over.abort(new Error('The relay is stopped.'));
    const late = setTimeout(abandon, Math.min(FLUSH_MS, withinMs / 2));
    await this.running;
    if (this.running)
      await runUntraced(() => this.shards.relayAll()).catch((error: unknown) =>
        this.shards.tellFailure(error),
      );
    clearTimeout(late);
  }

  private wake(): void {
    this.isAwake = true;
    this.wakeUp?.();
  }

  private async run(): Promise<void> {
    while (!this.stopping.signal.aborted) {
      this.isAwake = false;
      try {
        await this.repairNowAndThen();
        await this.shards.relayAll();
        this.failures = 0;
        await this.idle();
      } catch (error) {
        await this.shards.tellFailure(error);
        await this.rest(Math.min(FAILED_AT_MOST_MS, FAILED_MS * 2 ** this.failures++), false);
      }
    }
  }

  private async repairNowAndThen(): Promise<void> {
    if (performance.now() < this.repairAt) return;
    await this.shards.repair();
    this.repairAt = performance.now() + REPAIR_EVERY_MS;
  }

  /** Until there may be something to send. */
  private async idle(): Promise<void> {
    const { dataSource, pollMs, shards } = this;
    const atMost = Math.min(REPAIR_EVERY_MS, shards.restsMs);
    if (!canListen(dataSource) || shards.areLocked) return this.rest(Math.min(pollMs, atMost), true);
    const over = setTimeout(() => this.wakeUp?.(), atMost);
    try {
      await this.untilWoken((woken) => untilPending(dataSource, shards.pending, pollMs, woken), true);
    } finally {
      clearTimeout(over);
    }
  }

  private rest(milliseconds: number, canBeWoken: boolean): Promise<void> {
    return this.untilWoken((woken) => sleep(milliseconds, undefined, { signal: woken }), canBeWoken);
  }

  /** Until `wait` ends. Stopping ends it in any case. */
  private async untilWoken(wait: (woken: AbortSignal) => Promise<void>, canBeWoken: boolean): Promise<void> {
    if (this.stopping.signal.aborted || (canBeWoken && this.isAwake)) return;
    const woken = new AbortController();
    this.wakeUp = () => (canBeWoken || this.stopping.signal.aborted) && woken.abort();
    try {
      await wait(woken.signal);
    } catch (error) {
      if (!woken.signal.aborted) throw error;
    } finally {
      this.wakeUp = undefined;
    }
  }
}
