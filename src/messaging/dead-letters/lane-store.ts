import { Logger } from '@nestjs/common';
import { ApplicationError } from '../../errors/application-error.js';
import { standingFor, ToldRarely } from '../../errors/told-rarely.js';
import type { Delivery, Backlog } from '../delivery.js';
import type { quarantineStatements } from './quarantine.statements.js';

import type { MessageStore } from '../message-store.js';
import type { Backlogs } from './backlogs.js';
import { keyOf, type QuarantinedKey } from './quarantined-key.js';

/** Earlier messages of the key wait to be tried again, too many of them for this one to wait behind. HTTP 503. */
export class KeyWaitsError extends ApplicationError {
  constructor() {
    super(
      'Earlier messages of this key wait to be tried again, and this one is not handled before them. Send it again later.',
      { type: 'key-waits', status: 503, retryable: true },
    );
  }
}

/** A lane that is to be parked. */
export interface LaneToPark {
  /** In order. */
  messages: readonly Delivery[];
  /** How long the head is to wait before it is tried again, in ms. */
  waitMs: number;
  /** True for one that is being handled at this moment. */
  isRunning: (delivery: Delivery) => boolean;
}

/** Stores messages that would wait in memory. Must not reject. @returns those that need not be held any more */
export type ParkLane = (lane: LaneToPark) => Promise<ReadonlySet<Delivery>>;

export interface LaneStoreSettings {
  store: MessageStore;
  statements: ReturnType<typeof quarantineStatements>;
  backlogs: Backlogs;
  /** Messages of the key are parked. */
  onStored: (key: QuarantinedKey) => void;
  /** The message is stored, and so done for the broker. */
  stored: (delivery: Delivery) => void;
  /** Tells the sender who waits for a reply. */
  refuse: (delivery: Delivery, error: ApplicationError) => void;
  /** A lane could not be stored. */
  onFailed: (error: unknown) => void;
}

/** In one statement. */
const PARKED_AT_ONCE = 500;
const PARKED_BYTES_AT_ONCE = 4 * 1024 * 1024;

/** Parks whole lanes, whose messages are the backlog of their key then. */
export class LaneStore {
  private readonly logger = new Logger(LaneStore.name);
  private readonly told = new ToldRarely();

  constructor(private readonly settings: LaneStoreSettings) {}

  /**
   * Parks the messages of a lane, in order, and puts those back that were parked already. One that is being handled is parked
   * as well, so that it is still before the others if this process ends.
   *
   * @returns those that need not be held any more; none where they could not be stored
   */
  async park(lane: LaneToPark): Promise<ReadonlySet<Delivery>> {
    const { messages } = lane;
    const key = keyOf(messages[0]!.record);
    // Reserved before the commit, so that its backlog is not begun while one of its messages is being handled.
    const backlog =
      messages[0]!.backlog ?? this.settings.backlogs.of(key) ?? this.settings.backlogs.reserve(key);
    let seqs: Map<Delivery, string>;
    try {
      seqs = await this.write(backlog, lane);
    } catch (err) {
      return this.notParked(backlog, messages, err);
    }
    for (const delivery of messages)
      this.leaves(delivery, backlog, seqs.get(delivery), lane.isRunning(delivery));
    if (backlog.open.size > 0) return new Set(messages);
    if (backlog.handled.length > 0) this.settings.backlogs.goOn(backlog);
    else this.settings.backlogs.end(backlog);
    return new Set(messages);
  }

  /** @returns the numbers of those that were not parked before, and have not been handled */
  private async write(backlog: Backlog, { messages, waitMs }: LaneToPark): Promise<Map<Delivery, string>> {
    const { statements, store } = this.settings;
    const [head] = messages;
    const fresh = messages.filter(
      ({ parkedAs, replyTo, outcome }) => parkedAs === undefined && !replyTo && !outcome,
    );
    const handled = backlog.handled.splice(0);
    const seqs = new Map<Delivery, string>();
    if (head!.parkedAs === undefined && fresh.length === 0) return seqs;
    // READ COMMITTED sees what others have parked until this transaction got the lock.
    await store.transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      seqs.clear();
      await transaction.query(statements.postpone(backlog.key, waitMs));
      if (handled.length > 0) await transaction.query(statements.markHandled(handled));
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
    this.settings.onStored(backlog.key);
    return seqs;
  }

  /** One message of the lane is in the store now: forgets it here, or, if it is being handled, remembers its row. */
  private leaves(delivery: Delivery, backlog: Backlog, seq: string | undefined, isRunning: boolean): void {
    backlog.open.delete(delivery);
    delivery.backlog = undefined;
    if (delivery.outcome) {
      // Its handling ended while the lane was being stored.
      if (delivery.outcome === 'handled' && seq !== undefined) backlog.handled.push(seq);
    } else if (isRunning) {
      backlog.open.add(delivery);
      delivery.backlog = backlog;
      if (seq === undefined) return;
      delivery.parkedAs = seq;
      this.settings.stored(delivery);
    } else if (delivery.replyTo) this.settings.refuse(delivery, new KeyWaitsError());
    else if (delivery.parkedAs === undefined) this.settings.stored(delivery);
  }

  private notParked(backlog: Backlog, messages: readonly Delivery[], err: unknown): ReadonlySet<Delivery> {
    const { topic } = backlog.key;
    const msg = 'messages that wait could not be stored; they are held in memory';
    this.told.of(topic, (more) => this.logger.warn({ msg, topic, ...standingFor(more), err }));
    this.settings.onFailed(err);
    for (const delivery of messages) delivery.backlog = undefined;
    this.settings.backlogs.end(backlog);
    return new Set(messages.filter(({ parkedAs }) => parkedAs !== undefined));
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
