import type { Logger } from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import type { QueryResult, QueryResultRow } from 'pg';
import type { DataSource } from 'typeorm';
import { hasSqlState } from '../../database/database-failure.js';
import { LockTimeoutError, UNDEFINED_COLUMN } from '../../database/postgres-errors.js';
import { ApplicationError } from '../../errors/application-error.js';
import type { Statement } from '../../transactions/transaction-context.js';
import type { TransactionRunner } from '../../transactions/transaction-runner.js';
import type { KafkaProducer } from '../kafka-driver.js';
import { lockHolders } from './locks.js';
import type { OutboxRow } from './record.js';
import { LEASE_MS, relayStatements } from './statements.js';
import { OutboxSending } from './sending.js';
import type { RefusedTopics } from './refused-topics.js';
import { TraceColumn } from './trace-column.js';
import { ToldOnce } from '../telling.js';

export interface ShardsSettings {
  transactions: TransactionRunner;
  dataSource: DataSource;
  producer: () => KafkaProducer | undefined;
  logger: Logger;
  /** Told what the brokers refuse. */
  refusedTopics?: RefusedTopics | undefined;
  /** Aborted when nothing may be waited for any more. */
  over: AbortSignal;
}

/** How long a statement waits for a table that somebody has locked: a connection of the pool is held meanwhile. */
const LOCK_TIMEOUT_MS = 500;
/** How long a shard rests that somebody else has locked; doubled each time it is met so again. */
const LOCKED_MS = 50;
const LOCKED_AT_MOST_MS = 5000;
/** So often in a row a shard must be found locked before it is told: other relays lock rows for a moment, too. */
const TOLD_FROM = 5;

/**
 * The shards of the outbox, as one relay works on them. Rows are spread over 16 by aggregate, and whoever has the lease of
 * one (a row of `message_outbox_lease`, for 10 s) sends its oldest rows: a short transaction takes the lease, one reads the
 * rows, one removes what was sent, and one gives the lease back. No transaction is open and no connection of the pool is held
 * while they are sent, so a relay whose lease has run out may send as well as the next holder. That repeats events and loses
 * none, and each first occurrence stays in order: whoever sends a row sends those before it of its aggregate, or they were
 * acknowledged. What was acknowledged is removed by whoever sent it, with or without the lease.
 *
 * It always looks at all that is there: a position to go on from would pass by a row whose transaction commits later than
 * those behind it.
 */
export class OutboxShards {
  /** Somebody who comes back after the lease has run out must not be taken for its holder. */
  private readonly holder = randomUUID();
  private readonly made: Partial<Record<'traced' | 'untraced', ReturnType<typeof relayStatements>>> = {};
  private readonly traceColumn: TraceColumn;
  private readonly sending: OutboxSending;
  /** Rows that are with the brokers and can't be removed at the moment; by shard, no more than are read at once. */
  private readonly acknowledged = new Map<number, Set<string>>();
  /** Shards that somebody else has locked: how often in a row that was met, and when they are looked at again. */
  private readonly locked = new Map<number, { times: number; until: number }>();
  private readonly failing: ToldOnce;
  private readonly waiting: ToldOnce;

  constructor(private readonly settings: ShardsSettings) {
    const { dataSource, producer, logger, refusedTopics } = settings;
    this.traceColumn = TraceColumn.of(dataSource);
    this.sending = new OutboxSending(producer, refusedTopics);
    this.failing = new ToldOnce(logger, 'events of the outbox are sent again');
    this.waiting = new ToldOnce(logger, 'nobody locks the outbox any more; its events go on');
  }

  private get statements() {
    const { isThere } = this.traceColumn;
    return (this.made[isThere ? 'traced' : 'untraced'] ??= relayStatements(
      this.settings.dataSource,
      isThere,
    ));
  }

  /** Gives the shards that somebody could take now. */
  get pending(): Statement {
    return this.statements.pending();
  }

  /** True while shards rest that somebody has locked. */
  get areLocked(): boolean {
    return this.locked.size > 0;
  }

  /** When the next of them is to be looked at, in ms from now. */
  get restsMs(): number {
    const soonest = Math.min(...[...this.locked.values()].map(({ until }) => until));
    return Math.max(0, soonest - performance.now());
  }

  /**
   * Sends what can be sent now.
   *
   * @throws Error the brokers or the database can't be reached, or a table is locked
   */
  async relayAll(): Promise<void> {
    while (!this.settings.over.aborted) {
      // Without a producer the rows would be read in vain.
      if (!this.settings.producer()) throw new Error('Kafka is not connected.');
      const until = performance.now() + LEASE_MS;
      const { taken, open } = await this.take();
      if (taken === null) {
        await this.meetLocked(open);
        break;
      }
      if (await this.relayShard(taken, until)) this.locked.delete(taken);
      else await this.meetLocked([taken]);
    }
    this.failing.isOver();
    if (!this.areLocked) this.waiting.isOver();
  }

  /** Makes good what others have removed. @throws as `relayAll` */
  async repair(): Promise<void> {
    await this.query(this.statements.repair());
  }

