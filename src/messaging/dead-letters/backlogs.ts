import { Logger } from '@nestjs/common';
import { standingFor, ToldRarely } from '../../errors/told-rarely.js';
import { type DeadLetterRow, recordOf } from './letter.js';
import type { Delivery, Backlog } from '../delivery.js';
import type { IncomingRecord, TopicPartition } from '../records/record.js';
import type { quarantineStatements } from './quarantine.statements.js';
import type { MessageStore } from '../message-store.js';
import { nameOf, type QuarantinedKey } from './quarantined-key.js';

export interface BacklogsSettings {
  store: MessageStore;
  statements: ReturnType<typeof quarantineStatements>;
  /** Backlogs that go on at once, at most. */
  concurrency: number;
  /** Those whose messages are handled here. */
  partitions: () => TopicPartition[];
  /** Hands a parked message over, to be handled like any. */
  readmit: (record: IncomingRecord, parkedAs: string, attempts: number, backlog: Backlog) => Delivery;
  onBegun: (key: QuarantinedKey) => void;
  /** Nothing of the key is parked any more. */
  onOver: (key: QuarantinedKey) => void;
}

const MESSAGES_AT_ONCE = 64;
const BYTES_AT_ONCE = 1024 * 1024;
/** If messages take longer, the next are read one by one: what is read here can't be changed by an operator meanwhile. */
const SLOW_MS = 1000;

/**
 * Has the parked messages of released keys handled: the backlog of each key in order, by who has its partition. What is read
 * is marked as handled, or put back, before more is read.
 */
export class Backlogs {
  private readonly logger = new Logger(Backlogs.name);
  private readonly told = new ToldRarely();
  /** Made anew when partitions are assigned anew. */
  private backlogs = new Map<string, Backlog>();
  /** Keys whose backlog may begin once another has ended. */
  private due: QuarantinedKey[] = [];
  private readonly steps = new Set<Promise<void>>();
  private isStopped = false;

  constructor(private readonly settings: BacklogsSettings) {}

  /** Forgets what goes on here, as partitions are assigned anew; it is found again. */
  forget(): void {
    const backlogs = [...this.backlogs.values()];
    this.backlogs = new Map();
    this.due = [];
    this.markHandled(backlogs);
  }

  /** Begins the backlogs that may go on; to be called now and then. */
  async release(): Promise<void> {
    const { store, statements, partitions } = this.settings;
    const { backlogs } = this;
    const { rows } = await store.transactions.runStatement<QuarantinedKey>(
      statements.released(partitions()),
      { writes: false },
    );
    if (backlogs !== this.backlogs) return;
    this.due = rows;
    this.begin();
  }

  /** The key's backlog, if it goes on here. */
  of(key: QuarantinedKey): Backlog | undefined {
    return this.backlogs.get(nameOf(key));
  }

  /** Keeps the key's backlog from being begun, until it is told to go on or ends. @returns the backlog */
  reserve(key: QuarantinedKey): Backlog {
    const backlog: Backlog = {
      ...{ key, open: new Set(), handled: [], isStopped: false },
      ...{ atOnce: 1, readAt: performance.now() },
    };
    this.backlogs.set(nameOf(key), backlog);
    return backlog;
  }

  /** One of the backlog is handled, or a dead letter again. */
  ended(delivery: Delivery): void {
    const backlog = delivery.backlog!;
    backlog.open.delete(delivery);
    // The row of a dead letter is not parked any more, and a message that was parked anew still is: neither is marked as handled.
    if (delivery.outcome === 'handled' && delivery.parkedAs !== undefined)
      backlog.handled.push(delivery.parkedAs);
    if (backlog.open.size === 0 || !this.isCurrent(backlog)) this.goOn(backlog);
  }

  /** Marks what is handled, and reads the next. */
  goOn(backlog: Backlog): void {
    const step = this.step(backlog)
      .catch((err: unknown) => {
        // It is found again from its head on; the inbox knows which messages of it were handled.
        this.end(backlog);
        const { topic } = backlog.key;
        const msg = 'parked messages wait: the next could not be read';
        this.told.of(topic, (more) => this.logger.warn({ msg, topic, ...standingFor(more), err }));
      })
      .finally(() => this.steps.delete(step));
    this.steps.add(step);
  }

  /** The backlog goes on no more, until it is found again. */
  end(backlog: Backlog): void {
    if (!this.isCurrent(backlog)) return;
    this.backlogs.delete(nameOf(backlog.key));
    this.begin();
  }

  /** Begins nothing more, and waits for what was begun. */
  async stop(): Promise<void> {
    this.isStopped = true;
    this.markHandled([...this.backlogs.values()]);
    while (this.steps.size > 0) await Promise.all(this.steps);
  }

  private markHandled(backlogs: readonly Backlog[]): void {
    for (const backlog of backlogs) if (backlog.handled.length > 0) this.goOn(backlog);
  }

  private begin(): void {
    while (!this.isStopped && this.backlogs.size < this.settings.concurrency) {
      const key = this.due.shift();
      if (!key) return;
      if (this.backlogs.has(nameOf(key))) continue;
      this.settings.onBegun(key);
      this.goOn(this.reserve(key));
    }
  }

  private async step(backlog: Backlog): Promise<void> {
    const { store, statements, onOver } = this.settings;
    const { key } = backlog;
    const handled = backlog.handled.splice(0);
    const isQuick = performance.now() - backlog.readAt < SLOW_MS;
    const atOnce = isQuick ? backlog.atOnce : 1;
    // READ COMMITTED reads the head as it is once this transaction has got the lock.
    const next = await store.transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      const { rowCount } = await transaction.query(statements.lock(key));
      if (handled.length > 0) await transaction.query(statements.markHandled(handled));
      if (rowCount === 0 || !this.isCurrent(backlog) || this.isStopped) return 'stopped';
      const head = statements.head(key, atOnce, BYTES_AT_ONCE);
      const { rows } = await transaction.query<DeadLetterRow & { seq: string }>(head);
      if (rows.length === 0) await transaction.query(statements.remove(key));
      return rows.length === 0 ? 'over' : rows;
    });
    if (next === 'over') onOver(key);
    if (typeof next === 'string') return this.end(backlog);
    if (!this.isCurrent(backlog) || this.isStopped) return;
    backlog.atOnce = Math.min(2 * atOnce, MESSAGES_AT_ONCE);
    backlog.readAt = performance.now();
    const readmit = (row: DeadLetterRow & { seq: string }) =>
      this.settings.readmit(recordOf(row), row.seq, row.attempts, backlog);
    // None of them can have ended yet, as handling is asynchronous.
    for (const delivery of next.map(readmit)) backlog.open.add(delivery);
  }

  private isCurrent(backlog: Backlog): boolean {
    return this.backlogs.get(nameOf(backlog.key)) === backlog;
  }
}
