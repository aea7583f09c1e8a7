import type { Logger } from '@nestjs/common';
import { setImmediate as immediate } from 'node:timers/promises';
import {
  type CommitOffset,
  type CommittedRecords,
  CommitRefusedError,
  type ConsumerListener,
  type ConsumerSettings,
  type FetchPosition,
  type KafkaConsumer,
} from '../../kafka-driver.js';
import { partitionKey, type TopicPartition } from '../../records/record.js';
import { endsWithin, pause } from '../../waiting.js';
import { type Cluster, isPassing } from './cluster.js';
import { lastCommittedRecords } from './committed-records.js';
import { ConsumerReports } from './consumer-reports.js';
import { Fetcher } from './fetcher.js';
import { GroupCoordinator, isOutOfGeneration, type Membership } from './group-coordinator.js';
import { Positions } from './positions.js';
import { Subscription } from './subscription.js';

const RETRY_MS = 500;
/** After an error that lasts until somebody changes something. */
const AT_LEISURE_MS = 2_000;
/** How often it is looked whether topics have come, gone or grown. */
const TOPICS_CHECK_MS = 5_000;
const CLOSE_MS = 3_000;
const COMMIT_ATTEMPTS = 4;
/** A membership that lasts until the group assigns its partitions anew. */
interface Generation extends Membership {
  readonly keys: ReadonlySet<string>;
  /** No record is handed over any more. */
  readonly over: AbortController;
  /** The group has to be joined again before the next heartbeat is due. */
  readonly rejoin: AbortController;
}

/** A member of a classic consumer group: joins, stays, and has its partitions fetched. */
export class GroupConsumer implements KafkaConsumer {
  private readonly coordinator: GroupCoordinator;
  private readonly fetcher: Fetcher;
  private readonly positions: Positions;
  private readonly paused = new Set<string>();
  private readonly closing = new AbortController();
  private generation: Generation | undefined;
  private readonly subscription: Subscription;
  private readonly reports: ConsumerReports;
  /** Settles with the last commit. */
  private committing: Promise<void> = Promise.resolve();
  private running: Promise<void> = Promise.resolve();
  private closed: Promise<void> | undefined;

  /** @param raw the library's own object, for `KafkaContext.getConsumer()`; it joins no group */
  constructor(
    readonly raw: unknown,
    private readonly cluster: Cluster,
    private readonly settings: ConsumerSettings,
    private readonly listener: ConsumerListener,
    private readonly logger: Logger,
  ) {
    this.coordinator = new GroupCoordinator(cluster, settings);
    this.subscription = new Subscription(cluster, settings.topics, logger);
    this.reports = new ConsumerReports(listener, logger, this.closing.signal);
    const { madeAnew } = this.subscription;
    this.positions = new Positions(cluster, this.coordinator, settings, madeAnew, logger);
    this.fetcher = new Fetcher(cluster, this.positions, settings, this.paused, {
      records: (batch) => listener.records(batch),
      interrupted: (reason) => this.reports.interrupted('fetch', reason),
      recovered: () => this.reports.recovered('fetch'),
      stuck: (partitions) => this.standStill('partitions', partitions),
      topicGone: (topic) => this.subscription.suspect(topic),
    });
  }

