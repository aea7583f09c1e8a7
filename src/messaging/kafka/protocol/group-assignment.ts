import { partitionsByTopic, type TopicPartition } from '../../records/record.js';
import { AnswerReader, RequestWriter } from './wire-format.js';

/**
 * The names under which members of a classic group agree on who assigns the partitions, and how. All stand for the
 * same here; kafkajs knows the first, Java's client the second.
 */
export const ASSIGNORS = ['RoundRobinAssigner', 'roundrobin'] as const;

const VERSION = 0;
const NO_USER_DATA = -1;

/** ConsumerProtocolSubscription, version 0: what a member tells the one that assigns. */
export function encodeSubscription(topics: readonly string[]): Buffer {
  const writer = new RequestWriter().int16(VERSION);
  return writer.array(topics, (topic) => writer.text(topic)).int32(NO_USER_DATA).bytes;
}

/** The topics of a member of this or another client; none where it has told them in a form of its own. */
export function decodeSubscription(bytes: Buffer): string[] {
  const reader = new AnswerReader(bytes);
  try {
    reader.int16();
    return reader.array(() => reader.text());
  } catch {
    // One member that can't be understood keeps nobody else from getting partitions.
    return [];
  }
}

/** ConsumerProtocolAssignment, version 0: what a member is given. */
export function encodeAssignment(partitions: readonly TopicPartition[]): Buffer {
  const writer = new RequestWriter().int16(VERSION);
  return writer
    .array([...partitionsByTopic(partitions)], ([topic, numbers]) =>
      writer.text(topic).array(numbers, (partition) => writer.int32(partition)),
    )
    .int32(NO_USER_DATA).bytes;
}

/** The partitions that this member is given. */
export function decodeAssignment(bytes: Buffer): TopicPartition[] {
  if (bytes.length < 6) return [];
  const reader = new AnswerReader(bytes);
  reader.int16();
  return reader
    .array(() => {
      const topic = reader.text();
      return reader.array(() => ({ topic, partition: reader.int32() }));
    })
    .flat();
}

/** Deals the partitions out to the members that have asked for their topics, one after the other. */
export function assignRoundRobin(
  members: ReadonlyMap<string, readonly string[]>,
  partitionCounts: ReadonlyMap<string, number>,
): Map<string, TopicPartition[]> {
  const assignments = new Map([...members.keys()].sort().map((member) => [member, [] as TopicPartition[]]));
  const circle = [...assignments.keys()];
  for (const topic of [...partitionCounts.keys()].sort()) {
    for (let partition = 0; partition < partitionCounts.get(topic)!; partition++) {
      const index = circle.findIndex((member) => members.get(member)!.includes(topic));
      if (index === -1) break;
      const [member] = circle.splice(index, 1) as [string];
      assignments.get(member)!.push({ topic, partition });
      circle.push(member);
    }
  }
  return assignments;
}
