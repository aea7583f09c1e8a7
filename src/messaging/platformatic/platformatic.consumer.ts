import type { Logger } from '@nestjs/common';
import { Consumer, type ConnectionPool } from '@platformatic/kafka';
import { setImmediate as immediate } from 'node:timers/promises';
import {
  type CommitOffset,
  CommitRefusedError,
  type ConsumerListener,
  type ConsumerSettings,
  type KafkaClientSettings,
  type KafkaConsumer,
  OffsetOutOfRangeError,
  partitionKey,
  partitionsByTopic,
  type TopicPartition,
} from '../kafka-driver.js';
import { pause } from '../pause.js';
import { atMost, clientOptions, Cluster, cut, kafkaNames } from './platformatic.cluster.js';
import { GroupCoordinator, isOutOfGeneration, type Membership } from './platformatic.coordinator.js';
import { Fetcher } from './platformatic.fetcher.js';
import { Positions } from './platformatic.positions.js';

const RETRY_MS = 500;
/** How often it is looked whether topics have come, gone or grown. */
const TOPICS_CHECK_MS = 30_000;
const CLOSE_MS = 3_000;
const COMMIT_ATTEMPTS = 4;
/** Trying again would bring the same answer. */
const FATAL = [
  'GROUP_AUTHORIZATION_FAILED',
  'INVALID_GROUP_ID',
  'INVALID_SESSION_TIMEOUT',
  'GROUP_MAX_SIZE_REACHED',
];

/** A membership that lasts until the group shares out its partitions anew. */
interface Generation extends Membership {
  readonly keys: ReadonlySet<string>;
  /** No record is handed over any more. */
  readonly over: AbortController;
  /** The group has to be joined again before the next heartbeat is due. */
  readonly rejoin: AbortController;
  isTold: boolean;
}

/**
 * A member of a classic consumer group over the library's connections and requests. The library's own group membership
 * and stream are not used: they send no heartbeat any more after one that failed, never look for a coordinator that has
 * moved, end with the first error of a fetch, and hand over records of aborted transactions.
 */
export class PlatformaticConsumer implements KafkaConsumer {
  readonly raw: Consumer;
  private readonly cluster: Cluster;
  private readonly coordinator: GroupCoordinator;
  private readonly positions: Positions;
  private readonly fetchPool: ConnectionPool;
  private readonly fetcher: Fetcher;
  private readonly paused = new Set<string>();
  private readonly closing = new AbortController();
  private topics: string[] = [];
  private topicsSeen = '';
  private generation: Generation | undefined;
  /** What does not work at the moment: `interrupted` was told, and `recovered` is when nothing is left. */
  private readonly broken = new Set<'group' | 'fetch'>();
  /** Settles with the last commit. */
  private committing: Promise<void> = Promise.resolve();
  private running: Promise<void> = Promise.resolve();
  private closed: Promise<void> | undefined;

