import { Logger } from '@nestjs/common';
import { ApplicationError } from '../errors/application-error.js';
import { rowValues } from './dead-letter.js';
import type { Delivery } from './delivery.js';
import { keyOf, nameOf, type QuarantinedKey, quarantineStatements } from './key-quarantine.statements.js';
import type { LeavingLane } from './message-lanes.js';
import { type LinesSettings, type ParkedLine, ParkedLines } from './parked-lines.js';
import { Refreshed } from './refreshed.js';

/** An earlier message of the key is a dead letter, and nothing that could overtake it is handled. HTTP 503. */
export class KeyQuarantinedError extends ApplicationError {
  constructor() {
    super(
      'An earlier message of this key could not be handled; nothing was changed. Replay or discard that dead letter, then send this again.',
      { type: 'key-quarantined', status: 503, retryable: true },
    );
  }
}

/** Earlier messages of the key wait to be tried again, too many of them for this one to wait behind. HTTP 503. */
export class KeyWaitsError extends ApplicationError {
  constructor() {
    super(
      'Earlier messages of this key wait to be tried again, and this one is not handled before them. Send it again later.',
      { type: 'key-waits', status: 503, retryable: true },
    );
  }
}

export interface QuarantineSettings extends Pick<
  LinesSettings,
  'store' | 'concurrency' | 'partitions' | 'readmit'
> {
  /** The group. */
  consumer: string;
  /** The message is stored: lets its offset move. */
  stored: (delivery: Delivery) => void;
  /** Tells the sender who waits for a reply. */
  refuse: (delivery: Delivery, error: ApplicationError) => void;
  /** What is to be put aside could not be stored. */
  onFailed: (error: unknown) => void;
}

const DEAD_LETTER_BEFORE = {
  code: 'KEY_QUARANTINED',
  message: 'An earlier message of its key is a dead letter.',
};
/** Keys of which each instance keeps a digest in memory; no more than so many are put aside. */
const MOST_KEYS = 10_000;
/** In one statement. */
const PARKED_AT_ONCE = 500;
const PARKED_BYTES_AT_ONCE = 4 * 1024 * 1024;

/**
 * Keys of which messages are parked: rows of `message_dead_letter`, a line per key, where a message of it is a dead letter
 * or its lane was put aside. What comes of such a key goes behind the line. When the key is released (`DeadLetters.replay`,
 * `discard`; when its head may be tried again), who has its partition handles the line in order; and the quarantine ends with
 * the line.
 */
export class KeyQuarantine {
  private readonly logger = new Logger(KeyQuarantine.name);
  private readonly statements: ReturnType<typeof quarantineStatements>;
  private readonly lines: ParkedLines;
  /** At least those of our partitions. */
  private keys = new Set<string>();
  /** To be awaited before `holds` is asked; stale when another instance may have quarantined a key of ours. */
  readonly fresh = new Refreshed(() => this.load());

  constructor(private readonly settings: QuarantineSettings) {
    const { store, consumer } = settings;
    this.statements = quarantineStatements(store.transactions.dataSource, consumer);
    this.lines = new ParkedLines({
      ...settings,
      statements: this.statements,
      onBegun: (key) => this.hold(key),
      onOver: ({ topic, hash }) => {
        this.keys.delete(nameOf({ topic, hash }));
        this.fresh.changed();
        this.logger.log({ msg: 'key released: what was parked is handled', topic });
      },
    });
  }

  /** Other partitions are ours now, and their keys are others'. */
  assigned(): void {
    this.fresh.markStale();
    this.lines.forget();
  }

  /** True when the message has to be parked. */
  holds({ record, parkedAs, line }: Delivery): boolean {
    if (parkedAs !== undefined) return line?.isStopped === true;
    return this.keys.size > 0 && this.keys.has(nameOf(keyOf(record)));
  }

  /** A message of the key has become a dead letter. */
  add({ record, line }: Delivery): void {
    if (record.key === null) return;
    if (line) line.isStopped = true;
    this.hold(keyOf(record));
  }

  /**
   * @returns false when its key is quarantined no more
   * @throws KeyQuarantinedError, KeyWaitsError where a sender waits for its reply
   */
  async park(delivery: Delivery): Promise<boolean> {
    // It is parked, and a message before it has become a dead letter.
    if (delivery.parkedAs !== undefined) {
      delivery.ended = 'parked';
      return true;
    }
    const { transactions } = this.settings.store;
    const key = keyOf(delivery.record);
    const { digest } = delivery.message;
    const { rowCount, rows } = await (delivery.replyTo
      ? transactions.runStatement<{ waits: boolean }>(this.statements.find(key), { writes: false })
      : transactions.runStatement<{ waits: boolean }>(
          this.statements.park(rowValues(delivery, DEAD_LETTER_BEFORE), digest),
          { writes: true, idempotent: true },
        ));
    if (rowCount === 0) this.keys.delete(nameOf(key));
    else if (delivery.replyTo) throw rows[0]!.waits ? new KeyWaitsError() : new KeyQuarantinedError();
    else delivery.ended = 'parked';
    return rowCount !== 0;
  }

