import type { RecordLimits, RecordWindow, WindowReader, WindowSettings } from '../../kafka-driver.js';
import { type BatchReading, UndecodableBatchError } from '../../records/batches.js';
import { decompress } from '../../records/codecs.js';
import { partitionKey, type RecordBatch, type TopicPartition } from '../../records/record.js';
import { pause } from '../../waiting.js';
import { BrokerAnswerError } from '../broker-answers.js';
import { fetchRecords } from '../protocol/record-requests.js';
import type { ClusterView } from '../protocol/topic-requests.js';
import { check, type Cluster, isPassing, REQUEST_TIMEOUT_MS, topicError } from './cluster.js';
import { committedRecords } from './fetched-records.js';
import { GroupCoordinator } from './group-coordinator.js';
import { LATEST, listedOffsets, withoutLeader } from './positions.js';

/** As much as one fetch may bring. */
const FETCH_BYTES = 1024 * 1024;
const FETCH_WAIT_MS = 250;
/** A leader that has moved is found anew so often, in a row. */
const ATTEMPTS = 60;
const AGAIN_MS = 500;

interface Range extends TopicPartition {
  topicId: string | undefined;
  next: bigint;
  end: bigint;
}

/** @throws Error there is no such topic, or the brokers can't be reached */
export async function windowReader(
  cluster: Cluster,
  { topic, from, to }: RecordWindow,
  { groupId, limits }: WindowSettings,
): Promise<WindowReader> {
  const view = await viewOf(cluster, topic);
  const partitions = view.topics.get(topic)!.leaders.map((_, partition) => ({ topic, partition }));
  // It joins nothing: no more than its offsets are asked for.
  const coordinator = new GroupCoordinator(cluster, { groupId, sessionTimeoutMs: REQUEST_TIMEOUT_MS });
  const listedAt = (timestamp: bigint) => listedOffsets(cluster, partitions, view, timestamp);
  const [committed, first, behind, highs] = await Promise.all([
    coordinator.committed(partitions),
    listedAt(BigInt(from)),
    listedAt(BigInt(to)),
    listedAt(LATEST),
  ]);
  const { id: topicId } = view.topics.get(topic)!;
  const ranges = partitions.map(({ partition }): Range => {
    const at = { topic, partition };
    const { offset: done = -1n, error } = committed.get(partitionKey(at)) ?? {};
    if (error) throw error;
    const high = offsetOf(highs, at);
    // -1: no record is as late as that.
    const orHigh = (offset: bigint) => (offset < 0n ? high : offset);
    const [next, end] = [orHigh(offsetOf(first, at)), orHigh(offsetOf(behind, at))];
    const last = end < done ? end : done;
    return { topic, topicId, partition, next, end: last > next ? last : next };
  });
  const records = ranges.reduce((sum, { next, end }) => sum + Number(end - next), 0);
  return {
    records,
    read: (signal) => readRanges(cluster, ranges, limits, signal),
    close: () => cluster.close(),
  };
}

async function* readRanges(
  cluster: Cluster,
  ranges: readonly Range[],
  limits: RecordLimits,
  signal: AbortSignal,
): AsyncGenerator<RecordBatch & { offsets: number }> {
  for (const range of ranges) {
    for (let failures = 0; range.next < range.end && !signal.aborted;) {
      try {
        const batch = await fetchOnce(cluster, range, limits);
        failures = 0;
        if (!batch || signal.aborted) continue;
        const before = range.next;
        range.next = batch.nextOffset < range.end ? batch.nextOffset : range.end;
        const records = batch.records.filter(({ offset }) => offset < range.end);
        yield { ...batch, records, offsets: Number(range.next - before) };
      } catch (error) {
        // Another leader, or the same one in a moment, may give what was asked for.
        if (++failures >= ATTEMPTS || error instanceof UndecodableBatchError || !isPassing(error))
          throw error;
        await pause(AGAIN_MS, signal);
      }
    }
  }
}

/** undefined: nothing has come, as a transaction of a sender is open. */
async function fetchOnce(
  cluster: Cluster,
  range: Range,
  limits: RecordLimits,
): Promise<RecordBatch | undefined> {
  const { topic, topicId, partition, next } = range;
  const view = await viewOf(cluster, topic);
  // One that was made anew has other records under the same offsets.
  if (view.topics.get(topic)!.id !== topicId) throw new BrokerAnswerError(topic, 'UNKNOWN_TOPIC_ID');
  const byId = topicId !== undefined && (await cluster.fetchesById());
  const wanted = { topic, topicId, partition, next };
  const bounds = { waitMs: FETCH_WAIT_MS, bytes: FETCH_BYTES, partitionBytes: FETCH_BYTES };
  const answer = await cluster.call(leaderOf(view, range), fetchRecords([wanted], bounds, byId), {
    purpose: 'fetch',
    timeoutMs: FETCH_WAIT_MS + REQUEST_TIMEOUT_MS,
  });
  check('Fetch', answer.errorCode);
  const [fetched] = answer.partitions;
  if (!fetched) return undefined;
  check(`${topic}, partition ${partition}`, fetched.errorCode);
  const reading: BatchReading = { limits, left: limits.batchBytes, decompress };
  const { batch, undecodable } = await committedRecords(range, next, fetched, reading);
  if (!batch && undecodable) throw undecodable;
  return batch;
}

/** @throws Error it could not be told */
function offsetOf(offsets: ReadonlyMap<string, bigint | Error>, at: TopicPartition): bigint {
  const offset = offsets.get(partitionKey(at)) ?? withoutLeader(at);
  if (offset instanceof Error) throw offset;
  return offset;
}

async function viewOf(cluster: Cluster, topic: string): Promise<ClusterView> {
  const view = await cluster.view([topic]);
  if (!view.topics.has(topic)) throw topicError(topic, topic, view);
  return view;
}

function leaderOf({ brokers, topics }: ClusterView, at: TopicPartition) {
  const leader = topics.get(at.topic)?.leaders[at.partition];
  if (leader === undefined) throw withoutLeader(at);
  return brokers.get(leader)!;
}
