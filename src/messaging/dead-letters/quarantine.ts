import { Logger } from '@nestjs/common';
import { ApplicationError, unchanged } from '../../errors/application-error.js';
import { rowValues } from './letter.js';
import type { Delivery } from '../delivery.js';
import { quarantineStatements } from './quarantine.statements.js';
import type { LaneToPark } from './lane-store.js';
import { KeyWaitsError, LaneStore, type LaneStoreSettings } from './lane-store.js';
import { type BacklogsSettings, Backlogs } from './backlogs.js';
import { keyOf, nameOf, type QuarantinedKey } from './quarantined-key.js';
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

export interface QuarantineSettings
  extends
    Pick<BacklogsSettings, 'store' | 'concurrency' | 'partitions' | 'readmit'>,
    Pick<LaneStoreSettings, 'stored' | 'refuse' | 'onFailed'> {
  /** The group. */
  consumer: string;
}

const DEAD_LETTER_BEFORE = {
  code: 'KEY_QUARANTINED',
  message: 'An earlier message of its key is a dead letter.',
};
/** Keys of which each instance keeps a digest in memory; with more than so many no lane is parked. */
const MOST_KEYS = 10_000;

/**
 * Keys of which messages are parked: rows of `message_dead_letter`, the backlog of each key, where a message of it is a dead letter
 * or its lane was parked. What comes of such a key goes behind the backlog. When the key is released (`DeadLetters.replay`,
 * `discard`; when its head may be tried again), who has its partition handles the backlog in order; and the quarantine ends with
 * the backlog.
 */
export class KeyQuarantine {
  private readonly logger = new Logger(KeyQuarantine.name);
  private readonly statements: ReturnType<typeof quarantineStatements>;
  private readonly backlogs: Backlogs;
  private readonly laneStore: LaneStore;
  /** Keys of quarantines, by `nameOf`: at least those of this member's partitions. */
  private keys = new Set<string>();
  /** To be awaited before `holds` is asked; stale when another instance may have quarantined a key of this member. */
  readonly fresh = new Refreshed(() => this.load());

  constructor(private readonly settings: QuarantineSettings) {
    const { store, consumer } = settings;
    this.statements = quarantineStatements(store.transactions.dataSource, consumer);
    this.backlogs = new Backlogs({
      ...settings,
      statements: this.statements,
      onBegun: (key) => this.hold(key),
      onOver: ({ topic, hash }) => {
        this.keys.delete(nameOf({ topic, hash }));
        this.fresh.changed();
        this.logger.log({ msg: 'key released: what was parked is handled', topic });
      },
    });
    this.laneStore = new LaneStore({
      ...settings,
      statements: this.statements,
      backlogs: this.backlogs,
      onStored: (key) => this.hold(key),
      onFailed: (error) => {
        // The statement may have been committed although it failed.
        this.fresh.markStale();
        settings.onFailed(error);
      },
    });
  }

  /** Other partitions are this member's now, so other keys may be quarantined. */
  assigned(): void {
    this.fresh.markStale();
    this.backlogs.forget();
  }

  /** True when the message has to be parked. */
  holds({ record, parkedAs, backlog }: Delivery): boolean {
    if (parkedAs !== undefined) return backlog?.isStopped === true;
    return this.keys.size > 0 && this.keys.has(nameOf(keyOf(record)));
  }

  /** A message of the key has become a dead letter. */
  add({ record, backlog }: Delivery): void {
    if (record.key === null) return;
    if (backlog) backlog.isStopped = true;
    this.hold(keyOf(record));
  }

  /**
   * @returns false when its key is quarantined no more
   * @throws KeyQuarantinedError, KeyWaitsError where a sender waits for its reply
   */
  async park(delivery: Delivery): Promise<boolean> {
    // Its row is parked already, and stays so, as a message before it has become a dead letter.
    if (delivery.parkedAs !== undefined) {
      delivery.outcome = 'parked';
      return true;
    }
    const { transactions } = this.settings.store;
    const key = keyOf(delivery.record);
    const { rowCount, rows } = await (delivery.replyTo
      ? transactions.runStatement<{ waits: boolean }>(this.statements.find(key), { writes: false })
      : transactions.runStatement<{ waits: boolean }>(
          this.statements.park(rowValues(delivery, DEAD_LETTER_BEFORE), delivery.message),
          { writes: true, idempotent: true },
        ));
    if (rowCount === 0) this.keys.delete(nameOf(key));
    else if (delivery.replyTo) throw rows[0]!.waits ? new KeyWaitsError() : new KeyQuarantinedError();
    else delivery.outcome = 'parked';
    return rowCount !== 0;
  }

  /**
   * Parks the messages of a lane that does not get on.
   *
   * @returns those that need not be held any more; none where they could not be stored
   */
  async parkLane(lane: LaneToPark): Promise<ReadonlySet<Delivery>> {
    const [head] = lane.messages;
    const key = nameOf(keyOf(head!.record));
    if (head!.backlog || this.keys.has(key) || this.keys.size < MOST_KEYS) return this.laneStore.park(lane);
    this.logger.warn({ msg: 'messages that wait are held in memory: too many keys are quarantined', keys: this.keys.size }); // prettier-ignore
    return new Set();
  }

  /** A message that was parked is handled, or a dead letter again. */
  ended(delivery: Delivery): void {
    this.backlogs.ended(delivery);
  }

  /** Begins the backlogs that may go on; to be called now and then. */
  release(): Promise<void> {
    return this.backlogs.release();
  }

  /** Begins nothing more, and waits for what was begun. */
  stop(): Promise<void> {
    return this.backlogs.stop();
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
