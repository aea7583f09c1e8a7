import type { Logger } from '@nestjs/common';
import { type CommitOffset, CommitRefusedError, type KafkaConsumer } from '../kafka-driver.js';
import { partitionKey, type TopicPartition } from '../records/record.js';
import { ToldOnce } from '../telling.js';

/** How far the messages of one partition are handled, in whatever order that happens. */
export class PartitionProgress {
  /** Offsets that were received and are not done, in the order they came. */
  private readonly open = new Set<bigint>();
  private next: bigint | undefined;
  /** What the group has committed. */
  lastCommitted: bigint | undefined;
  /** When a message was last done, or came while none was open; on the clock of `performance`. */
  movedAt = performance.now();

  /** @param nextOffset the offset behind everything received so far */
  received(offsets: Iterable<bigint>, nextOffset: bigint): void {
    if (this.open.size === 0) this.movedAt = performance.now();
    for (const offset of offsets) this.open.add(offset);
    this.next = nextOffset;
  }

  done(offset: bigint): void {
    if (this.open.delete(offset)) this.movedAt = performance.now();
  }

  /**
   * The offset to commit: the lowest that is not done, whatever is done above it; behind everything received when all is
   * done. undefined before anything was received.
   */
  get watermark(): bigint | undefined {
    // A Set keeps the order of insertion, which is that of the offsets.
    for (const offset of this.open) return offset;
    return this.next;
  }

  /** The watermark, when it has moved since the last commit. */
  get uncommitted(): bigint | undefined {
    const { watermark } = this;
    return watermark === this.lastCommitted ? undefined : watermark;
  }
}

type Progress = PartitionProgress & TopicPartition;

/** The offsets of this member's partitions: how far each is handled, and what the group has committed. */
export class GroupOffsets {
  /** Another one for each assignment. */
  private progress = new Map<string, Progress>();
  private committing: Promise<void> | undefined;
  private readonly committingFails: ToldOnce;

  constructor(
    private readonly consumer: () => KafkaConsumer | undefined,
    private readonly logger: Logger,
  ) {
    this.committingFails = new ToldOnce(logger, 'offsets are committed again');
  }

  /** These are this member's partitions from now on. */
  assign(partitions: readonly TopicPartition[]): void {
    this.progress = new Map(
      partitions.map((at) => [partitionKey(at), Object.assign(new PartitionProgress(), at)]),
    );
  }

  /** undefined: the partition is not this member's. */
  of(partition: TopicPartition): PartitionProgress | undefined {
    return this.progress.get(partitionKey(partition));
  }

  /** This member's partitions. */
  get partitions(): TopicPartition[] {
    return [...this.progress.values()].map(({ topic, partition }) => ({ topic, partition }));
  }

  /** Those of which nothing was done for so long, by `partitionKey`. */
  unmoved(forMs: number): Map<string, Progress> {
    const now = performance.now();
    return new Map([...this.progress].filter(([, { movedAt }]) => now - movedAt > forMs));
  }

  /** What the group has committed of this member's partitions. */
  get committed(): CommitOffset[] {
    return [...this.progress.values()].flatMap(({ topic, partition, lastCommitted }) =>
      lastCommitted === undefined ? [] : [{ topic, partition, offset: lastCommitted }],
    );
  }

  /** Commits what is done, once at a time. Where that fails the next time commits it as well. */
  async commit(): Promise<void> {
    if (this.committing) return this.committing;
    const consumer = this.consumer();
    const { progress } = this;
    const offsets = [...progress.values()].flatMap(({ topic, partition, uncommitted }) =>
      uncommitted === undefined ? [] : [{ topic, partition, offset: uncommitted }],
    );
    if (!consumer || offsets.length === 0) return;
    this.committing = consumer.commit(offsets).then(
      () => {
        this.committingFails.isOver();
        // If partitions were assigned anew meanwhile, nobody reads this progress any more.
        for (const at of offsets) progress.get(partitionKey(at))!.lastCommitted = at.offset;
      },
      (err: unknown) => {
        const report = { msg: 'offsets could not be committed; they are again', err };
        if (err instanceof CommitRefusedError) this.logger.debug(report);
        else this.committingFails.is((err as Error).message, report);
      },
    );
    await this.committing;
    this.committing = undefined;
  }
}
