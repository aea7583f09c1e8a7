import type { Logger } from '@nestjs/common';
import { Consumer } from '@platformatic/kafka';
import type { Broker, ConnectionPool } from '@platformatic/kafka';
import { setMaxListeners } from 'node:events';
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises';
import {
  ASSIGNORS,
  decodeAssignment,
  decodeSubscription,
  encodeAssignment,
  encodeSubscription,
  partitionsByTopic,
  shareOut,
} from './group-protocol.js';
import {
  type CommitOffset,
  CommitRefusedError,
  type ConsumerListener,
  type ConsumerSettings,
  type KafkaClientSettings,
  type KafkaConsumer,
  OffsetOutOfRangeError,
  type TopicPartition,
} from './kafka-driver.js';
import {
  answerOf,
  atMost,
  clientOptions,
  Cluster,
  kafkaNames,
  REQUEST_TIMEOUT_MS,
} from './platformatic.cluster.js';
import { type Assigned, Fetcher, keyOf } from './platformatic.fetcher.js';

const EARLIEST = -2n;
const LATEST = -1n;
const RETRY_MS = 500;
/** How often it is looked whether topics have come, gone or grown. */
const TOPICS_CHECK_MS = 30_000;
const CLOSE_MS = 3_000;
const COMMIT_ATTEMPTS = 4;

/** The broker does not take this member for one of the current generation. */
const OUT_OF_GENERATION = [
  'REBALANCE_IN_PROGRESS',
  'ILLEGAL_GENERATION',
  'UNKNOWN_MEMBER_ID',
  'FENCED_INSTANCE_ID',
];
/** Trying again would bring the same answer. */
const FATAL = [
  'GROUP_AUTHORIZATION_FAILED',
  'INVALID_GROUP_ID',
  'INVALID_SESSION_TIMEOUT',
  'GROUP_MAX_SIZE_REACHED',
];
const TEMPORARY = [
  'COORDINATOR_NOT_AVAILABLE',
  'COORDINATOR_LOAD_IN_PROGRESS',
  'NOT_COORDINATOR',
  'REQUEST_TIMED_OUT',
  'UNSTABLE_OFFSET_COMMIT',
];

/** A membership that lasts until the group shares out its partitions anew. */
interface Generation {
  readonly id: number;
  readonly memberId: string;
  /** Of this member, by `keyOf`. */
  readonly partitions: Map<string, TopicPartition>;
  /** No record is handed over any more. */
  readonly over: AbortController;
  /** The group has to be joined again before the next heartbeat is due. */
  readonly rejoin: AbortController;
  isTold: boolean;
}

/**
 * A member of a classic consumer group over the library's connections and requests. The library's own group membership
 * and stream are not used: they send no heartbeat any more after one that failed, never look for a coordinator that has
 * moved, and end with the first error of a fetch.
 */
export class PlatformaticConsumer implements KafkaConsumer {
  readonly raw: Consumer;
  private readonly cluster: Cluster;
  private readonly fetchPool: ConnectionPool;
  private readonly paused = new Set<string>();
  private readonly commits = new Set<Promise<void>>();
  private readonly closing = new AbortController();
  private readonly fetcher: Fetcher;
  private topics: string[] = [];
  private topicsSeen = '';
  private coordinator: Broker | undefined;
  private memberId = '';
  private generation: Generation | undefined;
  private isInterrupted = false;
  private running = Promise.resolve();
  private closed: Promise<void> | undefined;

  constructor(
    client: KafkaClientSettings,
    private readonly settings: ConsumerSettings,
    private readonly listener: ConsumerListener,
    private readonly logger: Logger,
  ) {
    // Every commit that waits to be tried again listens.
    setMaxListeners(0, this.closing.signal);
    this.raw = new Consumer({ ...clientOptions(client), groupId: settings.groupId });
    this.cluster = new Cluster(this.raw, client);
    this.fetchPool = this.cluster.newPool();
    this.fetcher = new Fetcher(this.cluster, this.fetchPool, settings, this.paused, {
      records: (batch) => listener.records(batch),
      interrupted: (reason) => this.interrupted(reason),
      recovered: () => (this.isInterrupted = false),
      position: (partition) => this.positionOutOfRange(partition),
      failed: (reason) => this.fail(reason),
    });
  }

  /** @throws Error the brokers can't be reached */
  async start(): Promise<void> {
    try {
      await this.checkTopics();
    } catch (error) {
      await this.cluster.close();
      throw error;
    }
    this.running = this.run();
  }

