import type { RecordLimits, RecordWindow, WindowReader, WindowSettings } from '../../kafka-driver.js';
import { type BatchReading, UndecodableBatchError } from '../../records/batches.js';
import { decompress } from '../../records/codecs.js';
import { partitionKey, type RecordBatch, type TopicPartition } from '../../records/record.js';
import { pause } from '../../waiting.js';
import { brokerAnswer, BrokerAnswerError } from '../broker-answers.js';
import { fetchRecords } from '../protocol/record-requests.js';
import { type ClusterView, listOffsets } from '../protocol/topic-requests.js';
import { answerError, answerIn, check, type Cluster, REQUEST_TIMEOUT_MS, topicError } from './cluster.js';
import { committedRecords } from './fetched-records.js';
import { GroupCoordinator } from './group-coordinator.js';

const LATEST = -1n;
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
  const [committed, first, behind, highs] = await Promise.all([
    coordinator.committed(partitions),
    offsetsAt(cluster, view, topic, BigInt(from)),
    offsetsAt(cluster, view, topic, BigInt(to)),
    offsetsAt(cluster, view, topic, LATEST),
  ]);
  const ranges = [...highs].map(([partition, high]): Range => {
    const { offset: done = -1n, error } = committed.get(partitionKey({ topic, partition })) ?? {};
    if (error) throw error;
    // -1: no record is as late as that.
    const [next, end] = [first, behind].map((at) => (at.get(partition)! < 0n ? high : at.get(partition)!));
    const last = end! < done ? end! : done;
    const { id: topicId } = view.topics.get(topic)!;
    return { topic, topicId, partition, next: next!, end: last > next! ? last : next! };
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
        if (++failures >= ATTEMPTS || !isPassing(error)) throw error;
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

/** Another leader, or the same one in a moment, may give what was asked for. */
function isPassing(error: unknown): boolean {
  const answer = answerIn(error);
  if (error instanceof UndecodableBatchError) return false;
  return answer === undefined || brokerAnswer(answer) === 'again';
}

async function viewOf(cluster: Cluster, topic: string): Promise<ClusterView> {
  const view = await cluster.view([topic]);
  if (!view.topics.has(topic)) throw topicError(topic, topic, view);
  return view;
}

function leaderOf({ brokers, topics }: ClusterView, { topic, partition }: TopicPartition) {
  const leader = topics.get(topic)?.leaders[partition];
  if (leader === undefined) throw new Error(`${topic}, partition ${partition}, has no leader at the moment.`);
  return brokers.get(leader)!;
}

/** The offset of each partition's first record that is not before a time; -1 where there is none. */
async function offsetsAt(
  cluster: Cluster,
  view: ClusterView,
  topic: string,
  timestamp: bigint,
): Promise<Map<number, bigint>> {
  const partitions = view.topics.get(topic)!.leaders.map((_, partition) => ({ topic, partition }));
  const found = new Map<number, bigint>();
  await Promise.all(
    partitions.map(async (at) => {
      const request = listOffsets(new Map([[topic, [at.partition]]]), timestamp);
      const [listed] = await cluster.call(leaderOf(view, at), request);
      const error = answerError(partitionKey(at), listed!.errorCode);
      if (error) throw error;
      found.set(at.partition, listed!.offset);
    }),
  );
  return new Map([...found].sort(([one], [other]) => one - other));
}
