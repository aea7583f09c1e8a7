import type { Admin } from 'kafkajs';
import {
  type CommitOffset,
  type ConsumerSettings,
  OffsetOutOfRangeError,
  partitionKey,
  type TopicPartition,
} from '../kafka-driver.js';

/** What the group has committed of the topics of `partitions`, by `partitionKey`. */
export async function committedOffsets(
  admin: Admin,
  groupId: string,
  partitions: readonly TopicPartition[],
): Promise<ReadonlyMap<string, bigint>> {
  const topics = [...new Set(partitions.map(({ topic }) => topic))];
  if (topics.length === 0) return new Map();
  const committed = await admin.fetchOffsets({ groupId, topics });
  return new Map(
    committed.flatMap(({ topic, partitions: offsets }) =>
      offsets
        .filter(({ offset }) => BigInt(offset) >= 0n)
        .map(({ partition, offset }) => [partitionKey({ topic, partition }), BigInt(offset)] as const),
    ),
  );
}

/** Where to go on, given the next offsets of those partitions that have been read. @throws OffsetOutOfRangeError */
export async function positionsInRange(
  admin: Admin,
  partitions: readonly TopicPartition[],
  next: ReadonlyMap<string, bigint>,
  { onOffsetOutOfRange: policy, fromBeginning, groupId }: ConsumerSettings,
): Promise<CommitOffset[]> {
  const bounds = new Map<string, { low: bigint; high: bigint }>();
  for (const topic of new Set(partitions.map((at) => at.topic)))
    for (const { partition, low, high } of await admin.fetchTopicOffsets(topic))
      bounds.set(partitionKey({ topic, partition }), { low: BigInt(low), high: BigInt(high) });
  return partitions.map((at) => {
    const found = bounds.get(partitionKey(at));
    if (!found) throw new Error(`${at.topic} has no partition ${at.partition} at the moment.`);
    const { low, high } = found;
    const offset = next.get(partitionKey(at));
    if (offset === undefined) return { ...at, offset: fromBeginning ? low : high };
    if (offset >= low && offset <= high) return { ...at, offset };
    if (policy !== 'stop') return { ...at, offset: policy === 'earliest' ? low : high };
    throw new OffsetOutOfRangeError(
      at,
      groupId,
      `its offset ${offset} is not among those from ${low} to ${high}.`,
    );
  });
}
