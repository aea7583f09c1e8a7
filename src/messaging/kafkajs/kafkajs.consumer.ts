import type { Admin, Consumer, EachBatchPayload, Kafka, KafkaMessage } from 'kafkajs';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CommitRefusedError,
  type CommitOffset,
  type ConsumerListener,
  type ConsumerSettings,
  type KafkaConsumer,
  OffsetOutOfRangeError,
  partitionKey,
  partitionsByTopic,
  type TopicPartition,
} from '../kafka-driver.js';
import { pause } from '../pause.js';
import { isAnswer } from './kafkajs.errors.js';
import type { WithUnread } from './kafkajs.fetched.js';
import { committedOffsets, positionsInRange } from './kafkajs.positions.js';

const TRY_AGAIN_MS = 500;
const START_ATTEMPTS = 10;
/** It crashes then, and another takes its place. */
const CONSUMER_RETRIES = 3;
const OUT_OF_GENERATION = /^(REBALANCE_IN_PROGRESS|UNKNOWN_MEMBER_ID|ILLEGAL_GENERATION|FENCED_INSTANCE_ID)$/;
const NO_COORDINATOR_YET =
  /^(GROUP_LOAD_IN_PROGRESS|GROUP_COORDINATOR_NOT_AVAILABLE|NOT_COORDINATOR_FOR_GROUP)$/;

/**
 * A member of a group by kafkajs, whose positions are set here: by itself it takes the first or the last offset where the
 * group's is gone, and commits that.
 */
export class KafkajsConsumer implements KafkaConsumer {
  raw!: Consumer;
  /** The next offset of each assigned partition; undefined while its position is looked up, and nothing of it is fetched. */
  private next = new Map<string, bigint | undefined>();
  private readonly paused = new Set<string>();
  private readonly closing = new AbortController();
  private closed: Promise<void> | undefined;
  private assignment = 0;
  /** Since the last `revoking`. */
  private isAssigned = false;
  private isInterrupted = false;
  private commits = 0;
  /** What closing waits for. */
  private readonly underWay = new Set<Promise<void>>();

  constructor(
    private readonly kafka: Kafka,
    private readonly settings: ConsumerSettings,
    private readonly listener: ConsumerListener,
    private readonly withAdmin: <T>(use: (admin: Admin) => Promise<T>) => Promise<T>,
  ) {}

