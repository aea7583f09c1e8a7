import { Logger } from '@nestjs/common';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DataSource } from 'typeorm';
import type { TransactionContext } from '../transactions/transaction-context.js';
import type { TransactionRunner } from '../transactions/transaction-runner.js';
import { type KafkaProducer, type OutgoingRecord, RecordRefusedError } from './kafka-driver.js';
import type { Outbox } from './outbox.js';
import { canListen, untilPending } from './outbox-notifications.js';
import { claimCheckOf, type OutboxRow, outboxRecord } from './outbox-record.js';
import { relayStatements } from './outbox-relay.statements.js';

/** After a shard that another instance works on. */
const BUSY_MS = 50;
const FAILED_MS = 1000;
/** How long stopping sends what is left. */
const FLUSH_MS = 5000;
/** A relay that hangs in between is cut off by the server, and another takes its shard over. */
const HUNG_MS = 10_000;

/**
 * Sends what is in the outbox to Kafka and removes it, at least once and in order per aggregate.
 *
 * Rows are spread over 16 shards by aggregate; whoever holds the advisory lock of a shard, for one transaction, sends its
 * oldest rows. It always looks at all that is there: a position to go on from would pass by a row whose transaction commits
 * later than those behind it.
 */
export class OutboxRelay {
  private readonly logger = new Logger(OutboxRelay.name);
  private readonly stopping = new AbortController();
  private readonly statements: ReturnType<typeof relayStatements>;
  private wakeUp: (() => void) | undefined;
  private isAwake = false;
  private isOver = false;
  private running: Promise<void> | undefined;
  private forgetRelay: () => void = () => undefined;

  constructor(
    private readonly transactions: TransactionRunner,
    private readonly outbox: Outbox,
    private readonly dataSource: DataSource,
    private readonly pollMs: number,
    private readonly producer: () => KafkaProducer | undefined,
  ) {
    this.statements = relayStatements(dataSource);
  }

  start(): void {
    if (this.running) return;
    this.forgetRelay = this.outbox.addRelay(() => this.wake());
    this.running = this.run();
  }

  /** Sends what is there, once more, and ends. @param withinMs what that may take */
  async stop(withinMs = Infinity): Promise<void> {
    this.forgetRelay();
    this.stopping.abort();
    this.wake();
    // What is left then is sent by another instance, or by the next start.
    const late = setTimeout(() => (this.isOver = true), Math.min(FLUSH_MS, withinMs / 2));
    await this.running;
    if (this.running) await this.relayAll().catch((err: unknown) => this.report(err));
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
        const { sent, found } = await this.relayAll();
        if (found > 0 && sent === 0) await this.rest(BUSY_MS, true);
        if (found === 0) await this.idle();
      } catch (error) {
        this.report(error);
        await this.rest(FAILED_MS, false);
      }
    }
  }

  /** Until there may be something to send. */
  private async idle(): Promise<void> {
    const { dataSource, pollMs } = this;
    if (!canListen(dataSource)) return this.rest(pollMs, true);
    const pending = this.statements.pending();
    await this.untilWoken((woken) => untilPending(dataSource, pending, pollMs, woken), true);
  }

  private report(err: unknown): void {
    this.logger.warn({ msg: 'events wait in the outbox: they could not be sent', err });
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

  private async relayAll(): Promise<{ sent: number; found: number }> {
    const { rows } = await this.transactions.runStatement<{ shard: number }>(this.statements.pending(), {
      writes: false,
    });
    let sent = 0;
    for (const { shard } of rows) {
      if (this.isOver) break;
      sent += await this.relayShard(shard);
    }
    return { sent, found: rows.length };
  }

  /** @returns how many were sent; 0 where another instance works on the shard */
  private relayShard(shard: number): Promise<number> {
    const { lock, select, remove } = this.statements;
    return this.transactions.run(
      // A snapshot from before the lock would show what its last holder has sent.
      { isolationLevel: 'READ COMMITTED', idleInTransactionTimeoutMs: HUNG_MS, idempotent: true },
      async (transaction) => {
        const {
          rows: [answer],
        } = await transaction.query<{ locked: boolean }>(lock(shard));
        if (!answer?.locked) return 0;
        const { rows } = await transaction.query<OutboxRow>(select(shard));
        if (rows.length === 0) return 0;
        const sent = await this.send(rows, transaction);
        await transaction.query(remove(shard, sent));
        return sent.length;
      },
    );
  }

  /** @returns the rows that are to be removed */
  private async send(rows: OutboxRow[], transaction: TransactionContext): Promise<OutboxRow[]> {
    try {
      await this.sendBy(rows.map(outboxRecord));
      return rows;
    } catch (error) {
      if (!(error instanceof RecordRefusedError)) throw error;
      return this.sendOneByOne(rows, transaction);
    }
  }

  private async sendBy(records: OutgoingRecord[]): Promise<void> {
    const producer = this.producer();
    if (!producer) throw new Error('Kafka is not connected.');
    await producer.send(records);
  }

  /** A row that is refused delays its own aggregate, and no other. */
  private async sendOneByOne(rows: OutboxRow[], transaction: TransactionContext): Promise<OutboxRow[]> {
    const sent: OutboxRow[] = [];
    const delayed = new Set<string>();
    for (const row of rows) {
      if (delayed.has(row.aggregateid)) continue;
      if (this.isOver) break;
      const refusal = await this.sendOne(row);
      if (!refusal) {
        sent.push(row);
        continue;
      }
      delayed.add(row.aggregateid);
      this.logger.error({
        msg: 'an event is refused by the brokers',
        id: row.id,
        topic: row.topic,
        err: refusal,
      });
      await transaction.query(this.statements.delay(row, refusal.message));
    }
    return sent;
  }

  private async sendOne(row: OutboxRow): Promise<RecordRefusedError | undefined> {
    try {
      await this.sendOrCheckIn(outboxRecord(row), row);
      return undefined;
    } catch (error) {
      if (error instanceof RecordRefusedError) return error;
      throw error;
    }
  }

  /** A dead letter with its headers may be larger than its message was; the row keeps what does not fit. */
  private async sendOrCheckIn(record: OutgoingRecord, row: OutboxRow): Promise<void> {
    try {
      await this.sendBy([record]);
    } catch (error) {
      const isCheckable =
        error instanceof RecordRefusedError && error.isTooLarge && row.type === 'dead-letter';
      if (!isCheckable) throw error;
      await this.sendBy([claimCheckOf(record, row)]);
    }
  }
}
