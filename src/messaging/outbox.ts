// messaging/outbox/: Events that are written with their transaction, and the relay that sends them.
// Promises: sent at least once, first occurrences in order per aggregate; no connection is held while the broker is waited for.
// May know: transactions/, the producer of the port, and dead-letters/ for letters that are sent the same way.

import {
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
  type OnModuleDestroy,
} from '@nestjs/common';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DataSource } from 'typeorm';
import { preparedName } from '../database/prepared-name.js';
import type { PipelinedStatement } from '../database/pg/pipelined-query.js';
import { currentTransaction, type TransactionContext } from '../transactions/transaction-context.js';
import { TransactionUsageError } from '../transactions/transaction-errors.js';
import { TRANSACTIONS_DATA_SOURCE } from '../transactions/transaction-runner.js';
import { tableIn } from '../database/table-name.js';
import { outgoingHeaders, type TraceHeaders } from '../tracing/trace-context.js';
import { notifyRelays } from './outbox/notifications.js';
import { TraceColumn } from './outbox/trace-column.js';

/** Something that happened, for others to know. Sent as a CloudEvent 1.0. */
export interface OutboxEvent {
  /** What it happened to; `ce_source` is `/<aggregateType>`. */
  aggregateType: string;
  /** Which one; the Kafka key. Events of one aggregate are sent in order. */
  aggregateId: string;
  /** `ce_type`, for instance `person.created`. */
  type: string;
  /** The Kafka topic. */
  topic: string;
  /** The data, as JSON text or as a value that `JSON.stringify` takes; undefined sends a tombstone. */
  payload?: { json: string } | { value: unknown } | undefined;
}

/** An event, and what it was published in. */
interface TracedEvent {
  event: OutboxEvent;
  trace: TraceHeaders | undefined;
}

/** The least time between two notifications. */
const NOTIFY_EVERY_MS = 20;
/** Its longest form in bytes: it is in an index, and is the key of a record. */
const LONGEST_AGGREGATE_ID = 1000;

const relays = new WeakMap<DataSource, Set<() => void>>();

/**
 * Events that leave if and only if the unit of work that publishes them is committed: rows of `message_outbox`, written in
 * the same transaction, which a relay sends to Kafka at least once. The columns are those of Debezium's outbox event router.
 */
@Injectable()
export class Outbox implements OnApplicationBootstrap, OnModuleDestroy {
  private readonly logger = new Logger(Outbox.name);
  private notifying: Promise<void> | undefined;
  private isNotifyingAgain = false;
  private firstLook: Promise<void> | undefined;
  private readonly insertions: Record<'traced' | 'untraced', Omit<PipelinedStatement, 'values'>>;
  private readonly published = new WeakMap<TransactionContext, TracedEvent[]>();
  private readonly traceColumn: TraceColumn;

  constructor(@Inject(TRANSACTIONS_DATA_SOURCE) private readonly dataSource: DataSource) {
    this.traceColumn = TraceColumn.of(dataSource);
    this.insertions = { traced: this.insertion(', trace', ', trace json'), untraced: this.insertion('', '') };
  }

  /** The service migrates later than this, and looks once more then. Nest asks for it once for each module that gives the outbox on. */
  onApplicationBootstrap(): Promise<void> {
    return (this.firstLook ??= this.traceColumn.look());
  }

  /** True where events can carry the trace that they were published in: the table has its column `trace`. */
  get hasTrace(): boolean {
    return this.traceColumn.isThere;
  }

  /** Looks whether the table has it by now. */
  look(): Promise<void> {
    return this.traceColumn.look();
  }

  /** A statement that names the table's columns has failed for want of one. */
  doubt(): void {
    this.traceColumn.doubt();
  }

  /** The table, with its schema, for statements that write events themselves. */
  get table(): string {
    return tableIn(this.dataSource, 'message_outbox');
  }

  /**
   * Publishes an event in the unit of work that calls it; it is written together with COMMIT. For the order of an
   * aggregate's events to be that of its changes, change (or lock) its row in the same unit of work.
   *
   * @throws TransactionUsageError there is no unit of work on this DataSource around the call, or `aggregateId` has more than
   * 1,000 bytes
   */
  publish(event: OutboxEvent): void {
    const transaction = currentTransaction();
    if (!transaction || transaction.dataSource !== this.dataSource)
      throw new TransactionUsageError(
        'outbox.publish() needs a unit of work around it: TransactionRunner.run or @Transactional.',
      );
    if (transaction.hasEnded)
      throw new TransactionUsageError(
        `Transaction ${transaction.id} has ended: publish its events before that.`,
      );
    const bytes = Buffer.byteLength(event.aggregateId);
    if (bytes > LONGEST_AGGREGATE_ID)
      throw new TransactionUsageError(
        `The aggregateId of an event has ${bytes} bytes; give one of at most ${LONGEST_AGGREGATE_ID}.`,
      );
    let events = this.published.get(transaction);
    if (!events) {
      const all: TracedEvent[] = (events = []);
      this.published.set(transaction, all);
      transaction.atCommit(() => this.insert(all));
      transaction.afterCommit(() => this.wake());
    }
    events.push({ event, trace: outgoingHeaders() });
  }

  /** Tells the relay of this process, or else those of others, that there is something to send. They look by themselves as well. */
  wake(): void {
    const here = relays.get(this.dataSource);
    if (here && here.size > 0) for (const wake of here) wake();
    else {
      this.isNotifyingAgain = true;
      this.notifying ??= this.notify().finally(() => (this.notifying = undefined));
    }
  }

  /** Nest's hook: waits for notifications that are under way. */
  async onModuleDestroy(): Promise<void> {
    await this.notifying;
    await this.traceColumn.untilIdle();
  }

  /** A relay of this process, to be woken. @returns ends that */
  addRelay(wake: () => void): () => void {
    const here = relays.get(this.dataSource) ?? new Set();
    relays.set(this.dataSource, here.add(wake));
    return () => here.delete(wake);
  }

  private async notify(): Promise<void> {
    while (this.isNotifyingAgain) {
      this.isNotifyingAgain = false;
      await notifyRelays(this.dataSource).catch((err: unknown) =>
        this.logger.debug({ msg: 'relays could not be notified; they look by themselves', err }),
      );
      await sleep(NOTIFY_EVERY_MS);
    }
  }

  private insert(events: readonly TracedEvent[]): PipelinedStatement {
    const { traced, untraced } = this.insertions;
    const rows = events.map(({ event: { aggregateType, aggregateId, type, topic, payload }, trace }) => ({
      ...{ aggregatetype: aggregateType, aggregateid: aggregateId, type, topic },
      payload: payload && ('json' in payload ? payload.json : JSON.stringify(payload.value)),
      trace,
    }));
    return { ...(this.hasTrace ? traced : untraced), values: [JSON.stringify(rows)] };
  }

  private insertion(column: string, field: string): Omit<PipelinedStatement, 'values'> {
    const text = `INSERT INTO ${this.table} (aggregatetype, aggregateid, type, topic, payload${column})
      SELECT aggregatetype, aggregateid, type, topic, payload::json${column}
      FROM json_to_recordset($1) AS e(aggregatetype text, aggregateid text, type text, topic text, payload text${field})`;
    return { name: preparedName('nestjs_people_outbox_insert', text), text };
  }
}