  /** @throws Error the brokers can't be reached */
  async start(): Promise<void> {
    try {
      await this.checkTopics();
    } catch (error) {
      this.cluster.close();
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
    // One after another, so that a commit that is repeated does not undo a later one.
    const commit = this.committing.then(() => this.commitFor(generation, offsets));
    this.committing = commit.catch(() => undefined);
    return commit;
  }

  fetchPositions(): Promise<FetchPosition[]> {
    return this.positions.ends(this.fetcher.all);
  }

  lastCommitted(partitions: readonly TopicPartition[]): Promise<CommittedRecords[]> {
    return lastCommittedRecords(this.cluster, this.coordinator, partitions, this.settings.limits);
  }

  close(): Promise<void> {
    return (this.closed ??= this.leaveAndClose());
  }

  private async commitFor(generation: Generation, offsets: readonly CommitOffset[]): Promise<void> {
    const { gone, madeAnew } = this.subscription;
    for (let attempt = 1; ; attempt++) {
      if (this.generation !== generation)
        throw new CommitRefusedError(`The group ${this.settings.groupId} is sharing out its partitions.`);
      try {
        const current = offsets.filter(({ topic }) => !gone.has(topic));
        if (current.length > 0) await this.coordinator.commit(generation, current);
        for (const at of current) madeAnew.delete(partitionKey(at));
        return;
      } catch (error) {
        if (error instanceof CommitRefusedError) {
          generation.rejoin.abort();
          throw error;
        }
        const isOver = attempt === COMMIT_ATTEMPTS || generation.over.signal.aborted;
        if (isOver || !isPassing(error)) throw error;
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
        const { own, foreign } = this.subscription.divide(generation.partitions, this.settings.groupId);
        this.standStill('foreign', foreign);
        this.paused.clear();
        this.listener.assigned([...own]);
        const fetching = this.fetcher.run(own, generation.over.signal);
        try {
          await this.stay(generation);
        } finally {
          await this.end(generation);
          await fetching;
        }
      } catch (error) {
        if (signal.aborted) return;
        this.reports.interrupted('group', error as Error);
        await pause(isPassing(error) ? RETRY_MS : AT_LEISURE_MS, signal);
      }
    }
  }

  private async join(): Promise<Generation> {
    const membership = await this.coordinator.join(this.subscription.topics, this.closing.signal);
    this.subscription.gone.clear();
    const { partitions } = membership;
    this.reports.recovered('group');
    return (this.generation = {
      ...membership,
      keys: new Set(partitions.map(partitionKey)),
      over: new AbortController(),
      rejoin: new AbortController(),
    });
  }

  /** Sends heartbeats until the group has to be joined anew. */
  private async stay(generation: Generation): Promise<void> {
    const { signal } = generation.rejoin;
    let checkAt = performance.now() + TOPICS_CHECK_MS;
    for (;;) {
      await pause(this.settings.heartbeatIntervalMs, signal);
      if (this.closing.signal.aborted) return;
      try {
        await this.coordinator.heartbeat(generation);
        this.reports.recovered('group');
        if (signal.aborted) return;
        if (performance.now() < checkAt && !this.subscription.isSuspect) continue;
        checkAt = performance.now() + TOPICS_CHECK_MS;
        if (await this.checkTopics()) return;
      } catch (error) {
        if (isOutOfGeneration(error)) return;
        if (!isPassing(error)) throw error;
        this.reports.interrupted('group', error as Error);
        if (signal.aborted) await pause(RETRY_MS, this.closing.signal);
      }
    }
  }

  /** The commits that are made when `revoking` is told still count for the generation; later ones do not. */
  private async end(generation: Generation): Promise<void> {
    generation.over.abort();
    // A fetch that waits for records would hold up those of the next generation.
    this.cluster.connections.cut('fetch');
    if (this.closing.signal.aborted) return;
    this.listener.revoking();
    await immediate();
    await endsWithin(this.settings.sessionTimeoutMs / 2, this.committing);
    this.generation = undefined;
  }

  /** True when the topics are others than before, or have other partitions. */
  private async checkTopics(): Promise<boolean> {
    const { isChanged, missing } = await this.subscription.look();
    this.standStill('topics', missing);
    return isChanged;
  }

  private standStill(...what: Parameters<ConsumerReports['standStill']>): void {
    const reason = this.reports.standStill(...what);
    if (reason) this.fail(reason);
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
    await endsWithin(CLOSE_MS, this.committing);
    this.generation = undefined;
    const left = this.coordinator.leave().catch((error: unknown) => {
      if (isOutOfGeneration(error)) return;
      this.logger.warn({ msg: 'leaving the group failed: it waits for the end of the session', err: error });
    });
    await endsWithin(CLOSE_MS, left);
    // Ends what the rest is waiting for.
    this.cluster.close();
    await Promise.all([left, this.running, this.committing]);
  }
}