  /** @throws Error the brokers can't be reached */
  async start(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.join();
      } catch (error) {
        // As for the first group of a broker that has just been started.
        if (attempt === START_ATTEMPTS || !isAnswer(error, NO_COORDINATOR_YET)) throw error;
        await sleep(TRY_AGAIN_MS);
      }
    }
  }

  pause(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) this.paused.add(partitionKey(partition));
    const assigned = partitions.filter((partition) => this.next.has(partitionKey(partition)));
    if (assigned.length > 0) this.raw.pause(topicPartitions(assigned));
  }

  resume(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) this.paused.delete(partitionKey(partition));
    this.resumeReady(partitions);
  }

  async commit(offsets: readonly CommitOffset[]): Promise<void> {
    const { groupId } = this.settings;
    // kafkajs would commit what is another member's by now.
    if (!offsets.every((at) => this.next.has(partitionKey(at))))
      throw new CommitRefusedError(`The group ${groupId} has not given these partitions to this member.`);
    const { commits } = this;
    try {
      await this.raw.commitOffsets(offsets.map((at) => ({ ...at, offset: String(at.offset) })));
    } catch (cause) {
      if (!isAnswer(cause, OUT_OF_GENERATION)) throw cause;
      throw new CommitRefusedError(`The group ${groupId} refuses the commit.`, { cause });
    }
    // One that was given up because the consumer stopped resolves as well.
    if (commits === this.commits) throw new CommitRefusedError(`The member of ${groupId} is stopping.`);
  }

  close(): Promise<void> {
    return (this.closed ??= this.closeOnce());
  }

  /**
   * Called while kafkajs is about to commit its default offset.
   *
   * @throws Error so that it doesn't
   */
  outOfRange({ topic, partition }: TopicPartition): void {
    const where = { topic, partition };
    const at = this.next.get(partitionKey(where));
    if (at !== undefined) this.lookUp([where], async () => new Map([[partitionKey(where), at]]));
    throw new Error(`${topic}, partition ${partition}: the offset ${at ?? ''} is out of range.`);
  }

  private newConsumer(): Consumer {
    const { groupId, sessionTimeoutMs, heartbeatIntervalMs, fetchWaitMs, fetchMaxBytes } = this.settings;
    return this.kafka.consumer({
      groupId,
      sessionTimeout: sessionTimeoutMs,
      heartbeatInterval: heartbeatIntervalMs,
      maxWaitTimeInMs: fetchWaitMs,
      maxBytes: fetchMaxBytes,
      maxBytesPerPartition: fetchMaxBytes,
      allowAutoTopicCreation: false,
      // Left to itself it may start once more while it is closed, and stay in the group for ever.
      retry: { retries: CONSUMER_RETRIES, restartOnFailure: () => Promise.resolve(false) },
    });
  }

  private async join(): Promise<void> {
    const { settings } = this;
    const raw = (this.raw = this.newConsumer());
    const { GROUP_JOIN, REBALANCING, CRASH, COMMIT_OFFSETS, END_BATCH_PROCESS } = raw.events;
    let isRunning = false;
    // `run()` resolves whether or not it could join.
    let crash: Error | undefined;
    raw.on(GROUP_JOIN, ({ payload }) => this.joined(payload.memberAssignment));
    raw.on(REBALANCING, () => this.revoking());
    raw.on(COMMIT_OFFSETS, () => void this.commits++);
    raw.on(CRASH, ({ payload: { error } }) => {
      crash = error;
      if (isRunning) this.await(this.joinAgain(error));
    });
    // A batch of control records alone reaches no handler.
    raw.on(END_BATCH_PROCESS, ({ payload: { topic, partition, batchSize, lastOffset } }) => {
      if (batchSize === 0) this.deliver({ topic, partition }, [], BigInt(lastOffset) + 1n);
    });
    try {
      await raw.connect();
      await raw.subscribe({ topics: settings.topics, fromBeginning: settings.fromBeginning });
      await raw.run({
        autoCommit: false,
        eachBatch: (payload) => this.eachBatch(payload),
        // A fetch is handed over at once, whatever the number of its partitions.
        partitionsConsumedConcurrently: 1000,
      });
      if (crash) throw crash;
      isRunning = true;
    } catch (error) {
      await raw.disconnect();
      throw error;
    }
  }

  /** kafkajs has given up, and has disconnected by now. */
  private async joinAgain(reason: Error): Promise<void> {
    this.next.clear();
    this.assignment++;
    this.revoking();
    this.interrupted(reason);
    const { signal } = this.closing;
    while (!signal.aborted) {
      try {
        return await this.join();
      } catch (error) {
        this.interrupted(error as Error);
        await pause(TRY_AGAIN_MS, signal);
      }
    }
  }

  private joined(assignment: Record<string, number[]>): void {
    const partitions = Object.entries(assignment).flatMap(([topic, numbers]) =>
      numbers.map((partition) => ({ topic, partition })),
    );
    this.assignment++;
    this.next.clear();
    // Nothing was said when the group has thrown this member out.
    this.revoking();
    this.paused.clear();
    this.isAssigned = true;
    this.lookUp(partitions, (admin) => committedOffsets(admin, this.settings.groupId, partitions));
    this.listener.assigned(partitions);
  }

  private revoking(): void {
    if (!this.isAssigned) return;
    this.isAssigned = false;
    this.listener.revoking();
  }

  /** Fetches nothing of `partitions` before their positions are known to be there. */
  private lookUp(
    partitions: TopicPartition[],
    positions: (admin: Admin) => Promise<ReadonlyMap<string, bigint>>,
  ): void {
    const { assignment } = this;
    for (const partition of partitions) this.next.set(partitionKey(partition), undefined);
    this.raw.pause(topicPartitions(partitions));
    this.await(this.position(partitions, positions, () => assignment === this.assignment));
  }

  private async position(
    partitions: TopicPartition[],
    positions: (admin: Admin) => Promise<ReadonlyMap<string, bigint>>,
    isCurrent: () => boolean,
  ): Promise<void> {
    const { signal } = this.closing;
    while (isCurrent() && !signal.aborted) {
      try {
        const found = await this.withAdmin(async (admin) =>
          positionsInRange(admin, partitions, await positions(admin), this.settings),
        );
        if (!isCurrent() || signal.aborted) return;
        for (const at of found) {
          this.next.set(partitionKey(at), at.offset);
          this.raw.seek({ ...at, offset: String(at.offset) });
        }
        this.recovered();
        return this.resumeReady(partitions);
      } catch (error) {
        if (!isCurrent()) return;
        if (error instanceof OffsetOutOfRangeError) return this.fail(error);
        this.interrupted(error as Error);
        await pause(TRY_AGAIN_MS, signal);
      }
    }
  }

  private resumeReady(partitions: readonly TopicPartition[]): void {
    const isReady = (key: string) => this.next.get(key) !== undefined && !this.paused.has(key);
    const ready = partitions.filter((partition) => isReady(partitionKey(partition)));
    if (ready.length > 0) this.raw.resume(topicPartitions(ready));
  }

  private async eachBatch(payload: EachBatchPayload): Promise<void> {
    const { batch } = payload;
    if (!payload.isRunning() || payload.isStale()) return;
    this.deliver(batch, batch.messages, BigInt(batch.lastOffset()) + 1n);
    await payload.heartbeat();
  }

  private deliver(where: TopicPartition, messages: readonly KafkaMessage[], nextOffset: bigint): void {
    const { topic, partition } = where;
    const from = this.next.get(partitionKey(where));
    // What was fetched before the partitions were shared out anew comes again.
    if (from === undefined || nextOffset <= from || this.closing.signal.aborted) return;
    this.next.set(partitionKey(where), nextOffset);
    const records = messages.map((message) => {
      const { offset, timestamp, key, value, headers = {}, unread } = message as KafkaMessage & WithUnread;
      const record = { topic, partition, offset: BigInt(offset), timestamp, key, value, headers };
      return unread ? { ...record, unread } : record;
    });
    const wanted = records.filter(({ offset }) => offset >= from);
    this.listener.records({ topic, partition, records: wanted, nextOffset });
  }

  private interrupted(reason: Error): void {
    if (this.isInterrupted || this.closing.signal.aborted) return;
    this.isInterrupted = true;
    this.listener.interrupted(reason);
  }

  private recovered(): void {
    if (!this.isInterrupted) return;
    this.isInterrupted = false;
    this.listener.recovered();
  }

  private fail(error: Error): void {
    if (this.closing.signal.aborted) return;
    // What comes of it is told to whoever closes it, once more.
    this.close().catch(() => undefined);
    this.listener.failed(error);
  }

  private await(work: Promise<void>): void {
    this.underWay.add(work);
    void work.finally(() => this.underWay.delete(work));
  }

  private async closeOnce(): Promise<void> {
    this.closing.abort();
    // kafkajs, told to stop while it is joining, joins all the same and stays.
    await Promise.all(this.underWay);
    this.next.clear();
    await this.raw.disconnect();
  }
}

const topicPartitions = (partitions: readonly TopicPartition[]) =>
  [...partitionsByTopic(partitions)].map(([topic, numbers]) => ({ topic, partitions: numbers }));
