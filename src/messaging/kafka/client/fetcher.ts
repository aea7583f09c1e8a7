import { type ConsumerSettings, OffsetOutOfRangeError, type StuckPartition } from '../../kafka-driver.js';
import { partitionKey, type RecordBatch, type TopicPartition } from '../../records/record.js';
import { decompress } from '../../records/codecs.js';
import type { BatchReading } from '../../records/batches.js';
import { RECORD_LIMITS } from '../../records/limits.js';
import type { BrokerAddress } from '../broker-connections.js';
import { answerError, answerIn, check, type Cluster, REQUEST_TIMEOUT_MS } from './cluster.js';
import { FetchedPartitionState, stuckOf } from './fetched-partition.js';
import { committedRecords } from './fetched-records.js';
import type { LostPosition, Positions, Sought } from './positions.js';
import { type FetchAnswer, type FetchedPartition, fetchRecords } from '../protocol/record-requests.js';
import type { ClusterView } from '../protocol/topic-requests.js';

/** As much of one partition as Java's client takes; a larger record comes alone. */
const PARTITION_MAX_BYTES = 1024 * 1024;
const LONG_MS = 60_000;

/** Whom a {@link Fetcher} tells. */
export interface FetchListener {
  records(batch: RecordBatch): void;
  /** Nothing can be fetched at the moment. */
  interrupted(reason: Error): void;
  /** A fetch has succeeded. */
  recovered(): void;
  /** The partitions that are not read on; told when it changes. */
  stuck(partitions: StuckPartition[]): void;
  /** A topic is deleted, or made anew. */
  topicGone(topic: string): void;
}

/**
 * Fetches from the leaders of partitions: a worker for each broker, with one request under way. What goes wrong with one
 * partition, or with one broker, is tried again while the others are fetched. Nothing is kept back: memory is bounded by
 * `fetchMaxBytes` for each broker, and by whoever takes the records pausing the partitions it has enough of.
 */
export class Fetcher {
  private partitions: FetchedPartitionState[] = [];
  private brokers = new Map<number, BrokerAddress>();
  private readonly workers = new Map<number, Promise<void>>();
  /** Ends the waits that are under way. */
  private readonly waits = new Set<() => void>();
  private stuckTold = '';
  private rotation = 0;

  constructor(
    private readonly cluster: Cluster,
    private readonly positions: Positions,
    private readonly settings: ConsumerSettings,
    private readonly paused: ReadonlySet<string>,
    private readonly listener: FetchListener,
  ) {}

  /** Those that are fetched. */
  get all(): readonly Sought[] {
    return this.partitions;
  }

  /** What may be fetched has changed. */
  wake(): void {
    for (const end of this.waits) end();
  }

  /** Fetches until `signal` says so. */
  async run(assigned: readonly TopicPartition[], signal: AbortSignal): Promise<void> {
    this.partitions = assigned.map((at) => new FetchedPartitionState(at));
    signal.addEventListener('abort', () => this.wake(), { once: true });
    try {
      while (!signal.aborted) {
        await this.look(signal);
        if (signal.aborted) break;
        this.startWorkers(signal);
        this.tellStuck();
        // A worker may have given up a partition meanwhile: it is looked at right away.
        if (this.partitions.some((at) => !at.isReady && !at.isBusy && at.isDue)) continue;
        await this.untilWoken((at) => !at.isReady);
      }
    } finally {
      await Promise.all(this.workers.values());
      this.partitions = [];
      this.tellStuck();
    }
  }

  /** Finds leaders and positions of the partitions that have none. */
  private async look(signal: AbortSignal): Promise<void> {
    const wanted = this.partitions.filter((at) => !at.isBusy && at.isDue && !at.isReady);
    if (wanted.length === 0) return;
    try {
      const view = await this.cluster.view(wanted.map(({ topic }) => topic));
      if (signal.aborted) return;
      for (const at of wanted) {
        if (at.findLeader(view) === 'topic-gone') this.listener.topicGone(at.topic);
        if (at.leader !== undefined) this.brokers.set(at.leader, view.brokers.get(at.leader)!);
      }
      await this.place(
        wanted.filter((at) => at.leader !== undefined && !at.isPlaced),
        view,
      );
    } catch (error) {
      if (signal.aborted) return;
      for (const at of wanted) at.fails(error as Error);
      if (this.workers.size === 0) this.listener.interrupted(error as Error);
    }
  }

  private async place(sought: FetchedPartitionState[], view: ClusterView): Promise<void> {
    if (sought.length === 0) return;
    const found = await this.positions.find(sought, view);
    for (const at of sought) {
      const position = found.get(partitionKey(at))!;
      if (position instanceof OffsetOutOfRangeError) at.lostAt ??= (position as LostPosition).committed;
      if (position instanceof Error) at.fails(position);
      else {
        [at.next, at.lostAt, at.isPlaced] = [position, undefined, true];
        at.succeeds();
      }
    }
  }

