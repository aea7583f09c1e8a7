import type { Broker, ConnectionPool } from '@platformatic/kafka';
import {
  type ConsumerSettings,
  OffsetOutOfRangeError,
  partitionKey,
  type RecordBatch,
  type TopicPartition,
} from '../kafka-driver.js';
import { pause } from '../pause.js';
import { RECORD_LIMITS } from '../record-limits.js';
import { type Cluster, type ClusterView, kafkaName, REQUEST_TIMEOUT_MS } from './platformatic.cluster.js';
import { committedRecords, type FetchAnswer, readFetchAnswer, readingOf } from './platformatic.fetched.js';

const RETRY_MS = 500;
/** As much of one partition as Java's client takes; a larger record comes alone. */
const PARTITION_MAX_BYTES = 1024 * 1024;
const READ_COMMITTED = 1;
const NO_SESSION = { id: 0, epoch: -1 };
const NO_EPOCH = -1;

/** A partition that is fetched; `next` is the offset to be fetched next. */
export interface Assigned extends TopicPartition {
  next: bigint;
}

/** Whom a {@link Fetcher} tells. */
export interface FetchListener {
  records(batch: RecordBatch): void;
  interrupted(reason: Error): void;
  recovered(): void;
  /** Where to go on in a partition that has no record at `next`. @throws OffsetOutOfRangeError */
  position(partition: Assigned): Promise<bigint>;
  failed(reason: OffsetOutOfRangeError): void;
}

/** The leaders of some partitions, until one of them turns out to be none. */
interface Leaders {
  view: ClusterView;
  isStale: boolean;
}

/**
 * Fetches from the leaders of partitions, with one request under way for each. Nothing is kept back: memory is bounded by
 * `fetchMaxBytes` for each broker, and by whoever takes the records pausing the partitions it has enough of.
 */
export class Fetcher {
  /** A topic that is fetched seems to be deleted, or made anew. */
  isTopicGone = false;
  private onWake: () => void = () => undefined;
  private woken = new Promise<void>((resolve) => (this.onWake = resolve));

  constructor(
    private readonly cluster: Cluster,
    private readonly pool: ConnectionPool,
    private readonly settings: ConsumerSettings,
    private readonly paused: ReadonlySet<string>,
    private readonly listener: FetchListener,
  ) {}

  /** What may be fetched has changed. */
  wake(): void {
    const { onWake } = this;
    this.woken = new Promise((resolve) => (this.onWake = resolve));
    onWake();
  }

  /** Fetches until `signal` says so. */
  async run(partitions: Assigned[], signal: AbortSignal): Promise<void> {
    const ids = new Map<string, string>();
    while (!signal.aborted && partitions.length > 0) {
      try {
        const view = await this.cluster.view(partitions.map(({ topic }) => topic));
        for (const [name, { id }] of view.topics) if (!ids.has(name)) ids.set(name, id);
        const led = (partition: Assigned): number | undefined => {
          const topic = view.topics.get(partition.topic);
          // A topic that was made anew has other records under the same offsets.
          return topic && topic.id === ids.get(partition.topic)
            ? topic.leaders[partition.partition]
            : undefined;
        };
        const leaders: Leaders = { view, isStale: false };
        const loops = [...view.brokers]
          .map(([id, broker]) => ({ broker, own: partitions.filter((partition) => led(partition) === id) }))
          .filter(({ own }) => own.length > 0)
          .map(({ broker, own }) => this.fetchFrom(broker, own, leaders, signal));
        if (partitions.some((partition) => led(partition) === undefined)) {
          this.isTopicGone = true;
          loops.push(pause(RETRY_MS, signal).then(() => this.setStale(leaders)));
        }
        await Promise.all(loops);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof OffsetOutOfRangeError) return this.listener.failed(error);
        this.listener.interrupted(error as Error);
        await pause(RETRY_MS, signal);
      }
    }
  }

  private async fetchFrom(
    broker: Broker,
    own: Assigned[],
    leaders: Leaders,
    signal: AbortSignal,
  ): Promise<void> {
    const { fetchWaitMs, fetchMaxBytes } = this.settings;
    try {
      for (let turn = 0; !signal.aborted && !leaders.isStale; turn++) {
        const wanted = own.filter((partition) => !this.paused.has(partitionKey(partition)));
        if (wanted.length === 0) {
          await this.woken;
          continue;
        }
        // The broker fills its answer from the first partition on: each has its turn to be that.
        const rotated = wanted.map((_, index) => wanted[(index + turn) % wanted.length]!);
        const topics = rotated.map(({ topic, partition, next }) => ({
          topicId: leaders.view.topics.get(topic)!.id,
          partitions: [
            {
              partition,
              currentLeaderEpoch: NO_EPOCH,
              fetchOffset: next,
              lastFetchedEpoch: NO_EPOCH,
              partitionMaxBytes: Math.min(PARTITION_MAX_BYTES, fetchMaxBytes),
            },
          ],
        }));
        const answer = await this.cluster
          .call(
            'Fetch',
            broker,
            [fetchWaitMs, 1, fetchMaxBytes, READ_COMMITTED, NO_SESSION.id, NO_SESSION.epoch, topics, [], ''],
            { pool: this.pool, timeoutMs: fetchWaitMs + REQUEST_TIMEOUT_MS, parse: readFetchAnswer },
          )
          .then((read) => read as unknown as FetchAnswer);
        if (signal.aborted) return;
        if (answer.errorCode !== 0)
          throw new Error(`The broker refuses a fetch: ${kafkaName(answer.errorCode)}.`);
        await this.take(answer.responses, own, leaders, signal);
      }
    } finally {
      this.setStale(leaders);
    }
  }

  private async take(
    topics: FetchAnswer['responses'],
    own: Assigned[],
    leaders: Leaders,
    signal: AbortSignal,
  ): Promise<void> {
    const byId = new Map(own.map((at) => [`${leaders.view.topics.get(at.topic)!.id}:${at.partition}`, at]));
    const reading = readingOf(this.settings.limits ?? RECORD_LIMITS);
    let problem: string | undefined;
    for (const { topicId, partitions } of topics) {
      for (const fetched of partitions) {
        const at = byId.get(`${topicId}:${fetched.partitionIndex}`);
        if (!at) continue;
        const error = kafkaName(fetched.errorCode);
        if (fetched.errorCode === 0) {
          const batch = await committedRecords(at, at.next, fetched, reading);
          // Reading has its breaks, and what comes behind the end of the generation is another's.
          if (signal.aborted) return;
          if (!batch) continue;
          at.next = batch.nextOffset;
          this.listener.records(batch);
        } else if (error === 'OFFSET_OUT_OF_RANGE') {
          at.next = await this.listener.position(at);
          if (signal.aborted) return;
        } else {
          problem = `${partitionKey(at)}: ${error}`;
          if (error.startsWith('UNKNOWN_TOPIC') || error === 'INCONSISTENT_TOPIC_ID') this.isTopicGone = true;
        }
      }
    }
    if (problem !== undefined) throw new Error(`A fetch failed in part: ${problem}.`);
    this.listener.recovered();
  }

  private setStale(leaders: Leaders): void {
    leaders.isStale = true;
    this.wake();
  }
}