  /**
   * Parks the messages of a lane that does not get on, in order, and puts those back that were parked already. One that is
   * being handled is parked as well: should this process end, it is where it was, before the others.
   *
   * @returns those that need not be held any more; none where they could not be stored
   */
  async putAside(lane: LeavingLane): Promise<ReadonlySet<Delivery>> {
    const { messages } = lane;
    const key = keyOf(messages[0]!.record);
    const isKnown = messages[0]!.line !== undefined || this.keys.has(nameOf(key));
    if (!isKnown && this.keys.size >= MOST_KEYS) return this.tooMany();
    // Before the commit, so that nobody begins the line while one of its messages is being handled.
    const line = messages[0]!.line ?? this.lines.of(key) ?? this.lines.reserve(key);
    let seqs: Map<Delivery, string>;
    try {
      seqs = await this.write(line, lane);
    } catch (err) {
      return this.notPutAside(line, messages, err);
    }
    for (const delivery of messages)
      this.leaves(delivery, line, seqs.get(delivery), lane.isRunning(delivery));
    if (line.open.size > 0) return new Set(messages);
    if (line.handled.length > 0) this.lines.goOn(line);
    else this.lines.end(line);
    return new Set(messages);
  }

  /** A message that was parked is handled, or a dead letter again. */
  handled(delivery: Delivery): void {
    this.lines.ended(delivery);
  }

  /** Begins the lines that may go on; to be called now and then. */
  release(): Promise<void> {
    return this.lines.release();
  }

  /** Begins nothing more, and waits for what was begun. */
  stop(): Promise<void> {
    return this.lines.stop();
  }

  /** @returns the numbers of those that were not parked before, and have not been handled */
  private async write(line: ParkedLine, { messages, waitMs }: LeavingLane): Promise<Map<Delivery, string>> {
    const { statements } = this;
    const [head] = messages;
    const fresh = messages.filter(
      ({ parkedAs, replyTo, ended }) => parkedAs === undefined && !replyTo && !ended,
    );
    const handled = line.handled.splice(0);
    const seqs = new Map<Delivery, string>();
    if (head!.parkedAs === undefined && fresh.length === 0) return seqs;
    // READ COMMITTED: what was parked until the lock is ours is seen.
    await this.settings.store.transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      seqs.clear();
      await transaction.query(statements.postpone(line.key, waitMs));
      if (handled.length > 0) await transaction.query(statements.settle(handled));
      if (head!.parkedAs !== undefined)
        await transaction.query(statements.attempts(head!.parkedAs, head!.attempts));
      for (const some of partsOf(fresh)) {
        const { rows } = await transaction.query<{ seq: string; offset: string; timestamp: string }>(
          statements.parkAll(some),
        );
        const numbers = new Map(rows.map(({ seq, offset, timestamp }) => [`${offset} ${timestamp}`, seq]));
        for (const delivery of some) {
          const seq = numbers.get(`${delivery.record.offset} ${delivery.record.timestamp}`);
          if (seq !== undefined) seqs.set(delivery, seq);
        }
      }
    });
    this.hold(line.key);
    return seqs;
  }

  /** What is written is done for one message of the lane. */
  private leaves(delivery: Delivery, line: ParkedLine, seq: string | undefined, isRunning: boolean): void {
    line.open.delete(delivery);
    delivery.line = undefined;
    if (delivery.ended) {
      // It has ended while it was being parked.
      if (delivery.ended === 'handled' && seq !== undefined) line.handled.push(seq);
    } else if (isRunning) {
      line.open.add(delivery);
      delivery.line = line;
      if (seq === undefined) return;
      delivery.parkedAs = seq;
      this.settings.stored(delivery);
    } else if (delivery.replyTo) this.settings.refuse(delivery, new KeyWaitsError());
    else if (delivery.parkedAs === undefined) this.settings.stored(delivery);
  }

  private notPutAside(line: ParkedLine, messages: readonly Delivery[], err: unknown): ReadonlySet<Delivery> {
    const { topic } = line.key;
    this.logger.warn({ msg: 'messages that wait could not be stored; they are held in memory', topic, err });
    this.settings.onFailed(err);
    // Whether it was committed may not be known.
    this.fresh.markStale();
    for (const delivery of messages) delivery.line = undefined;
    this.lines.end(line);
    return new Set(messages.filter(({ parkedAs }) => parkedAs !== undefined));
  }

  private tooMany(): ReadonlySet<Delivery> {
    this.logger.warn({
      msg: 'messages that wait are held in memory: too many keys are quarantined',
      keys: this.keys.size,
    });
    return new Set();
  }

  private hold(key: QuarantinedKey): void {
    this.keys.add(nameOf(key));
    this.fresh.changed();
  }

  private async load(): Promise<void> {
    const { transactions } = this.settings.store;
    const { rows } = await transactions.runStatement<QuarantinedKey>(this.statements.all(), {
      writes: false,
    });
    this.keys = new Set(rows.map(nameOf));
  }
}

/** As many as one statement takes. */
function partsOf(deliveries: readonly Delivery[]): Delivery[][] {
  const parts: Delivery[][] = [];
  let bytes = Infinity;
  for (const delivery of deliveries) {
    if (bytes > PARKED_BYTES_AT_ONCE || parts.at(-1)!.length >= PARKED_AT_ONCE) {
      parts.push([]);
      bytes = 0;
    }
    parts.at(-1)!.push(delivery);
    bytes += delivery.bytes;
  }
  return parts;
}
