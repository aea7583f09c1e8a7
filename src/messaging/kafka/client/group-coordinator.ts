import { type BrokerAnswerError, brokerAnswer } from '../broker-answers.js';
import { brokerErrorName } from '../protocol/error-names.js';
import { type CommitOffset, CommitRefusedError, type ConsumerSettings } from '../../kafka-driver.js';
import { partitionKey, type TopicPartition } from '../../records/record.js';
import type { BrokerAddress, Purpose } from '../broker-connections.js';
import { answerError, answerIn, check, type Cluster, REQUEST_TIMEOUT_MS } from './cluster.js';
import {
  ASSIGNORS,
  decodeAssignment,
  decodeSubscription,
  encodeAssignment,
  encodeSubscription,
  assignRoundRobin,
} from '../protocol/group-assignment.js';
import {
  findCoordinator,
  heartbeat,
  joinGroup,
  leaveGroup,
  offsetCommit,
  offsetFetch,
  syncGroup,
} from '../protocol/group-requests.js';
import type { ApiRequest } from '../protocol/topic-requests.js';

/** The broker does not take this member for one of the current generation. */
const OUT_OF_GENERATION = [
  'REBALANCE_IN_PROGRESS',
  'ILLEGAL_GENERATION',
  'UNKNOWN_MEMBER_ID',
  'FENCED_INSTANCE_ID',
];

/** True when the member has to join the group anew. */
export const isOutOfGeneration = (error: unknown): boolean =>
  OUT_OF_GENERATION.includes(answerIn(error) ?? '');

/** What a member has been given when the partitions were assigned last. */
export interface Membership {
  readonly generationId: number;
  readonly memberId: string;
  readonly partitions: readonly TopicPartition[];
}

/** What the group has committed of a partition, or why that can't be told. */
export interface Committed {
  /** -1 for nothing. */
  offset: bigint;
  error: BrokerAnswerError | undefined;
}

/** One member's requests to the broker that keeps its group, wherever that is. */
export class GroupCoordinator {
  private broker: BrokerAddress | undefined;
  private memberId = '';

  constructor(
    private readonly cluster: Cluster,
    private readonly settings: Pick<ConsumerSettings, 'groupId' | 'sessionTimeoutMs'>,
  ) {}

  /** Joins, and assigns the partitions when the group leaves that to this member. Rejects when `signal` says so. */
  async join(topics: readonly string[], signal: AbortSignal): Promise<Membership> {
    const { groupId, sessionTimeoutMs: sessionMs } = this.settings;
    const protocols = ASSIGNORS.map((name) => ({ name, metadata: encodeSubscription(topics) }));
    // A member joins with its next heartbeat, even while it handles messages; one that takes longer is gone.
    const times = { sessionMs, rebalanceMs: sessionMs };
    const timeoutMs = sessionMs + REQUEST_TIMEOUT_MS;
    for (;;) {
      signal.throwIfAborted();
      try {
        const joined = await this.ask(joinGroup({ groupId, memberId: this.memberId }, times, protocols), {
          purpose: 'group',
          timeoutMs,
        });
        if (joined.memberId !== '') this.memberId = joined.memberId;
        if (brokerErrorName(joined.errorCode) === 'MEMBER_ID_REQUIRED') continue;
        this.checked('JoinGroup', joined.errorCode);
        const { generationId, memberId } = joined;
        const assignments = joined.leader === memberId ? await this.assignments(joined.members) : [];
        const member = { groupId, generationId, memberId };
        const synced = await this.ask(syncGroup(member, assignments), { purpose: 'group', timeoutMs });
        this.checked('SyncGroup', synced.errorCode);
        signal.throwIfAborted();
        return { generationId, memberId, partitions: decodeAssignment(synced.assignment) };
      } catch (error) {
        if (!isOutOfGeneration(error)) throw error;
      }
    }
  }

  async heartbeat(membership: Membership): Promise<void> {
    const { groupId, sessionTimeoutMs } = this.settings;
    // So a dead connection is noticed before the session ends.
    const timeoutMs = Math.max(1_000, sessionTimeoutMs / 3);
    const { errorCode } = await this.ask(heartbeat({ groupId, ...membership }), {
      purpose: 'group',
      timeoutMs,
    });
    this.checked('Heartbeat', errorCode);
  }

  /**
   * Commits those offsets that the broker takes.
   *
   * @throws CommitRefusedError
   * @throws BrokerAnswerError some were not taken, and why the first of them was not
   */
  async commit(membership: Membership, offsets: readonly CommitOffset[]): Promise<void> {
    const { groupId } = this.settings;
    const answers = await this.ask(offsetCommit({ groupId, ...membership }, offsets));
    try {
      for (const { topic, partition, errorCode } of answers)
        this.checked(`The commit of ${topic}, partition ${partition}`, errorCode);
    } catch (error) {
      if (!isOutOfGeneration(error)) throw error;
      throw new CommitRefusedError(`The group ${groupId} refuses the commit: ${answerIn(error)}.`, {
        cause: error,
      });
    }
  }

  /** What the group has committed, by `partitionKey`. */
  async committed(partitions: readonly TopicPartition[]): Promise<Map<string, Committed>> {
    const { offsets, errorCode } = await this.ask(offsetFetch(this.settings.groupId, partitions));
    this.checked('OffsetFetch', errorCode);
    return new Map(
      offsets.map(({ offset, errorCode: code, ...at }) => {
        const about = `The group's offset of ${at.topic}, partition ${at.partition}`;
        return [partitionKey(at), { offset, error: answerError(about, code) }];
      }),
    );
  }

  async leave(): Promise<void> {
    const { memberId } = this;
    if (memberId === '') return;
    // The group's own connection may be waiting for the answer to a JoinGroup.
    const { errorCode } = await this.ask(leaveGroup({ groupId: this.settings.groupId, memberId }), {
      purpose: 'leaving',
    });
    this.checked('LeaveGroup', errorCode);
  }

  private async ask<Answer>(
    request: ApiRequest<Answer>,
    options?: { purpose?: Purpose; timeoutMs?: number },
  ): Promise<Answer> {
    try {
      return await this.cluster.call(await this.find(), request, options);
    } catch (error) {
      // It may be another broker by now.
      this.broker = undefined;
      throw error;
    }
  }

  /** @throws BrokerAnswerError */
  private checked(about: string, errorCode: number): void {
    try {
      check(about, errorCode);
    } catch (error) {
      const answer = answerIn(error)!;
      if (answer === 'UNKNOWN_MEMBER_ID') this.memberId = '';
      if (!OUT_OF_GENERATION.includes(answer) && brokerAnswer(answer) === 'again') this.broker = undefined;
      throw error;
    }
  }

  private async find(): Promise<BrokerAddress> {
    if (this.broker) return this.broker;
    const { errorCode, host, port } = await this.cluster.callAny(findCoordinator(this.settings.groupId));
    check(`The coordinator of the group ${this.settings.groupId}`, errorCode);
    return (this.broker = { host, port });
  }

  private async assignments(members: readonly { memberId: string; metadata: Buffer }[]) {
    const subscriptions = new Map(
      members.map(({ memberId, metadata }) => [memberId, decodeSubscription(metadata)]),
    );
    const { topics } = await this.cluster.view([...subscriptions.values()].flat());
    const counts = new Map([...topics].map(([name, { leaders }]) => [name, leaders.length]));
    return [...assignRoundRobin(subscriptions, counts)].map(([memberId, partitions]) => ({
      memberId,
      assignment: encodeAssignment(partitions),
    }));
  }
}
