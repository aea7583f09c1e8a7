import { Logger } from '@nestjs/common';
import { type DeadLetterRow, recordOf } from './letter.js';
import type { Delivery, ParkedLine } from '../delivery.js';
import type { IncomingRecord, TopicPartition } from '../records/record.js';
import type { quarantineStatements } from './quarantine.statements.js';
import type { MessageStore } from '../message-store.js';
import { nameOf, type QuarantinedKey } from './quarantined-key.js';

export interface LinesSettings {
  store: MessageStore;
  statements: ReturnType<typeof quarantineStatements>;
  /** Lines that go on at once, at most. */
  concurrency: number;
  /** Those whose messages are handled here. */
  partitions: () => TopicPartition[];
  /** Hands a parked message over, to be handled like any. */
  readmit: (record: IncomingRecord, parkedAs: string, attempts: number, line: ParkedLine) => Delivery;
  onBegun: (key: QuarantinedKey) => void;
  /** Nothing of the key is parked any more. */
  onOver: (key: QuarantinedKey) => void;
}

const MESSAGES_AT_ONCE = 64;
const BYTES_AT_ONCE = 1024 * 1024;
/** Messages that take longer are read one by one, so that it is seen what becomes of the others meanwhile. */
const SLOW_MS = 1000;

/**
 * Has the parked messages of released keys handled: each line in order, from its head, by who has the partition. What is read
 * is marked as handled, or put back, before more is read.
 */
export class ParkedLines {
  private readonly logger = new Logger(ParkedLines.name);
  /** Made anew when partitions are shared out anew. */
  private lines = new Map<string, ParkedLine>();
  /** Keys whose line may begin once another has ended. */
  private due: QuarantinedKey[] = [];
  private readonly steps = new Set<Promise<void>>();
  private isStopped = false;

  constructor(private readonly settings: LinesSettings) {}

  /** Forgets what goes on here, as partitions are shared out anew; it is found again. */
  forget(): void {
    const lines = [...this.lines.values()];
    this.lines = new Map();
    this.due = [];
    this.settle(lines);
  }

  /** Begins the lines that may go on; to be called now and then. */
  async release(): Promise<void> {
    const { store, statements, partitions } = this.settings;
    const { lines } = this;
    const { rows } = await store.transactions.runStatement<QuarantinedKey>(
      statements.released(partitions()),
      { writes: false },
    );
    if (lines !== this.lines) return;
    this.due = rows;
    this.begin();
  }

  /** The key's line, if it goes on here. */
  of(key: QuarantinedKey): ParkedLine | undefined {
    return this.lines.get(nameOf(key));
  }

  /** Keeps the key's line from being begun, until it is told to go on or ends. @returns the line */
  reserve(key: QuarantinedKey): ParkedLine {
    const line: ParkedLine = {
      ...{ key, open: new Set(), handled: [], isStopped: false },
      ...{ atOnce: 1, readAt: performance.now() },
    };
    this.lines.set(nameOf(key), line);
    return line;
  }

  /** One of the line is handled, or a dead letter again. */
  ended(delivery: Delivery): void {
    const line = delivery.line!;
    line.open.delete(delivery);
    // A dead letter's row is parked no more, and what stands behind one that the line waits for still is.
    if (delivery.outcome === 'handled' && delivery.parkedAs !== undefined) line.handled.push(delivery.parkedAs);
    if (line.open.size === 0 || !this.isCurrent(line)) this.goOn(line);
  }

  /** Marks what is handled, and reads the next. */
  goOn(line: ParkedLine): void {
    const step = this.step(line)
      .catch((err: unknown) => {
        // It is found again, with its head, which was handled and is not twice.
        this.end(line);
        const { topic } = line.key;
        this.logger.warn({ msg: 'parked messages wait: the next could not be read', topic, err });
      })
      .finally(() => this.steps.delete(step));
    this.steps.add(step);
  }

  /** The line goes on no more, until it is found again. */
  end(line: ParkedLine): void {
    if (!this.isCurrent(line)) return;
    this.lines.delete(nameOf(line.key));
    this.begin();
  }

  /** Begins nothing more, and waits for what was begun. */
  async stop(): Promise<void> {
    this.isStopped = true;
    this.settle([...this.lines.values()]);
    while (this.steps.size > 0) await Promise.all(this.steps);
  }

  private settle(lines: readonly ParkedLine[]): void {
    for (const line of lines) if (line.handled.length > 0) this.goOn(line);
  }

  private begin(): void {
    while (!this.isStopped && this.lines.size < this.settings.concurrency) {
      const key = this.due.shift();
      if (!key) return;
      if (this.lines.has(nameOf(key))) continue;
      this.settings.onBegun(key);
      this.goOn(this.reserve(key));
    }
  }

  private async step(line: ParkedLine): Promise<void> {
    const { store, statements, onOver } = this.settings;
    const { key } = line;
    const handled = line.handled.splice(0);
    const isQuick = performance.now() - line.readAt < SLOW_MS;
    const atOnce = isQuick ? line.atOnce : 1;
    // READ COMMITTED: the head is read as it is once the lock is ours.
    const next = await store.transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      const { rowCount } = await transaction.query(statements.lock(key));
      if (handled.length > 0) await transaction.query(statements.settle(handled));
      if (rowCount === 0 || !this.isCurrent(line) || this.isStopped) return 'stopped';
      const head = statements.head(key, atOnce, BYTES_AT_ONCE);
      const { rows } = await transaction.query<DeadLetterRow & { seq: string }>(head);
      if (rows.length === 0) await transaction.query(statements.remove(key));
      return rows.length === 0 ? 'over' : rows;
    });
    if (next === 'over') onOver(key);
    if (typeof next === 'string') return this.end(line);
    if (!this.isCurrent(line) || this.isStopped) return;
    line.atOnce = Math.min(2 * atOnce, MESSAGES_AT_ONCE);
    line.readAt = performance.now();
    const readmit = (row: DeadLetterRow & { seq: string }) =>
      this.settings.readmit(recordOf(row), row.seq, row.attempts, line);
    // Before the first of them can end.
    for (const delivery of next.map(readmit)) line.open.add(delivery);
  }

  private isCurrent(line: ParkedLine): boolean {
    return this.lines.get(nameOf(line.key)) === line;
  }
}
