import type { Logger } from '@nestjs/common';
import {
  type ConsumerSettings,
  OffsetOutOfRangeError,
  partitionKey,
  partitionsByTopic,
  type TopicPartition,
} from '../kafka-driver.js';
import type { Cluster } from './platformatic.cluster.js';
import type { GroupCoordinator } from './platformatic.coordinator.js';
import type { Assigned } from './platformatic.fetcher.js';

/** Timestamps that ListOffsets takes for the first record, and for the next one to be written. */
const EARLIEST = -2n;
const LATEST = -1n;
const READ_UNCOMMITTED = 0;
const NO_EPOCH = -1;

/** Finds out where a group goes on in partitions. */
export class Positions {
  constructor(
    private readonly cluster: Cluster,
    private readonly coordinator: GroupCoordinator,
    private readonly settings: Pick<ConsumerSettings, 'groupId' | 'fromBeginning' | 'onOffsetOutOfRange'>,
    private readonly logger: Logger,
  ) {}

  /** Where the group goes on. @throws OffsetOutOfRangeError */
  async committed(partitions: readonly TopicPartition[]): Promise<Assigned[]> {
    if (partitions.length === 0) return [];
    const [committed, low, high] = await Promise.all([
      this.coordinator.committed(partitions),
      this.watermarks(partitions, EARLIEST),
      this.watermarks(partitions, LATEST),
    ]);
    return partitions.map((partition) => {
      const key = partitionKey(partition);
      const bounds = { low: low.get(key)!, high: high.get(key)! };
      const offset = committed.get(key) ?? -1n;
      if (offset < 0n) return { ...partition, next: this.settings.fromBeginning ? bounds.low : bounds.high };
      if (offset >= bounds.low && offset <= bounds.high) return { ...partition, next: offset };
      return { ...partition, next: this.outOfRange(partition, offset, bounds) };
    });
  }

  /** Where to go on in a partition that a broker has no record of at `next`. @throws OffsetOutOfRangeError */
  async instead(assigned: Assigned): Promise<bigint> {
    const key = partitionKey(assigned);
    const [low, high] = await Promise.all([
      this.watermarks([assigned], EARLIEST),
      this.watermarks([assigned], LATEST),
    ]);
    return this.outOfRange(assigned, assigned.next, { low: low.get(key)!, high: high.get(key)! });
  }

  private outOfRange(
    partition: TopicPartition,
    offset: bigint,
    { low, high }: { low: bigint; high: bigint },
  ): bigint {
    const { groupId, onOffsetOutOfRange: policy } = this.settings;
    const where = `the offset is ${offset}, the partition has ${low === high ? 'none' : `${low} to ${high - 1n}`}.`;
    if (policy === 'stop') throw new OffsetOutOfRangeError(partition, groupId, where);
    this.logger.warn({ msg: 'offset out of range', ...partition, groupId, where, goingOnWith: policy });
    return policy === 'earliest' ? low : high;
  }

  private async watermarks(
    partitions: readonly TopicPartition[],
    which: bigint,
  ): Promise<Map<string, bigint>> {
    const { brokers, topics } = await this.cluster.view(partitions.map(({ topic }) => topic));
    const byLeader = new Map<number, TopicPartition[]>();
    for (const at of partitions) {
      const leader = topics.get(at.topic)?.leaders[at.partition];
      if (leader === undefined)
        throw new Error(`${at.topic}, partition ${at.partition}, has no leader at the moment.`);
      byLeader.set(leader, [...(byLeader.get(leader) ?? []), at]);
    }
    const answers = await Promise.all(
      [...byLeader].map(([leader, own]) => {
        const wanted = [...partitionsByTopic(own)].map(([name, numbers]) => ({
          name,
          partitions: numbers.map((partitionIndex) => ({
            partitionIndex,
            currentLeaderEpoch: NO_EPOCH,
            timestamp: which,
          })),
        }));
        return this.cluster.call('ListOffsets', brokers.get(leader), [-1, READ_UNCOMMITTED, wanted]);
      }),
    );
    return new Map(
      answers
        .flatMap((answer) => answer.topics)
        .flatMap(({ name: topic, partitions: own }) =>
          own.map(
            ({ partitionIndex, offset }) =>
              [partitionKey({ topic, partition: partitionIndex }), offset] as const,
          ),
        ),
    );
  }
}
