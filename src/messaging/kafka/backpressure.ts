import type { HeldMessages, MemoryLimits } from '../consuming/held-messages.js';
import type { Source } from '../consuming/overflow.js';
import type { KafkaConsumer } from '../kafka-driver.js';
import { partitionKey, type TopicPartition } from '../records/record.js';
import type { PauseReason } from '../telemetry/transport-figures.js';
import type { GroupOffsets } from './offsets.js';

/**
 * Pauses partitions: all of them while too much is held, until half of it is left, or while nothing may begin; and some by
 * themselves, of which one key has too much waiting.
 */
export class Backpressure implements Source {
  /** True while nothing more is fetched, as a limit is reached. */
  isFull = false;
  /** Told when that begins. */
  onFull: () => void = () => undefined;
  /** True while nothing is fetched, as nothing may begin. */
  isSuspended = false;
  /** Partitions that are paused by themselves, by `partitionKey`. */
  private readonly heldBack = new Map<string, TopicPartition>();
  /** What was held of these when it was counted; it counts towards no limit. */
  private apart = { messages: 0, bytes: 0 };

  constructor(
    private readonly limits: MemoryLimits,
    private readonly held: HeldMessages,
    private readonly offsets: GroupOffsets,
    private readonly consumer: () => KafkaConsumer | undefined,
  ) {}

  /** Other partitions are this member's now, none of them paused by the consumer. */
  assigned(partitions: readonly TopicPartition[]): void {
    this.heldBack.clear();
    this.apart = { messages: 0, bytes: 0 };
    this.isFull = false;
    if (this.isSuspended) this.consumer()?.pause(partitions);
  }

  suspend(): void {
    this.isSuspended = true;
    this.consumer()?.pause(this.offsets.partitions);
  }

  resume(): void {
    this.isSuspended = false;
    if (!this.isFull) this.fetchAgain();
  }

  get holdsBack(): boolean {
    return this.heldBack.size > 0;
  }

  isHeldBack(partition: TopicPartition): boolean {
    return this.heldBack.has(partitionKey(partition));
  }

  /** Why the partition is not fetched; undefined where it is. */
  pausedFor(partition: TopicPartition): PauseReason | undefined {
    if (this.isSuspended) return 'suspended';
    if (this.isFull) return 'buffer';
    return this.isHeldBack(partition) ? 'key' : undefined;
  }

  holdBack(places: readonly TopicPartition[], limits: MemoryLimits): void {
    const mine = places
      .filter((place) => this.offsets.of(place))
      .map(({ topic, partition }) => ({ topic, partition }));
    for (const partition of mine) this.heldBack.set(partitionKey(partition), partition);
    this.consumer()?.pause(mine);
    const free = this.count(limits);
    if (!this.isFull && !this.isSuspended) this.consumer()?.resume(free);
    this.balance();
  }

  /** To be called when what is held has changed. */
  balance(): void {
    const { limits } = this;
    const messages = this.held.size - this.apart.messages;
    const bytes = this.held.bytes - this.apart.bytes;
    if (!this.isFull && (messages >= limits.messages || bytes >= limits.bytes)) {
      this.isFull = true;
      this.consumer()?.pause(this.offsets.partitions);
      this.onFull();
    } else if (this.isFull && messages <= limits.messages / 2 && bytes <= limits.bytes / 2) {
      this.isFull = false;
      if (!this.isSuspended) this.fetchAgain();
    }
  }

  private fetchAgain(): void {
    this.consumer()?.resume(this.offsets.partitions.filter((partition) => !this.isHeldBack(partition)));
  }

  /** Counts what is held of partitions that are paused by themselves. @returns those of which no more is held than half of the limits */
  private count(limits: MemoryLimits): TopicPartition[] {
    const counts = new Map([...this.heldBack.keys()].map((key) => [key, { messages: 0, bytes: 0 }]));
    for (const { record, bytes } of this.held.all) {
      const count = counts.get(partitionKey(record));
      if (!count) continue;
      count.messages++;
      count.bytes += bytes;
    }
    this.apart = { messages: 0, bytes: 0 };
    const free: TopicPartition[] = [];
    for (const [key, { messages, bytes }] of counts) {
      if (messages <= limits.messages / 2 && bytes <= limits.bytes / 2) {
        free.push(this.heldBack.get(key)!);
        this.heldBack.delete(key);
      } else {
        this.apart.messages += messages;
        this.apart.bytes += bytes;
      }
    }
    return free;
  }
}
