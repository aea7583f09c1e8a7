import type { Logger } from '@nestjs/common';
import { type Delivery, placeOf } from '../delivery.js';
import {
  CommitRefusedError,
  type ConsumerListener,
  type IncomingRecord,
  type KafkaConsumer,
  partitionKey,
  type RecordBatch,
  type StuckPartition,
  type TopicPartition,
} from '../kafka-driver.js';
import { HeldBackPartitions } from './held-back.js';
import type { MessageLanes } from './lanes.js';
import { PartitionProgress } from './progress.js';
import { ToldOnce } from '../telling.js';

/** Past either of these nothing more is fetched, until half of it is left. */
export interface IntakeLimits {
  messages: number;
  bytes: number;
}

export interface IntakeSettings {
  limits: IntakeLimits;
  logger: Logger;
  lanes: MessageLanes;
  /** undefined while there is none. */
  consumer: () => KafkaConsumer | undefined;
  toDelivery: (record: IncomingRecord) => Delivery;
  /** Nothing more is fetched, as a limit is reached. */
  onFull?: () => void;
  onAssigned: () => void;
  onInterrupted: (reason: Error) => void;
  onRecovered: () => void;
  /** All that is not read on. */
  onStuck?: (partitions: readonly StuckPartition[]) => void;
  onFailed: (reason: Error) => void;
}

/**
 * What was fetched and is not done: hands messages to the lanes, pauses and resumes partitions, and commits the offset of
 * the lowest message that is not done, of the partitions that are this member's now.
 */
export class MessageIntake implements ConsumerListener {
  private readonly progress = new Map<string, PartitionProgress & TopicPartition>();
  /** By place, from the fetch until the reply is acknowledged. */
  private readonly held = new Map<string, Delivery>();
  private bytes = 0;
  private assignment = 0;
  private full = false;
  private readonly heldBack = new HeldBackPartitions();
  private isSuspended = false;
  private committing: Promise<void> | undefined;

  private readonly committingFails: ToldOnce;

  constructor(private readonly settings: IntakeSettings) {
    this.committingFails = new ToldOnce(settings.logger, 'offsets are committed again');
  }

  assigned(partitions: TopicPartition[]): void {
    this.assignment++;
    // They come again, from the committed offset on: here, or wherever their partition is now.
    for (const delivery of this.settings.lanes.dropWaiting()) this.release(delivery);
    this.progress.clear();
    this.heldBack.clear();
    for (const where of partitions)
      this.progress.set(partitionKey(where), Object.assign(new PartitionProgress(), where));
    this.full = false;
    if (this.isSuspended) this.settings.consumer()?.pause(partitions);
    this.settings.onAssigned();
  }

  revoking(): void {
    void this.commit();
  }

  records({ topic, partition, records, nextOffset }: RecordBatch): void {
    const progress = this.progress.get(partitionKey({ topic, partition }));
    if (!progress) return;
    progress.received(
      records.map(({ offset }) => offset),
      nextOffset,
    );
    for (const record of records) this.take(record);
    this.balance();
  }

  interrupted(reason: Error): void {
    this.settings.onInterrupted(reason);
  }

  recovered(): void {
    this.settings.onRecovered();
  }

  stuck(partitions: readonly StuckPartition[]): void {
    this.settings.onStuck?.(partitions);
  }

  failed(reason: Error): void {
    this.settings.onFailed(reason);
  }

  /** The message is handled, and its sender has the reply. */
  done(delivery: Delivery): void {
    this.release(delivery);
    this.progress.get(partitionKey(delivery.record))?.done(delivery.record.offset);
    this.balance();
  }

  /** Messages that were fetched and are not done. */
  get size(): number {
    return this.held.size;
  }

  /** Takes a message that was parked; it counts towards no limit, and moves no offset. */
  readmit(delivery: Delivery): void {
    delivery.assignment = this.assignment;
    this.settings.lanes.add(delivery);
  }

  /**
   * A partition of which nothing was done for `afterMs` though a message waits that has not begun and is behind no other of its
   * key: what fails again and again, or takes its time, holds up its key alone.
   */
  stalled(afterMs: number): (TopicPartition & { forMs: number }) | undefined {
    const now = performance.now();
    const still = new Map([...this.progress].filter(([, { movedAt }]) => now - movedAt > afterMs));
    if (still.size === 0) return undefined;
    const lanes = new Set<string>();
    for (const { record, laneKey, hasBegun, assignment } of this.held.values()) {
      const isHead = !lanes.has(laneKey);
      lanes.add(laneKey);
      const at = still.get(partitionKey(record));
      if (at && isHead && !hasBegun && assignment === this.assignment)
        return { topic: at.topic, partition: at.partition, forMs: now - at.movedAt };
    }
    return undefined;
  }

  /** This member's partitions. */
  get partitions(): TopicPartition[] {
    return [...this.progress.values()].map(({ topic, partition }) => ({ topic, partition }));
  }

  /** True while nothing more is fetched, as a limit is reached. */
  get isFull(): boolean {
    return this.full;
  }

