import type { Logger } from '@nestjs/common';
import { HeldMessages, type MemoryLimits } from '../consuming/held-messages.js';
import type { MessageLanes } from '../consuming/lanes.js';
import type { Delivery } from '../delivery.js';
import type { KafkaConsumer } from '../kafka-driver.js';
import {
  type IncomingRecord,
  partitionKey,
  type RecordBatch,
  type TopicPartition,
} from '../records/record.js';
import { Backpressure } from './backpressure.js';
import { GroupOffsets } from './offsets.js';

export interface IntakeSettings {
  /** Past either of these nothing more is fetched, until half of it is left. */
  limits: MemoryLimits;
  logger: Logger;
  lanes: MessageLanes;
  /** undefined while there is none. */
  consumer: () => KafkaConsumer | undefined;
  toDelivery: (record: IncomingRecord) => Delivery;
}

/**
 * Hands what was fetched to the lanes, of the partitions that are this member's now, and holds it until it is done: then its
 * offset may be committed, and there is room for more.
 */
export class MessageIntake {
  readonly held = new HeldMessages();
  readonly offsets: GroupOffsets;
  readonly backpressure: Backpressure;
  private readonly lanes: MessageLanes;

  constructor(private readonly settings: IntakeSettings) {
    const { limits, lanes, consumer, logger } = settings;
    this.lanes = lanes;
    this.offsets = new GroupOffsets(consumer, logger);
    this.backpressure = new Backpressure(limits, this.held, this.offsets, consumer);
  }

  /** Other partitions are this member's from now on. */
  assigned(partitions: readonly TopicPartition[]): void {
    this.held.nextAssignment();
    // Whatever has not begun is fetched again from the committed offset on, by whoever has its partition now.
    this.drop();
    this.offsets.assign(partitions);
    this.backpressure.assigned(partitions);
  }

  records({ topic, partition, records, nextOffset }: RecordBatch): void {
    const progress = this.offsets.of({ topic, partition });
    if (!progress) return;
    progress.received(
      records.map(({ offset }) => offset),
      nextOffset,
    );
    const { toDelivery } = this.settings;
    this.lanes.addAll(records.flatMap((record) => this.held.take(record, toDelivery) ?? []));
    this.backpressure.balance();
  }

  /** Takes a message that was parked; it counts towards no limit, and moves no offset. */
  readmit(delivery: Delivery): void {
    this.held.join(delivery);
    this.lanes.add(delivery);
  }

  /** The message is handled, and its sender has the reply. */
  done(delivery: Delivery): void {
    this.held.release(delivery);
    this.offsets.of(delivery.record)?.done(delivery.record.offset);
    this.backpressure.balance();
  }

  /**
   * A partition of which nothing was done for `afterMs` though a message waits that has not begun and is behind no other of its
   * key: what fails again and again, or takes its time, holds up its key alone.
   */
  stalled(afterMs: number): (TopicPartition & { forMs: number }) | undefined {
    const unmoved = this.offsets.unmoved(afterMs);
    if (unmoved.size === 0) return undefined;
    for (const { record } of this.held.waitingHeads()) {
      const at = unmoved.get(partitionKey(record));
      if (at) return { topic: at.topic, partition: at.partition, forMs: performance.now() - at.movedAt };
    }
    return undefined;
  }

  /** Fetches nothing and begins nothing until `resume`. */
  suspend(): void {
    if (this.backpressure.isSuspended) return;
    this.lanes.suspend();
    this.backpressure.suspend();
  }

  resume(): void {
    if (!this.backpressure.isSuspended) return;
    this.backpressure.resume();
    this.lanes.resume();
  }

  /** Forgets messages that have not begun; their offsets are not committed. */
  drop(): void {
    for (const delivery of this.lanes.dropWaiting()) this.held.release(delivery);
  }

  /** The consumer is closed: what it has fetched is not this member's any more. */
  reset(): void {
    this.held.nextAssignment();
    this.drop();
    this.offsets.assign([]);
  }
}
