import { partitionsByTopic, type TopicPartition } from '../kafka-driver.js';

/**
 * The names under which members of a classic group agree on who shares out the partitions, and how. All stand for the
 * same here; kafkajs knows the first, Java's client the second.
 */
export const ASSIGNORS = ['RoundRobinAssigner', 'roundrobin'] as const;

/** ConsumerProtocolSubscription, version 0: what a member tells the one that shares out. */
export function encodeSubscription(topics: readonly string[]): Buffer {
  return Buffer.concat([int16(0), array(topics.map(text)), int32(-1)]);
}

/** The topics of a member of this or another client. */
export function decodeSubscription(bytes: Buffer): string[] {
  const reader = new FieldReader(bytes, 2);
  return reader.array(() => reader.text());
}

/** ConsumerProtocolAssignment, version 0: what a member is given. */
export function encodeAssignment(partitions: readonly TopicPartition[]): Buffer {
  const topics = [...partitionsByTopic(partitions)].map(([topic, numbers]) =>
    Buffer.concat([text(topic), array(numbers.map(int32))]),
  );
  return Buffer.concat([int16(0), array(topics), int32(-1)]);
}

/** The partitions that this member is given. */
export function decodeAssignment(bytes: Buffer): TopicPartition[] {
  if (bytes.length < 6) return [];
  const reader = new FieldReader(bytes, 2);
  return reader
    .array(() => {
      const topic = reader.text();
      return reader.array(() => reader.int32()).map((partition) => ({ topic, partition }));
    })
    .flat();
}

/** Deals the partitions out to the members that have asked for their topics, one after the other. */
export function shareOut(
  members: ReadonlyMap<string, readonly string[]>,
  partitionCounts: ReadonlyMap<string, number>,
): Map<string, TopicPartition[]> {
  const shares = new Map([...members.keys()].sort().map((member) => [member, [] as TopicPartition[]]));
  const circle = [...shares.keys()];
  for (const topic of [...partitionCounts.keys()].sort()) {
    for (let partition = 0; partition < partitionCounts.get(topic)!; partition++) {
      const index = circle.findIndex((member) => members.get(member)!.includes(topic));
      if (index === -1) break;
      const [member] = circle.splice(index, 1) as [string];
      shares.get(member)!.push({ topic, partition });
      circle.push(member);
    }
  }
  return shares;
}

const int16 = (value: number): Buffer => {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
};
const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};
const text = (value: string): Buffer => Buffer.concat([int16(Buffer.byteLength(value)), Buffer.from(value)]);
const array = (items: readonly Buffer[]): Buffer => Buffer.concat([int32(items.length), ...items]);

class FieldReader {
  constructor(
    private readonly bytes: Buffer,
    private position: number,
  ) {}

  int32(): number {
    this.position += 4;
    return this.bytes.readInt32BE(this.position - 4);
  }

  text(): string {
    const start = this.position + 2;
    this.position = start + this.bytes.readInt16BE(this.position);
    return this.bytes.toString('utf8', start, this.position);
  }

  array<T>(item: () => T): T[] {
    return Array.from({ length: this.int32() }, item);
  }
}
