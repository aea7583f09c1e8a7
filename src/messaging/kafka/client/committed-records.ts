import type { CommittedRecords } from '../../kafka-driver.js';
import { decompress } from '../../records/codecs.js';
import { RECORD_LIMITS } from '../../records/limits.js';
import { partitionKey, type RecordLimits, type TopicPartition } from '../../records/record.js';
import { fetchRecords } from '../protocol/record-requests.js';
import { byLeader, type ClusterView } from '../protocol/topic-requests.js';
import { check, type Cluster } from './cluster.js';
import { committedRecords } from './fetched-records.js';
import type { GroupCoordinator } from './group-coordinator.js';

/** Of a partition. */
const MOST_RECORDS = 20;
const PARTITION_BYTES = 64 * 1024;
const ANSWER_BYTES = 4 * 1024 * 1024;

interface Found extends CommittedRecords {
  /** What was fetched goes on to the committed offset. */
  isWhole: boolean;
}

/**
 * How far before the committed offset is looked, and whether that is enough. Where the records are large an answer ends before that
 * offset, so the last one is fetched alone; and what stands before it may be no record of anybody, as the ends of transactions, or
 * have been compacted away.
 */
const LOOKS: readonly [distance: bigint, isEnough: (found: Found) => boolean][] = [
  [BigInt(MOST_RECORDS), ({ isWhole, records }) => isWhole && records.length > 0],
  [1n, ({ records }) => records.length > 0],
  [100n, () => true],
];

interface Sought extends TopicPartition {
  committed: bigint;
}

/**
 * The last records that a group has committed: a few of each partition, none of one that nothing is committed of, that has none
 * left or that has no leader at the moment.
 *
 * @throws Error the brokers can't be reached
 */
export async function lastCommittedRecords(
  cluster: Cluster,
  coordinator: GroupCoordinator,
  partitions: readonly TopicPartition[],
  limits: RecordLimits = RECORD_LIMITS,
): Promise<CommittedRecords[]> {
  const [offsets, view] = await Promise.all([
    coordinator.committed(partitions),
    cluster.view(partitions.map(({ topic }) => topic)),
  ]);
  let sought = partitions.flatMap(({ topic, partition }): Sought[] => {
    const committed = offsets.get(partitionKey({ topic, partition }))?.offset ?? -1n;
    return committed > 0n ? [{ topic, partition, committed }] : [];
  });
  const found: Found[] = [];
  for (const [distance, isEnough] of LOOKS) {
    for (const [leader, own] of byLeader(sought, view))
      found.push(...(await fetchBefore(cluster, view, leader, own, distance, limits)));
    const enough = new Set(found.filter(isEnough).map(partitionKey));
    sought = sought.filter((at) => !enough.has(partitionKey(at)));
  }
  return onePerPartition(found);
}

/** Each partition once, with what was found of it by every look; a later look begins behind an earlier one. */
function onePerPartition(found: readonly CommittedRecords[]): CommittedRecords[] {
  const byPartition = new Map<string, CommittedRecords>();
  for (const { topic, partition, committed, records } of found) {
    if (records.length === 0) continue;
    const before = byPartition.get(partitionKey({ topic, partition }))?.records ?? [];
    const last = before.at(-1)?.offset ?? -1n;
    const all = [...before, ...records.filter(({ offset }) => offset > last)];
    byPartition.set(partitionKey({ topic, partition }), { topic, partition, committed, records: all });
  }
  return [...byPartition.values()];
}

async function fetchBefore(
  cluster: Cluster,
  { brokers, topics }: ClusterView,
  leader: number,
  sought: readonly Sought[],
  distance: bigint,
  limits: RecordLimits,
): Promise<Found[]> {
  const wanted = sought.map((at) => ({
    ...at,
    topicId: topics.get(at.topic)?.id,
    next: at.committed > distance ? at.committed - distance : 0n,
  }));
  const byId = wanted.every(({ topicId }) => topicId !== undefined) && (await cluster.fetchesById());
  const bounds = { waitMs: 0, bytes: ANSWER_BYTES, partitionBytes: PARTITION_BYTES };
  const answer = await cluster.call(brokers.get(leader)!, fetchRecords(wanted, bounds, byId));
  check('Fetch', answer.errorCode);
  const reading = { limits, left: limits.batchBytes, decompress };
  const found: Found[] = [];
  for (const fetched of answer.partitions) {
    const at = wanted.find(
      ({ topic, topicId, partition }) =>
        (byId ? topicId : topic) === fetched.topic && partition === fetched.partition,
    );
    // Why a partition can't be read is told by those who have to.
    if (!at || fetched.errorCode !== 0) continue;
    const { topic, partition, committed } = at;
    // The batch that the offset is in comes whole, and what is before the offset in it is as good.
    const { batch } = await committedRecords(at, 0n, fetched, reading);
    const records = (batch?.records ?? []).filter(({ offset }) => offset < committed).slice(-MOST_RECORDS);
    const isWhole = batch !== undefined && batch.nextOffset >= committed;
    found.push({ topic, partition, committed, records, isWhole });
  }
  return found;
}