  /** Tells that events wait, and why, unless that was told already. */
  async tellFailure(error: unknown): Promise<void> {
    if (error instanceof LockTimeoutError) return this.tellLocked([]);
    if (hasSqlState(error, UNDEFINED_COLUMN)) this.traceColumn.doubt();
    const { name, message } = error as Error;
    this.failing.is(`${name}: ${message}`, {
      msg: 'events wait in the outbox: they could not be sent',
      err: error,
    });
  }

  private async take(): Promise<{ taken: number | null; open: number[] }> {
    const now = performance.now();
    const resting = [...this.locked].filter(([, { until }]) => until > now).map(([shard]) => shard);
    const { rows } = await this.query<{ taken: number | null; open: number[] }>(
      this.statements.take(this.holder, resting),
    );
    const { taken, open } = rows[0]!;
    for (const shard of this.locked.keys())
      if (!resting.includes(shard) && !open.includes(shard)) this.locked.delete(shard);
    return { taken, open };
  }

  /** @returns false when nothing could be done, as somebody else has locked its rows */
  private async relayShard(shard: number, until: number): Promise<boolean> {
    let isDone: boolean;
    try {
      isDone = await this.sendShard(shard, until);
    } catch (error) {
      await this.release(shard).catch((err: unknown) =>
        this.settings.logger.debug({ msg: 'a lease of the outbox was not given back; it runs out', err }),
      );
      throw error;
    }
    const linedUp = await this.release(shard);
    return isDone || linedUp > 0;
  }

  private async sendShard(shard: number, until: number): Promise<boolean> {
    const { statements, settings, sending } = this;
    const limits = { signal: settings.over, until };
    let isDone = await this.remove(shard, []);
    while (!settings.over.aborted && performance.now() < until - LEASE_MS / 2) {
      const { rows } = await this.query<OutboxRow>(statements.select(shard));
      const unsent = rows.filter(({ seq }) => !this.acknowledged.get(shard)?.has(seq));
      if (unsent.length === 0) break;
      const { sent, refusals, failure } = await sending.send(unsent, limits);
      isDone = (await this.remove(shard, sent)) || isDone;
      if (refusals.length > 0) {
        const { rowCount } = await this.query(statements.delay(shard, refusals));
        isDone ||= (rowCount ?? 0) > 0;
      }
      if (failure !== undefined) throw failure as Error;
      // The next look would find the same rows, locked or refused.
      if (this.acknowledged.has(shard) || refusals.length > 0) break;
    }
    return isDone;
  }

  /**
   * Removes what was sent, now and before. What somebody has locked is kept in mind and not sent again meanwhile.
   *
   * @returns whether something was removed
   */
  private async remove(shard: number, sent: readonly OutboxRow[]): Promise<boolean> {
    const seqs = [...(this.acknowledged.get(shard) ?? []), ...sent.map(({ seq }) => seq)];
    if (seqs.length === 0) return false;
    this.acknowledged.delete(shard);
    try {
      const { rows } = await this.query<{ seq: string }>(this.statements.remove(shard, seqs));
      if (rows.length > 0) this.acknowledged.set(shard, new Set(rows.map(({ seq }) => seq)));
      return rows.length < seqs.length;
    } catch (error) {
      // They are remembered only if the failure passes by itself; else they are sent again, and the failure is told.
      if (error instanceof ApplicationError && error.retryable) this.acknowledged.set(shard, new Set(seqs));
      throw error;
    }
  }

  private async release(shard: number): Promise<number> {
    const { rows } = await this.query<{ lined_up: number }>(this.statements.release(shard, this.holder));
    return rows[0]!.lined_up;
  }

  private async meetLocked(shards: readonly number[]): Promise<void> {
    for (const shard of shards) {
      const times = (this.locked.get(shard)?.times ?? 0) + 1;
      const restMs = Math.min(LOCKED_AT_MOST_MS, LOCKED_MS * 2 ** times);
      this.locked.set(shard, { times, until: performance.now() + restMs });
    }
    const long = [...this.locked].filter(([, { times }]) => times >= TOLD_FROM).map(([shard]) => shard);
    if (long.length > 0) await this.tellLocked(long);
  }

  /** @param shards whose rows are locked; none where whole tables are */
  private async tellLocked(shards: readonly number[]): Promise<void> {
    const query = <Row extends QueryResultRow>(statement: Statement) => this.query<Row>(statement);
    const holders = await lockHolders(this.settings.dataSource, shards, query).catch((err: unknown) => {
      this.settings.logger.debug({ msg: 'who locks the outbox could not be found out', err });
      return [];
    });
    const pids = [...new Set(holders.map(({ pid }) => pid))].sort();
    this.waiting.is(`locked by ${pids.join()}`, {
      msg: 'events wait in the outbox: somebody else has locked its rows, or the tables it works with',
      ...(shards.length > 0 && { shards }),
      holders: holders.length > 0 ? holders : 'could not be found out',
    });
  }

  /** One statement in a transaction of its own, which waits for no lock for long. */
  private query<Row extends QueryResultRow>(statement: Statement): Promise<QueryResult<Row>> {
    return this.settings.transactions.run(
      { isolationLevel: 'READ COMMITTED', lockTimeoutMs: LOCK_TIMEOUT_MS, idempotent: true },
      (transaction) => transaction.query<Row>(statement),
    );
  }
}
