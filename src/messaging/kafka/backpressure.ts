import type { Delivery } from '../delivery.js';
import { partitionKey, type TopicPartition } from '../records/record.js';

/** Partitions that are paused by themselves; what is held of them counts by itself. */
export class HeldBackPartitions {
  private readonly partitions = new Map<string, TopicPartition>();
  /** What was held of them when it was counted. */
  messages = 0;
  bytes = 0;

  get size(): number {
    return this.partitions.size;
  }

  has(partition: TopicPartition): boolean {
    return this.partitions.has(partitionKey(partition));
  }

  add({ topic, partition }: TopicPartition): void {
    this.partitions.set(partitionKey({ topic, partition }), { topic, partition });
  }

  clear(): void {
    this.partitions.clear();
    this.messages = this.bytes = 0;
  }

  /**
   * Counts what is held, and lets go of partitions of which no more is held than half of the limits.
   *
   * @returns those that were let go
   */
  count(held: Iterable<Delivery>, limits: { messages: number; bytes: number }): TopicPartition[] {
    const counts = new Map([...this.partitions.keys()].map((key) => [key, { messages: 0, bytes: 0 }]));
    for (const { record, bytes } of held) {
      const count = counts.get(partitionKey(record));
      if (!count) continue;
      count.messages++;
      count.bytes += bytes;
    }
    this.messages = this.bytes = 0;
    const free: TopicPartition[] = [];
    for (const [key, { messages, bytes }] of counts) {
      if (messages <= limits.messages / 2 && bytes <= limits.bytes / 2) {
        free.push(this.partitions.get(key)!);
        this.partitions.delete(key);
      } else {
        this.messages += messages;
        this.bytes += bytes;
      }
    }
    return free;
  }
}