  private startWorkers(signal: AbortSignal): void {
    for (const { leader } of this.partitions.filter((at) => at.isReady)) {
      if (this.workers.has(leader!)) continue;
      const working = this.work(leader!, signal).finally(() => {
        this.workers.delete(leader!);
        this.wake();
      });
      this.workers.set(leader!, working);
    }
  }

  /** Fetches from one broker, until there is nothing that it leads. */
  private async work(node: number, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const ready = this.partitions.filter((at) => at.leader === node && at.isReady);
      if (ready.length === 0) return;
      const wanted = ready.filter((at) => !this.paused.has(partitionKey(at)));
      if (wanted.length === 0) {
        await this.untilWoken((at) => at.leader === node);
        continue;
      }
      for (const at of wanted) at.isBusy = true;
      try {
        await this.fetchOnce(this.brokers.get(node)!, wanted, signal);
      } catch (error) {
        if (signal.aborted) return;
        for (const at of wanted) {
          at.leader = undefined;
          at.fails(error as Error);
        }
        if (answerIn(error) === 'UNSUPPORTED_VERSION') this.cluster.forgetVersions();
        if (this.workers.size === 1) this.listener.interrupted(error as Error);
      } finally {
        for (const at of wanted) at.isBusy = false;
      }
      if (wanted.some((at) => !at.isReady)) this.wake();
      this.tellStuck();
    }
  }

  private async fetchOnce(
    broker: BrokerAddress,
    wanted: FetchedPartitionState[],
    signal: AbortSignal,
  ): Promise<void> {
    const { fetchWaitMs: waitMs, fetchMaxBytes: bytes, limits = RECORD_LIMITS } = this.settings;
    const byId = wanted.every(({ topicId }) => topicId !== undefined) && (await this.cluster.fetchesById());
    // The broker fills its answer from the first partition on, so another one is first each time.
    const first = this.rotation++;
    const rotated = wanted.map((_, index) => {
      const { topic, topicId, partition, next } = wanted[(index + first) % wanted.length]!;
      return { topic, topicId, partition, next: next! };
    });
    const bounds = { waitMs, bytes, partitionBytes: Math.min(PARTITION_MAX_BYTES, bytes) };
    const timeoutMs = waitMs + REQUEST_TIMEOUT_MS;
    const answer: FetchAnswer = await this.cluster.call(broker, fetchRecords(rotated, bounds, byId), {
      purpose: 'fetch',
      timeoutMs,
    });
    if (signal.aborted) return;
    check('Fetch', answer.errorCode);
    const nameOf = (at: FetchedPartitionState) => `${byId ? at.topicId : at.topic} ${at.partition}`;
    const byName = new Map(wanted.map((at) => [nameOf(at), at]));
    const reading: BatchReading = { limits, left: limits.batchBytes, decompress };
    for (const fetched of answer.partitions) {
      const at = byName.get(`${fetched.topic} ${fetched.partition}`);
      if (at) await this.take(at, fetched, reading, signal);
      // Reading gives way to others: meanwhile the generation may have ended, and its partitions be another member's.
      if (signal.aborted) return;
    }
    this.listener.recovered();
  }

  private async take(
    at: FetchedPartitionState,
    fetched: FetchedPartition,
    reading: BatchReading,
    signal: AbortSignal,
  ): Promise<void> {
    const error = answerError(`${at.topic}, partition ${at.partition}`, fetched.errorCode);
    if (error?.answer === 'OFFSET_OUT_OF_RANGE') at.isPlaced = false;
    else if (error) {
      at.leader = undefined;
      at.fails(error);
      if (/^UNKNOWN_TOPIC|^INCONSISTENT_TOPIC_ID$/.test(error.answer)) this.listener.topicGone(at.topic);
    } else {
      const { batch, undecodable } = await committedRecords(at, at.next!, fetched, reading);
      if (signal.aborted) return;
      if (batch) {
        at.next = batch.nextOffset;
        this.listener.records(batch);
      }
      if (undecodable) at.fails(undecodable, undecodable.offset);
      else at.succeeds();
    }
  }

  private tellStuck(): void {
    const stuck = stuckOf(this.partitions);
    const told = stuck
      .map(({ topic, partition, reason }) => `${topic} ${partition} ${reason.message}`)
      .join();
    if (told === this.stuckTold) return;
    this.stuckTold = told;
    this.listener.stuck(stuck);
  }

  /** Until `wake`, or until one of the partitions that `concern` is to be looked at again. */
  private untilWoken(concern: (at: FetchedPartitionState) => boolean): Promise<void> {
    const dueIn = this.partitions.filter(concern).map(({ waitMs }) => waitMs);
    const soonest = Math.min(LONG_MS, ...dueIn.filter((ms) => ms > 0));
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.waits.delete(end);
        resolve();
      };
      const timer = setTimeout(end, soonest);
      this.waits.add(end);
    });
  }
}