  constructor(
    client: KafkaClientSettings,
    private readonly settings: ConsumerSettings,
    private readonly listener: ConsumerListener,
    private readonly logger: Logger,
  ) {
    this.raw = new Consumer({ ...clientOptions(client), groupId: settings.groupId });
    this.cluster = new Cluster(this.raw, client);
    this.coordinator = new GroupCoordinator(this.cluster, settings);
    this.positions = new Positions(this.cluster, this.coordinator, settings, logger);
    this.fetchPool = this.cluster.newPool();
    this.fetcher = new Fetcher(this.cluster, this.fetchPool, settings, this.paused, {
      records: (batch) => listener.records(batch),
      interrupted: (reason) => this.interrupted('fetch', reason),
      recovered: () => this.recovered('fetch'),
      position: (partition) => this.positions.instead(partition),
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
    for (const partition of partitions) this.paused.add(partitionKey(partition));
  }

  resume(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) this.paused.delete(partitionKey(partition));
    this.fetcher.wake();
  }

  async commit(offsets: readonly CommitOffset[]): Promise<void> {
    const { generation } = this;
    if (!generation || !offsets.every((offset) => generation.keys.has(partitionKey(offset))))
      throw new CommitRefusedError(
        `The group ${this.settings.groupId} has not given these partitions to this member.`,
      );
    // One after the other: one that is tried again must not undo a later one.
    const commit = this.committing.then(() => this.commitFor(generation, offsets));
    this.committing = commit.catch(() => undefined);
    return commit;
  }

  close(): Promise<void> {
    return (this.closed ??= this.leaveAndClose());
  }

  private async commitFor(generation: Generation, offsets: readonly CommitOffset[]): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      if (this.generation !== generation)
        throw new CommitRefusedError(`The group ${this.settings.groupId} is sharing out its partitions.`);
      try {
        return await this.coordinator.commit(generation, offsets);
      } catch (error) {
        if (error instanceof CommitRefusedError) {
          generation.rejoin.abort();
          throw error;
        }
        const isOver = attempt === COMMIT_ATTEMPTS || generation.over.signal.aborted;
        if (isOver || !GroupCoordinator.isTemporary(error)) throw error;
        await pause(RETRY_MS * attempt, generation.over.signal);
      }
    }
  }

  /** A member until `close` or `fail`. */
  private async run(): Promise<void> {
    const { signal } = this.closing;
    while (!signal.aborted) {
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
        if (signal.aborted) return;
        if (kafkaNames(error).some((name) => FATAL.includes(name))) return this.fail(error as Error);
        this.interrupted('group', error as Error);
        await pause(RETRY_MS, signal);
      }
    }
  }

  private async join(): Promise<Generation> {
    const membership = await this.coordinator.join(this.topics, this.closing.signal);
    const { generationId, memberId, partitions } = membership;
    const [over, rejoin] = [new AbortController(), new AbortController()];
    this.raw.memberId = memberId;
    this.raw.generationId = generationId;
    this.raw.assignments = [...partitionsByTopic(partitions)].map(([topic, own]) => ({
      topic,
      partitions: own,
    }));
    return (this.generation = {
      ...membership,
      keys: new Set(partitions.map(partitionKey)),
      over,
      rejoin,
      isTold: false,
    });
  }

  /** Finds out where to go on, tells what is assigned, and fetches until the generation is over. */
  private async consume(generation: Generation): Promise<void> {
    const { signal } = generation.over;
    while (!signal.aborted) {
      try {
        const assigned = await this.positions.committed(generation.partitions);
        if (signal.aborted) return;
        this.paused.clear();
        generation.isTold = true;
        this.listener.assigned([...generation.partitions]);
        this.recovered('fetch');
        return await this.fetcher.run(assigned, signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof OffsetOutOfRangeError) return this.fail(error);
        this.interrupted('fetch', error as Error);
        await pause(RETRY_MS, signal);
      }
    }
  }

  /** Sends heartbeats until the group has to be joined anew. */
  private async stay(generation: Generation): Promise<void> {
    const { signal } = generation.rejoin;
    let checkAt = Date.now() + TOPICS_CHECK_MS;
    for (;;) {
      await pause(this.settings.heartbeatIntervalMs, signal);
      if (this.closing.signal.aborted) return;
      try {
        await this.coordinator.heartbeat(generation);
        this.recovered('group');
        if (signal.aborted) return;
        if (Date.now() < checkAt && !this.fetcher.isTopicGone) continue;
        checkAt = Date.now() + TOPICS_CHECK_MS;
        this.fetcher.isTopicGone = false;
        if (await this.checkTopics()) return;
      } catch (error) {
        if (isOutOfGeneration(error)) return;
        if (kafkaNames(error).some((name) => FATAL.includes(name))) throw error;
        this.interrupted('group', error as Error);
        if (signal.aborted) await pause(RETRY_MS, this.closing.signal);
      }
    }
  }

  /** The commits that are made when `revoking` is told still count for the generation; later ones do not. */
  private async end(generation: Generation): Promise<void> {
    generation.over.abort();
    // A fetch that waits for records would hold up those of the next generation.
    cut(this.fetchPool);
    this.fetcher.wake();
    if (this.closing.signal.aborted) return;
    if (generation.isTold) this.listener.revoking();
    await immediate();
    await atMost(this.settings.sessionTimeoutMs / 2, this.committing);
    this.generation = undefined;
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
    const seen = this.topics.map((name) => [name, topics.get(name)?.id, topics.get(name)?.leaders.length]);
    const isChanged = JSON.stringify(seen) !== this.topicsSeen;
    this.topicsSeen = JSON.stringify(seen);
    const missing = named.filter((name) => !topics.has(name));
    if (isChanged && missing.length > 0)
      this.logger.warn({ msg: 'topics that do not exist', topics: missing });
    return isChanged;
  }

  private interrupted(what: 'group' | 'fetch', reason: Error): void {
    if (this.closing.signal.aborted) return;
    if (this.broken.size === 0) this.listener.interrupted(reason);
    this.broken.add(what);
  }

  private recovered(what: 'group' | 'fetch'): void {
    if (this.broken.delete(what) && this.broken.size === 0) this.listener.recovered();
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
    await atMost(CLOSE_MS, this.committing);
    this.generation = undefined;
    const left = this.coordinator.leave().catch((error: unknown) => {
      if (isOutOfGeneration(error)) return;
      this.logger.warn({ msg: 'leaving the group failed: it waits for the end of the session', err: error });
    });
    await atMost(CLOSE_MS, left);
    // Ends what the rest is waiting for.
    await this.cluster.close();
    await Promise.all([left, this.running, this.committing]);
  }
}
