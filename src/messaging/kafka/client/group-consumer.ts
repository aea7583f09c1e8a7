import type { Logger } from '@nestjs/common';
import { setImmediate as immediate } from 'node:timers/promises';
import { brokerAnswer } from '../broker-answers.js';
import {
  type CommitOffset,
  CommitRefusedError,
  type ConsumerListener,
  type ConsumerSettings,
  type KafkaConsumer,
  OffsetOutOfRangeError,
  type StuckPartition,
} from '../../kafka-driver.js';
import { partitionKey, type TopicPartition } from '../../records/record.js';
import { pause } from '../../waiting.js';
import { answerError, answerIn, type Cluster } from './cluster.js';
import { Fetcher } from './fetcher.js';
import { GroupCoordinator, isOutOfGeneration, type Membership } from './group-coordinator.js';
import { Positions } from './positions.js';
import type { TopicView } from '../protocol/topic-requests.js';
import { atMost } from './at-most.js';

const RETRY_MS = 500;
/** After an answer that takes somebody to change something. */
const AT_LEISURE_MS = 2_000;
/** How often it is looked whether topics have come, gone or grown. */
const TOPICS_CHECK_MS = 5_000;
const CLOSE_MS = 3_000;
const COMMIT_ATTEMPTS = 4;
const UNKNOWN_TOPIC_OR_PARTITION = 3;
/** Where a topic as a whole is not read. */
const ALL_PARTITIONS = -1;

/** Topics that are missing or may not be read, partitions that are not read on, and those that are none of this member's. */
type Standstill = 'topics' | 'partitions' | 'foreign';

/** A membership that lasts until the group shares out its partitions anew. */
interface Generation extends Membership {
  readonly keys: ReadonlySet<string>;
  /** No record is handed over any more. */
  readonly over: AbortController;
  /** The group has to be joined again before the next heartbeat is due. */
  readonly rejoin: AbortController;
  /** Topics that are gone since: what is committed for them would be of another topic, once one of this name is made. */
  readonly goneTopics: Set<string>;
}

