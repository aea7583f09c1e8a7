import { Logger } from '@nestjs/common';
import { createHash } from 'node:crypto';
import { ApplicationError, unchanged } from '../errors/application-error.js';
import { type DeadLetterRow, recordOf, rowValues } from './dead-letter.js';
import type { Delivery } from './delivery.js';
import type { IncomingRecord, TopicPartition } from './kafka-driver.js';
import { type QuarantinedKey, quarantineStatements } from './key-quarantine.statements.js';
import type { MessageStore } from './message-store.js';
import { Refreshed } from './refreshed.js';

/** An earlier message of the key is a dead letter, and nothing that could overtake it is handled. HTTP 503. */
export class KeyQuarantinedError extends ApplicationError {
  constructor() {
    super(
      `${unchanged('An earlier message of this key could not be handled')} Replay or discard that dead letter, then send this again.`,
      { type: 'key-quarantined', status: 503, retryable: true },
    );
  }
}

export interface QuarantineSettings {
  store: MessageStore;
  /** The group. */
  consumer: string;
  /** Lines that go on at once, at most. */
  concurrency: number;
  /** True when messages of the partition are handled here. */
  isOwned: (partition: TopicPartition) => boolean;
  /** Hands a parked message over, to be handled like any. */
  readmit: (record: IncomingRecord, parkedAs: string) => Delivery;
}

/**
 * Keys of which a message is a dead letter. What comes of such a key is parked: rows of `message_dead_letter`, a line per
 * key. When the key is released (`DeadLetters.replay`, `discard`), who has its partition handles the line in order, from its
 * head; what comes meanwhile goes behind it; and the quarantine ends with the line.
 */
export class KeyQuarantine {
  private readonly logger = new Logger(KeyQuarantine.name);
  private readonly statements: ReturnType<typeof quarantineStatements>;
  /** At least those of our partitions. */
  private keys = new Set<string>();
  /** To be awaited before `holds` is asked; stale when another instance may have quarantined a key of ours. */
  readonly fresh = new Refreshed(() => this.load());
  /** Lines that go on here, with what of each is being handled; made anew when partitions are shared out anew. */
  private lines: Lines = new Map();
  private readonly steps = new Set<Promise<void>>();
  private isStopped = false;

  constructor(private readonly settings: QuarantineSettings) {
    const { store, consumer } = settings;
    this.statements = quarantineStatements(store.transactions.dataSource, consumer);
  }

  /** Other partitions are ours now, and their keys are others'. */
  assigned(): void {
    this.fresh.markStale();
    this.lines = new Map();
  }

  /** True when the message has to be parked. */
  holds({ record, parkedAs }: Delivery): boolean {
    if (this.keys.size === 0 || record.key === null || parkedAs !== undefined) return false;
    return this.keys.has(nameOf(keyOf(record)));
  }

  /** A message of the key has become a dead letter. */
  add({ record }: Delivery): void {
    if (record.key === null) return;
    this.keys.add(nameOf(keyOf(record)));
    this.fresh.changed();
  }

  /** @returns false when its key is quarantined no more @throws KeyQuarantinedError where a sender waits for its reply */
  async park(delivery: Delivery): Promise<boolean> {
    const { store } = this.settings;
    const key = keyOf(delivery.record);
    const why = { code: 'KEY_QUARANTINED', message: 'An earlier message of its key is a dead letter.' };
    const { rowCount } = await (delivery.replyTo
      ? store.transactions.runStatement(this.statements.find(key), { writes: false })
      : store.transactions.runStatement(this.statements.park(rowValues(delivery, why), delivery.message), {
          writes: true,
          idempotent: true,
        }));
    if (rowCount === 0) this.keys.delete(nameOf(key));
    else if (delivery.replyTo) throw new KeyQuarantinedError();
    return rowCount !== 0;
  }

  /** Begins the lines that were released; to be called now and then. */
  async release(): Promise<void> {
    const { store, isOwned, concurrency } = this.settings;
    const { rows } = await store.transactions.runStatement<QuarantinedKey & { partition: number | null }>(
      this.statements.released(),
      { writes: false },
    );
    for (const { topic, hash, partition } of rows) {
      if (this.isStopped || this.lines.size >= concurrency) return;
      const key = { topic, hash };
      const isOurs = partition === null || isOwned({ topic, partition });
      if (isOurs && !this.lines.has(nameOf(key))) this.goOn(key, this.lines);
    }
  }

  /** A message that was parked is handled, or a dead letter again. */
  handled(delivery: Delivery): void {
    const key = keyOf(delivery.record);
    const isCurrent = this.lines.get(nameOf(key)) === delivery;
    this.goOn(key, isCurrent ? this.lines : (new Map() as Lines), delivery.parkedAs);
  }

  /** Begins nothing more, and waits for what was begun. */
  async stop(): Promise<void> {
    this.isStopped = true;
    while (this.steps.size > 0) await Promise.all(this.steps);
  }

  private goOn(key: QuarantinedKey, lines: Lines, handled?: string): void {
    lines.set(nameOf(key), undefined);
    const step = this.step(key, lines, handled)
      .catch((err: unknown) => {
        // It is found again, with its head, which was handled and is not twice.
        lines.delete(nameOf(key));
        this.logger.warn({ msg: 'parked messages wait: the next could not be read', topic: key.topic, err });
      })
      .finally(() => this.steps.delete(step));
    this.steps.add(step);
  }

  private async step(key: QuarantinedKey, lines: Lines, handled: string | undefined): Promise<void> {
    const { statements } = this;
    const { transactions } = this.settings.store;
    // READ COMMITTED: the head is read as it is once the lock is ours.
    const next = await transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      if (handled !== undefined) await transaction.query(statements.settle(handled));
      const { rowCount } = await transaction.query(statements.lock(key));
      if (rowCount === 0) return 'stopped';
      const { rows } = await transaction.query<DeadLetterRow & { seq: string }>(statements.head(key));
      if (rows.length === 0) await transaction.query(statements.remove(key));
      return rows[0] ?? 'over';
    });
    const isOurs = lines === this.lines && !this.isStopped;
    if (typeof next === 'object') {
      if (isOurs) lines.set(nameOf(key), this.settings.readmit(recordOf(next), next.seq));
      return;
    }
    lines.delete(nameOf(key));
    if (next === 'stopped') return;
    this.keys.delete(nameOf(key));
    this.fresh.changed();
    this.logger.log({ msg: 'key released: what was parked is handled', topic: key.topic });
  }

  private async load(): Promise<void> {
    const { transactions } = this.settings.store;
    const { rows } = await transactions.runStatement<QuarantinedKey>(this.statements.all(), {
      writes: false,
    });
    this.keys = new Set(rows.map(nameOf));
  }
}

type Lines = Map<string, Delivery | undefined>;

const keyOf = ({ topic, key }: IncomingRecord): QuarantinedKey => ({
  topic,
  hash: createHash('sha256').update(key!).digest('base64'),
});

const nameOf = ({ topic, hash }: QuarantinedKey) => `${topic} ${hash}`;