  pause(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) this.paused.add(keyOf(partition));
  }

  resume(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) this.paused.delete(keyOf(partition));
    this.fetcher.wake();
  }

  async commit(offsets: readonly CommitOffset[]): Promise<void> {
    const { generation } = this;
    if (!generation || !offsets.every((offset) => generation.partitions.has(keyOf(offset))))
      throw new CommitRefusedError(
        `Not, or not any more, this member's partitions in ${this.settings.groupId}.`,
      );
    const commit = this.sendCommit(generation, offsets);
    const settled = commit.catch(() => undefined).finally(() => this.commits.delete(settled));
    this.commits.add(settled);
    return commit;
  }

  close(): Promise<void> {
    return (this.closed ??= this.leaveAndClose());
  }

  private async sendCommit(generation: Generation, offsets: readonly CommitOffset[]): Promise<void> {
    const topics = [...partitionsByTopic(offsets)].map(([name]) => ({
      name,
      partitions: offsets
        .filter(({ topic }) => topic === name)
        .map(({ partition, offset }) => ({
          partitionIndex: partition,
          committedOffset: offset,
          committedLeaderEpoch: -1,
          committedMetadata: null,
        })),
    }));
    for (let attempt = 1; ; attempt++) {
      try {
        const coordinator = await this.findCoordinator();
        const { groupId } = this.settings;
        await this.cluster.call('OffsetCommit', coordinator, [
          groupId,
          generation.id,
          generation.memberId,
          null,
          topics,
        ]);
        return;
      } catch (error) {
        const names = kafkaNames(error);
        if (names.some((name) => OUT_OF_GENERATION.includes(name))) {
          generation.rejoin.abort();
          throw new CommitRefusedError(
            `The group ${this.settings.groupId} refuses the commit: ${names.join()}.`,
            {
              cause: error,
            },
          );
        }
        this.coordinator = undefined;
        const isTemporary = names.every((name) => TEMPORARY.includes(name));
        if (!isTemporary || attempt === COMMIT_ATTEMPTS || this.closing.signal.aborted) throw error;
        if (this.generation !== generation)
          throw new CommitRefusedError('The group is sharing out its partitions.', { cause: error });
        await this.wait(RETRY_MS * attempt);
      }
    }
  }

  /** A member until `close` or `fail`. */
  private async run(): Promise<void> {
    while (!this.closing.signal.aborted) {
      try {
        const generation = await this.join();
        const consuming = this.consume(generation);
        try {
          await this.stay(generation);
        } finally {
          await this.end(generation);
          await consuming;
        }
      } catch (error) {
        if (this.closing.signal.aborted) return;
        if (kafkaNames(error).some((name) => FATAL.includes(name))) return this.fail(error as Error);
        this.coordinator = undefined;
        this.interrupted(error as Error);
        await this.wait(RETRY_MS);
      }
    }
  }

  private async join(): Promise<Generation> {
    const { groupId, sessionTimeoutMs } = this.settings;
    const protocols = ASSIGNORS.map((name) => ({ name, metadata: encodeSubscription(this.topics) }));
    // Members join with their next heartbeat, whatever they are at: one that takes longer is gone.
    const rebalanceMs = sessionTimeoutMs;
    const timeoutMs = rebalanceMs + REQUEST_TIMEOUT_MS;
    while (!this.closing.signal.aborted) {
      const coordinator = await this.findCoordinator();
      try {
        const joined = await this.cluster.call(
          'JoinGroup',
          coordinator,
          [groupId, sessionTimeoutMs, rebalanceMs, this.memberId, null, 'consumer', protocols],
          { timeoutMs },
        );
        this.memberId = joined.memberId!;
        const { generationId, protocolName } = joined;
        const assignments = joined.leader === this.memberId ? await this.assignments(joined.members) : [];
        const { assignment } = await this.cluster.call(
          'SyncGroup',
          coordinator,
          [groupId, generationId, this.memberId, null, 'consumer', protocolName, assignments],
          { timeoutMs },
        );
        if (this.closing.signal.aborted) break;
        const partitions = decodeAssignment(assignment);
        this.generation = {
          id: generationId,
          memberId: this.memberId,
          partitions: new Map(partitions.map((partition) => [keyOf(partition), partition])),
          over: new AbortController(),
          rejoin: new AbortController(),
          isTold: false,
        };
        this.raw.memberId = this.memberId;
        this.raw.generationId = generationId;
        this.raw.assignments = [...partitionsByTopic(partitions)].map(([topic, own]) => ({
          topic,
          partitions: own,
        }));
        return this.generation;
      } catch (error) {
        const names = kafkaNames(error);
        if (names.includes('MEMBER_ID_REQUIRED')) this.memberId = answerOf<'JoinGroup'>(error).memberId ?? '';
        else if (names.includes('UNKNOWN_MEMBER_ID')) this.memberId = '';
        else if (!names.some((name) => OUT_OF_GENERATION.includes(name))) throw error;
      }
    }
    throw new Error('Closed while joining.');
  }

  private async assignments(members: { memberId: string; metadata: Buffer | null }[]) {
    const subscriptions = new Map(
      members.map(({ memberId, metadata }) => [memberId, metadata ? decodeSubscription(metadata) : []]),
    );
    const { topics } = await this.cluster.view([...subscriptions.values()].flat());
    const counts = new Map([...topics].map(([name, { leaders }]) => [name, leaders.length]));
    return [...shareOut(subscriptions, counts)].map(([memberId, partitions]) => ({
      memberId,
      assignment: encodeAssignment(partitions),
    }));
  }

  /** Finds out where to go on, tells what is assigned, and fetches until the generation is over. */
  private async consume(generation: Generation): Promise<void> {
    const { signal } = generation.over;
    while (!signal.aborted) {
      try {
        const partitions = [...generation.partitions.values()];
        const assigned = await this.positions(partitions);
        if (signal.aborted) return;
        this.paused.clear();
        generation.isTold = true;
        this.listener.assigned(partitions);
        return await this.fetcher.run(assigned, signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof OffsetOutOfRangeError) return this.fail(error);
        this.coordinator = undefined;
        this.interrupted(error as Error);
        await this.wait(RETRY_MS, signal);
      }
    }
  }

  /** Sends heartbeats until the group has to be joined anew. */
  private async stay(generation: Generation): Promise<void> {
    const { groupId, heartbeatIntervalMs, sessionTimeoutMs } = this.settings;
    let checkAt = Date.now() + TOPICS_CHECK_MS;
    for (;;) {
      await this.wait(heartbeatIntervalMs, generation.rejoin.signal);
      if (this.closing.signal.aborted) return;
      try {
        await this.cluster.call(
          'Heartbeat',
          await this.findCoordinator(),
          [groupId, generation.id, generation.memberId, null],
          // A connection that is dead without a word costs less than the session then.
          { timeoutMs: Math.max(1_000, sessionTimeoutMs / 3) },
        );
        this.isInterrupted = false;
        if (generation.rejoin.signal.aborted) return;
        if (Date.now() < checkAt && !this.fetcher.isTopicGone) continue;
        checkAt = Date.now() + TOPICS_CHECK_MS;
        this.fetcher.isTopicGone = false;
        if (await this.checkTopics()) return;
      } catch (error) {
        const names = kafkaNames(error);
        if (names.includes('UNKNOWN_MEMBER_ID')) this.memberId = '';
        if (names.some((name) => OUT_OF_GENERATION.includes(name))) return;
        if (names.some((name) => FATAL.includes(name))) throw error;
        this.coordinator = undefined;
        this.interrupted(error as Error);
        if (generation.rejoin.signal.aborted) await this.wait(RETRY_MS);
      }
    }
  }

  /** The commits that are made when `revoking` is told still count for the generation; later ones do not. */
  private async end(generation: Generation): Promise<void> {
    generation.over.abort();
    this.fetcher.wake();
    if (this.closing.signal.aborted) return;
    if (generation.isTold) this.listener.revoking();
    await immediate();
    await this.commitsSettled(this.settings.sessionTimeoutMs / 2);
    if (this.generation === generation) this.generation = undefined;
  }

  /** Where to go on in `partitions`. @throws OffsetOutOfRangeError */
  private async positions(partitions: readonly TopicPartition[]): Promise<Assigned[]> {
    if (partitions.length === 0) return [];
    const topics = [...partitionsByTopic(partitions)].map(([name, partitionIndexes]) => ({
      name,
      partitionIndexes,
    }));
    const { groupId, fromBeginning } = this.settings;
    const [committed, low, high] = await Promise.all([
      this.cluster.call('OffsetFetch', await this.findCoordinator(), [
        [{ groupId, memberEpoch: -1, topics }],
        true,
      ]),
      this.fetcher.watermarks(partitions, EARLIEST),
      this.fetcher.watermarks(partitions, LATEST),
    ]);
    const offsets = new Map(
      committed.groups
        .flatMap((group) => group.topics)
        .flatMap(({ name, partitions: own }) =>
          own.map(({ partitionIndex, committedOffset }): [string, bigint] => [
            keyOf({ topic: name, partition: partitionIndex }),
            committedOffset,
          ]),
        ),
    );
    return partitions.map((partition) => {
      const key = keyOf(partition);
      const bounds = { low: low.get(key)!, high: high.get(key)! };
      const offset = offsets.get(key) ?? -1n;
      if (offset < 0n) return { ...partition, next: fromBeginning ? bounds.low : bounds.high };
      if (offset >= bounds.low && offset <= bounds.high) return { ...partition, next: offset };
      return { ...partition, next: this.outOfRange(partition, offset, bounds) };
    });
  }

  /** @throws OffsetOutOfRangeError */
  private async positionOutOfRange(assigned: Assigned): Promise<bigint> {
    const key = keyOf(assigned);
    const [low, high] = await Promise.all([
      this.fetcher.watermarks([assigned], EARLIEST),
      this.fetcher.watermarks([assigned], LATEST),
    ]);
    return this.outOfRange(assigned, assigned.next, { low: low.get(key)!, high: high.get(key)! });
  }

  private outOfRange(
    partition: TopicPartition,
    offset: bigint,
    { low, high }: { low: bigint; high: bigint },
  ): bigint {
    const { groupId, onOffsetOutOfRange: policy } = this.settings;
    const where = `the offset is ${offset}, the partition has ${low} to ${high - 1n}.`;
    if (policy === 'stop') throw new OffsetOutOfRangeError(partition, groupId, where);
    this.logger.warn({ msg: 'offset out of range', ...partition, groupId, where, goingOnWith: policy });
    return policy === 'earliest' ? low : high;
  }

  /** True when the topics are others than before, or have other partitions. */
  private async checkTopics(): Promise<boolean> {
    const named = this.settings.topics.filter((topic) => typeof topic === 'string');
    const patterns = this.settings.topics.filter((topic) => topic instanceof RegExp);
    const { topics } = await this.cluster.view(patterns.length > 0 ? null : named);
    const matching = [...topics].filter(
      ([name, { isInternal }]) => !isInternal && patterns.some((pattern) => name.search(pattern) !== -1),
    );
    this.topics = [...new Set([...named, ...matching.map(([name]) => name)])].sort();
    const seen = JSON.stringify(
      this.topics.map((name) => [name, topics.get(name)?.id, topics.get(name)?.leaders.length]),
    );
    const isChanged = seen !== this.topicsSeen;
    this.topicsSeen = seen;
    const missing = named.filter((name) => !topics.has(name));
    if (isChanged && missing.length > 0)
      this.logger.warn({ msg: 'topics that do not exist', topics: missing });
    return isChanged;
  }

  private async findCoordinator(): Promise<Broker> {
    if (this.coordinator) return this.coordinator;
    const group = 0;
    const { coordinators } = await this.cluster.call('FindCoordinator', undefined, [
      group,
      [this.settings.groupId],
    ]);
    const { host, port } = coordinators[0]!;
    return (this.coordinator = { host, port });
  }

  private interrupted(reason: Error): void {
    if (this.closing.signal.aborted || this.isInterrupted) return;
    this.isInterrupted = true;
    this.listener.interrupted(reason);
  }

  private fail(reason: Error): void {
    if (this.closed) return;
    this.close().catch((error: unknown) =>
      this.logger.warn({ msg: 'closing a failed consumer failed', err: error }),
    );
    this.listener.failed(reason);
  }

  private async leaveAndClose(): Promise<void> {
    this.closing.abort();
    this.generation?.over.abort();
    this.generation?.rejoin.abort();
    this.fetcher.wake();
    await this.commitsSettled(CLOSE_MS);
    this.generation = undefined;
    const left = this.memberId === '' ? Promise.resolve() : this.leave();
    await atMost(CLOSE_MS, left);
    // Ends what the rest is waiting for.
    await this.cluster.close();
    await Promise.all([left, this.running]);
  }

  private async leave(): Promise<void> {
    try {
      const { groupId } = this.settings;
      // The group's own connection may be waiting for the answer to a JoinGroup.
      const pool = this.cluster.newPool();
      const coordinator = await this.findCoordinator();
      await this.cluster.call('LeaveGroup', coordinator, [groupId, [{ memberId: this.memberId }]], { pool });
    } catch (error) {
      if (kafkaNames(error).includes('UNKNOWN_MEMBER_ID')) return;
      this.logger.warn({
        msg: 'leaving the group failed; it will go on when the session has timed out',
        err: error,
      });
    }
  }

  private async commitsSettled(atMostMs: number): Promise<void> {
    if (this.commits.size > 0) await atMost(atMostMs, Promise.all(this.commits));
  }

  /** Waits, until `signal` says to go on. */
  private async wait(milliseconds: number, signal = this.closing.signal): Promise<void> {
    await sleep(milliseconds, undefined, { signal }).catch(() => undefined);
  }
}
