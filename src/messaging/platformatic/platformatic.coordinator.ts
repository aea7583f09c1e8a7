import type { Broker, ConnectionPool } from '@platformatic/kafka';
import {
  ASSIGNORS,
  decodeAssignment,
  decodeSubscription,
  encodeAssignment,
  encodeSubscription,
  shareOut,
} from './group-protocol.js';
import {
  type CommitOffset,
  CommitRefusedError,
  type ConsumerSettings,
  partitionKey,
  partitionsByTopic,
  type TopicPartition,
} from '../kafka-driver.js';
import {
  type Answer,
  answerOf,
  type ApiName,
  type Cluster,
  kafkaNames,
  type Request,
  REQUEST_TIMEOUT_MS,
} from './platformatic.cluster.js';

/** The broker does not take this member for one of the current generation. */
const OUT_OF_GENERATION = [
  'REBALANCE_IN_PROGRESS',
  'ILLEGAL_GENERATION',
  'UNKNOWN_MEMBER_ID',
  'FENCED_INSTANCE_ID',
];
const TEMPORARY = [
  'COORDINATOR_NOT_AVAILABLE',
  'COORDINATOR_LOAD_IN_PROGRESS',
  'NOT_COORDINATOR',
  'REQUEST_TIMED_OUT',
];
const BY_GROUP = 0;

/** True when the member has to join the group anew. */
export const isOutOfGeneration = (error: unknown): boolean =>
  kafkaNames(error).some((name) => OUT_OF_GENERATION.includes(name));

/** What a member has been given when the partitions were shared out last. */
export interface Membership {
  readonly generationId: number;
  readonly memberId: string;
  readonly partitions: readonly TopicPartition[];
}

/** One member's requests to the broker that keeps its group, wherever that is. */
export class GroupCoordinator {
  private broker: Broker | undefined;
  private memberId = '';

  constructor(
    private readonly cluster: Cluster,
    private readonly settings: Pick<ConsumerSettings, 'groupId' | 'sessionTimeoutMs'>,
  ) {}

  /** Joins, and shares the partitions out when the group leaves that to this member. Rejects when `signal` says so. */
  async join(topics: readonly string[], signal: AbortSignal): Promise<Membership> {
    const { groupId, sessionTimeoutMs } = this.settings;
    const protocols = ASSIGNORS.map((name) => ({ name, metadata: encodeSubscription(topics) }));
    // Members join with their next heartbeat, whatever they are at: one that takes longer is gone.
    const rebalanceMs = sessionTimeoutMs;
    const options = { timeoutMs: rebalanceMs + REQUEST_TIMEOUT_MS };
    for (;;) {
      signal.throwIfAborted();
      try {
        const joined = await this.call(
          'JoinGroup',
          [groupId, sessionTimeoutMs, rebalanceMs, this.memberId, null, 'consumer', protocols],
          options,
        );
        const { generationId, protocolName } = joined;
        const memberId = (this.memberId = joined.memberId!);
        const shares = joined.leader === memberId ? await this.shares(joined.members) : [];
        const { assignment } = await this.call(
          'SyncGroup',
          [groupId, generationId, memberId, null, 'consumer', protocolName, shares],
          options,
        );
        signal.throwIfAborted();
        return { generationId, memberId, partitions: decodeAssignment(assignment) };
      } catch (error) {
        if (kafkaNames(error).includes('MEMBER_ID_REQUIRED'))
          this.memberId = answerOf<'JoinGroup'>(error).memberId ?? '';
        else if (!isOutOfGeneration(error)) throw error;
      }
    }
  }

  async heartbeat({ generationId, memberId }: Membership): Promise<void> {
    const { groupId, sessionTimeoutMs } = this.settings;
    // A connection that is dead without a word costs less than the session then.
    const timeoutMs = Math.max(1_000, sessionTimeoutMs / 3);
    await this.call('Heartbeat', [groupId, generationId, memberId, null], { timeoutMs });
  }

  /** @throws CommitRefusedError */
  async commit({ generationId, memberId }: Membership, offsets: readonly CommitOffset[]): Promise<void> {
    const { groupId } = this.settings;
    const topics = [...partitionsByTopic(offsets).keys()].map((name) => ({
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
    try {
      await this.call('OffsetCommit', [groupId, generationId, memberId, null, topics]);
    } catch (error) {
      if (!isOutOfGeneration(error)) throw error;
      const reason = kafkaNames(error).join();
      throw new CommitRefusedError(`The group ${groupId} refuses the commit: ${reason}.`, { cause: error });
    }
  }

  /** What the group has committed, by `partitionKey`; -1 for nothing. Waits for transactions that are committing some. */
  async committed(partitions: readonly TopicPartition[]): Promise<Map<string, bigint>> {
    const { groupId } = this.settings;
    const topics = [...partitionsByTopic(partitions)].map(([name, partitionIndexes]) => ({
      name,
      partitionIndexes,
    }));
    const { groups } = await this.call('OffsetFetch', [[{ groupId, memberEpoch: -1, topics }], true]);
    const offsets = new Map<string, bigint>();
    for (const { name: topic, partitions: own } of groups.flatMap((group) => group.topics))
      for (const { partitionIndex: partition, committedOffset } of own)
        offsets.set(partitionKey({ topic, partition }), committedOffset);
    return offsets;
  }

  async leave(): Promise<void> {
    const { memberId } = this;
    if (memberId === '') return;
    // The group's own connection may be waiting for the answer to a JoinGroup.
    await this.call('LeaveGroup', [this.settings.groupId, [{ memberId }]], { pool: this.cluster.newPool() });
  }

  /** True when the same request may be answered otherwise a little later. */
  static isTemporary(error: unknown): boolean {
    // No name: the broker was not reached.
    return kafkaNames(error).every((name) => TEMPORARY.includes(name));
  }

  private async call<N extends ApiName>(
    name: N,
    request: Request<N>,
    options?: { pool?: ConnectionPool; timeoutMs?: number },
  ): Promise<Answer<N>> {
    try {
      return await this.cluster.call(name, await this.find(), request, options);
    } catch (error) {
      if (kafkaNames(error).includes('UNKNOWN_MEMBER_ID')) this.memberId = '';
      // It may be another broker by now.
      if (!isOutOfGeneration(error)) this.broker = undefined;
      throw error;
    }
  }

  private async find(): Promise<Broker> {
    if (this.broker) return this.broker;
    const { coordinators } = await this.cluster.call('FindCoordinator', undefined, [
      BY_GROUP,
      [this.settings.groupId],
    ]);
    const { host, port } = coordinators[0]!;
    return (this.broker = { host, port });
  }

  private async shares(members: { memberId: string; metadata: Buffer | null }[]) {
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
}