/** A member of a classic consumer group: joins, stays, and has its partitions fetched. */
export class GroupConsumer implements KafkaConsumer {
  private readonly coordinator: GroupCoordinator;
  private readonly fetcher: Fetcher;
  private readonly paused = new Set<string>();
  private readonly closing = new AbortController();
  private topics: string[] = [];
  private topicsSeen = '';
  private areTopicsSuspect = false;
  private generation: Generation | undefined;
  /** The id that each topic had when it was seen last. */
  private readonly topicIds = new Map<string, string>();
  /** Partitions of topics that were made anew and of which nothing is committed yet: an offset that there is stems from before. */
  private readonly madeAnew = new Set<string>();
  /** What does not work at the moment: `interrupted` was told, and `recovered` is when nothing is left. */
  private readonly broken = new Set<'group' | 'fetch'>();
  private readonly stuck: Record<Standstill, StuckPartition[]> = { topics: [], partitions: [], foreign: [] };
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
    const positions = new Positions(cluster, this.coordinator, settings, this.madeAnew, logger);
    this.fetcher = new Fetcher(cluster, positions, settings, this.paused, {
      records: (batch) => listener.records(batch),
      interrupted: (reason) => this.interrupted('fetch', reason),
      recovered: () => this.recovered('fetch'),
      stuck: (partitions) => this.standStill('partitions', partitions),
      topicGone: (topic) => {
        this.areTopicsSuspect = true;
        this.generation?.goneTopics.add(topic);
      },
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
        const current = offsets.filter(({ topic }) => !generation.goneTopics.has(topic));
        if (current.length > 0) await this.coordinator.commit(generation, current);
        for (const at of current) this.madeAnew.delete(partitionKey(at));
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
        const own = generation.partitions.filter(({ topic }) => this.topics.includes(topic));
        this.tellForeign(generation.partitions.filter(({ topic }) => !this.topics.includes(topic)));
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
        this.interrupted('group', error as Error);
        await pause(isPassing(error) ? RETRY_MS : AT_LEISURE_MS, signal);
      }
    }
  }

  private async join(): Promise<Generation> {
    const membership = await this.coordinator.join(this.topics, this.closing.signal);
    const { partitions } = membership;
    this.recovered('group');
    return (this.generation = {
      ...membership,
      keys: new Set(partitions.map(partitionKey)),
      over: new AbortController(),
      rejoin: new AbortController(),
      goneTopics: new Set(),
    });
  }

  /** Another client that shares out may give each member of everything that it reads itself. */
  private tellForeign(partitions: readonly TopicPartition[]): void {
    const { groupId } = this.settings;
    const reason = (topic: string) =>
      new Error(
        `The group ${groupId} has given ${topic} to this member, which does not read it, as another application in the group ` +
          'shares out its own topics. Give each application a group of its own.',
      );
    this.standStill(
      'foreign',
      partitions.map(({ topic, partition }) => ({ topic, partition, reason: reason(topic) })),
    );
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
        this.recovered('group');
        if (signal.aborted) return;
        if (performance.now() < checkAt && !this.areTopicsSuspect) continue;
        checkAt = performance.now() + TOPICS_CHECK_MS;
        this.areTopicsSuspect = false;
        if (await this.checkTopics()) return;
      } catch (error) {
        if (isOutOfGeneration(error)) return;
        if (!isPassing(error)) throw error;
        this.interrupted('group', error as Error);
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
    await atMost(this.settings.sessionTimeoutMs / 2, this.committing);
    this.generation = undefined;
  }

  /** True when the topics are others than before, or have other partitions. */
  private async checkTopics(): Promise<boolean> {
    const named = this.settings.topics.filter((topic) => typeof topic === 'string');
    const patterns = this.settings.topics.filter((topic) => topic instanceof RegExp);
    const { topics, refused } = await this.cluster.view(patterns.length > 0 ? null : named);
    const matching = [...topics].filter(
      ([name, { isInternal }]) => !isInternal && patterns.some((pattern) => name.search(pattern) !== -1),
    );
    this.topics = [...new Set([...named, ...matching.map(([name]) => name)])].sort();
    const seen = this.topics.map((name) => [name, topics.get(name)?.id, topics.get(name)?.leaders.length]);
    const isChanged = JSON.stringify(seen) !== this.topicsSeen;
    this.topicsSeen = JSON.stringify(seen);
    for (const name of this.topics) this.see(name, topics.get(name));
    const missing = named.filter((name) => !topics.has(name));
    this.standStill(
      'topics',
      missing.map((topic) => ({
        ...{ topic, partition: ALL_PARTITIONS },
        reason: answerError(`The topic ${topic}`, refused.get(topic) ?? UNKNOWN_TOPIC_OR_PARTITION)!,
      })),
    );
    return isChanged;
  }

  private see(topic: string, view: TopicView | undefined): void {
    const before = this.topicIds.get(topic);
    const gone = this.generation?.goneTopics;
    if (view && view.id === before) gone?.delete(topic);
    else if (before !== undefined) gone?.add(topic);
    if (view?.id === undefined) return;
    const { id, leaders } = view;
    this.topicIds.set(topic, id);
    if (before === undefined || before === id) return;
    this.logger.warn({ msg: 'a topic was made anew; it is read from its first record on', topic });
    for (const partition of leaders.keys()) this.madeAnew.add(partitionKey({ topic, partition }));
  }

  private standStill(what: Standstill, stuck: StuckPartition[]): void {
    if (this.closed) return;
    const before = this.stuck[what];
    if (before.length === 0 && stuck.length === 0) return;
    this.stuck[what] = stuck;
    const wasTold = new Set(before.map(({ reason }) => reason.message));
    for (const { reason, offset, topic, partition } of stuck)
      if (!wasTold.has(reason.message))
        this.logger.error({
          msg: 'a topic or partition is not read on; the others are, and it is tried again',
          ...{ topic, partition, ...(offset !== undefined && { offset: String(offset) }) },
          err: reason,
        });
    if (this.listener.stuck) return this.listener.stuck(Object.values(this.stuck).flat());
    const lost = stuck.find(({ reason }) => reason instanceof OffsetOutOfRangeError);
    if (lost) this.fail(lost.reason);
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
    await atMost(CLOSE_MS, this.committing);
    this.generation = undefined;
    const left = this.coordinator.leave().catch((error: unknown) => {
      if (isOutOfGeneration(error)) return;
      this.logger.warn({ msg: 'leaving the group failed: it waits for the end of the session', err: error });
    });
    await atMost(CLOSE_MS, left);
    // Ends what the rest is waiting for.
    this.cluster.close();
    await Promise.all([left, this.running, this.committing]);
  }
}

/** True when the same request may be answered otherwise a little later, as when there was no answer. */
function isPassing(error: unknown): boolean {
  const answer = answerIn(error);
  return answer === undefined || brokerAnswer(answer) === 'again';
}