  /** True while some partitions are paused by themselves. */
  get holdsBack(): boolean {
    return this.heldBack.size > 0;
  }

  isHeldBack(partition: TopicPartition): boolean {
    return this.heldBack.has(partition);
  }

  /**
   * Pauses these partitions by themselves: what is held of them counts towards no limit, and the others go on. Those of which
   * half of `limits` is left, or less, go on as well.
   */
  holdBack(partitions: readonly TopicPartition[], limits: IntakeLimits): void {
    const mine = partitions.filter((partition) => this.progress.has(partitionKey(partition)));
    for (const partition of mine) this.heldBack.add(partition);
    this.settings.consumer()?.pause(mine);
    const free = this.heldBack.count(this.held.values(), limits);
    if (!this.full && !this.isSuspended) this.settings.consumer()?.resume(free);
    this.balance();
  }

  /** True when the message is not this member's any more, or comes again. */
  isForgotten = (delivery: Delivery): boolean => {
    const isForgotten = delivery.assignment !== this.assignment;
    if (isForgotten) this.release(delivery);
    return isForgotten;
  };

  /** Fetches nothing and begins nothing until `resume`. */
  suspend(): void {
    if (this.isSuspended) return;
    this.isSuspended = true;
    this.settings.lanes.suspend();
    this.settings.consumer()?.pause(this.partitions);
  }

  resume(): void {
    if (!this.isSuspended) return;
    this.isSuspended = false;
    if (!this.full) this.fetchAgain();
    this.settings.lanes.resume();
  }

  /** Forgets what has not begun; it stays uncommitted. */
  drop(): void {
    for (const delivery of this.settings.lanes.dropWaiting()) this.release(delivery);
  }

  /** Nothing of this consumer counts any more. */
  reset(): void {
    this.assignment++;
    this.drop();
    this.progress.clear();
  }

  /** Of this member's partitions. */
  get committed(): (TopicPartition & { offset: bigint })[] {
    return [...this.progress.values()].flatMap(({ topic, partition, lastCommitted }) =>
      lastCommitted === undefined ? [] : [{ topic, partition, offset: lastCommitted }],
    );
  }

  /** Commits what is done, once at a time. Where that fails the next time commits it as well. */
  async commit(): Promise<void> {
    if (this.committing) return this.committing;
    const consumer = this.settings.consumer();
    const { assignment } = this;
    const offsets = [...this.progress.values()].flatMap(({ topic, partition, uncommitted }) =>
      uncommitted === undefined ? [] : [{ topic, partition, offset: uncommitted }],
    );
    if (!consumer || offsets.length === 0) return;
    this.committing = consumer.commit(offsets).then(
      () => {
        this.committingFails.isOver();
        if (assignment !== this.assignment) return;
        for (const at of offsets) this.progress.get(partitionKey(at))!.lastCommitted = at.offset;
      },
      (err: unknown) => {
        const report = { msg: 'offsets could not be committed; they are again', err };
        if (err instanceof CommitRefusedError) this.settings.logger.debug(report);
        else this.committingFails.is((err as Error).message, report);
      },
    );
    await this.committing;
    this.committing = undefined;
  }

  private fetchAgain(): void {
    this.settings.consumer()?.resume(this.partitions.filter((partition) => !this.heldBack.has(partition)));
  }

  private take(record: IncomingRecord): void {
    const place = placeOf(record);
    const earlier = this.held.get(place);
    // Handled before the partitions were shared out anew, which are this member's still; it is done once its reply is sent.
    if (earlier?.ended) {
      earlier.assignment = this.assignment;
      return;
    }
    const delivery = this.settings.toDelivery(record);
    delivery.assignment = this.assignment;
    // Should the earlier one fail it is forgotten, like all that were begun then: what is behind it must not pass this one.
    if (earlier) {
      this.release(earlier);
      delivery.begunBefore = earlier;
    }
    this.held.set(place, delivery);
    this.bytes += delivery.bytes;
    this.settings.lanes.add(delivery);
  }

  /** True for one that was handled by the time it came again; who has handled it moves its offset. */
  isEndedBefore = (delivery: Delivery): boolean => {
    const isEnded = delivery.begunBefore?.ended !== undefined;
    if (isEnded) this.release(delivery);
    return isEnded;
  };

  private release(delivery: Delivery): void {
    const place = placeOf(delivery.record);
    // One that was parked may have its place in common with the same message, come again.
    if (this.held.get(place) !== delivery) return;
    this.held.delete(place);
    this.bytes -= delivery.bytes;
  }

  private balance(): void {
    const { limits, consumer, onFull } = this.settings;
    const messages = this.held.size - this.heldBack.messages;
    const bytes = this.bytes - this.heldBack.bytes;
    if (!this.full && (messages >= limits.messages || bytes >= limits.bytes)) {
      this.full = true;
      consumer()?.pause(this.partitions);
      onFull?.();
    } else if (this.full && messages <= limits.messages / 2 && bytes <= limits.bytes / 2) {
      this.full = false;
      if (!this.isSuspended) this.fetchAgain();
    }
  }
}
