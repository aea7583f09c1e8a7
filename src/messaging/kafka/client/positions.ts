import type { Logger } from '@nestjs/common';
import { type ConsumerSettings, type FetchPosition, OffsetOutOfRangeError } from '../../kafka-driver.js';
import { partitionKey, partitionsByTopic, type TopicPartition } from '../../records/record.js';
import { answerError, type Cluster } from './cluster.js';
import type { GroupCoordinator } from './group-coordinator.js';
import { byLeader, type ClusterView, listOffsets } from '../protocol/topic-requests.js';

/** Timestamps that ListOffsets takes for the first record, and for the next one to be written. */
const EARLIEST = -2n;
export const LATEST = -1n;

/** A partition whose position is looked for. */
export interface Sought extends TopicPartition {
  /** The record to be read next, where some were read. */
  next?: bigint | undefined;
  /** The group's offset when it was found to be out of range: if it changes, an operator has set it. */
  lostAt?: bigint | undefined;
  /** Behind records that can't be read, from `next` on. */
  unreadableTo?: bigint | undefined;
}

/** Where to go on in a partition, or why that can't be told. */
export type Position = bigint | Error;

/** The offset that is not there any more, with what the group has committed at that time. */
export interface LostPosition extends OffsetOutOfRangeError {
  committed?: bigint;
}

/** Finds out where a group goes on in partitions, each for itself. */
export class Positions {
  constructor(
    private readonly cluster: Cluster,
    private readonly coordinator: GroupCoordinator,
    private readonly settings: Pick<ConsumerSettings, 'groupId' | 'fromBeginning' | 'onOffsetOutOfRange'>,
    /** Partitions of topics that were made anew, whose committed offset is of the topic before; by `partitionKey`. */
    private readonly madeAnew: ReadonlySet<string>,
    private readonly logger: Logger,
  ) {}

  /**
   * Where the group goes on, by `partitionKey`.
   *
   * @throws Error the group's offsets can't be asked for
   */
  async find(partitions: readonly Sought[], view: ClusterView): Promise<Map<string, Position>> {
    const [committed, bounds] = await Promise.all([
      this.coordinator.committed(partitions),
      this.bounds(partitions, view),
    ]);
    return new Map(
      partitions.map((at) => {
        const key = partitionKey(at);
        const { offset = -1n, error } = committed.get(key) ?? {};
        const found = bounds.get(key)!;
        return [key, error ?? (found instanceof Error ? found : this.within(at, offset, found))];
      }),
    );
  }

  /**
   * How far partitions go, of those that have a position and can be asked for.
   *
   * @throws Error the brokers can't be reached
   */
  async ends(partitions: readonly Sought[]): Promise<FetchPosition[]> {
    const placed = partitions.filter(({ next }) => next !== undefined);
    if (placed.length === 0) return [];
    const view = await this.cluster.view(placed.map(({ topic }) => topic));
    const found = await listedOffsets(this.cluster, placed, view, LATEST);
    const failed = [...found.values()].find((end) => end instanceof Error);
    const ends = placed.flatMap(({ topic, partition, next }) => {
      const end = found.get(partitionKey({ topic, partition }));
      return typeof end === 'bigint' ? [{ topic, partition, next: next!, end }] : [];
    });
    if (ends.length === 0 && failed) throw failed;
    return ends;
  }

  private within(at: Sought, committed: bigint, { low, high }: Bounds): Position {
    const { groupId, onOffsetOutOfRange: policy, fromBeginning } = this.settings;
    const { topic, partition, next, lostAt, unreadableTo = -1n } = at;
    const isSetAnew = lostAt !== undefined && committed !== lostAt;
    const offset = isSetAnew ? committed : (next ?? committed);
    if (next === undefined && this.madeAnew.has(partitionKey(at))) return low;
    if (offset < 0n) return fromBeginning ? low : high;
    if (offset >= low && offset <= high) return offset;
    // Only records that could not be read were deleted.
    if (offset === next && offset < low && low <= unreadableTo) return low;
    const where = `its offset ${offset} is not among those from ${low} to ${high}.`;
    if (policy === 'stop') return Object.assign(new OffsetOutOfRangeError(at, groupId, where), { committed });
    this.logger.warn({ msg: 'offset out of range', topic, partition, groupId, where, goingOnWith: policy });
    return policy === 'earliest' ? low : high;
  }

  private async bounds(
    partitions: readonly TopicPartition[],
    view: ClusterView,
  ): Promise<Map<string, Bounds | Error>> {
    const [low, high] = await Promise.all([
      listedOffsets(this.cluster, partitions, view, EARLIEST),
      listedOffsets(this.cluster, partitions, view, LATEST),
    ]);
    return new Map(
      partitions.map((at) => {
        const key = partitionKey(at);
        const [first, next] = [low.get(key), high.get(key)];
        if (first === undefined || next === undefined) return [key, withoutLeader(at)];
        if (first instanceof Error) return [key, first];
        return [key, next instanceof Error ? next : { low: first, high: next }];
      }),
    );
  }
}

interface Bounds {
  low: bigint;
  high: bigint;
}

export const withoutLeader = ({ topic, partition }: TopicPartition) =>
  new Error(`${topic}, partition ${partition}, has no leader at the moment.`);

/**
 * What ListOffsets says of partitions, by `partitionKey`, or why it can't be told; none of one that has no leader at the moment.
 *
 * @param timestamp the offset is that of the first record that is not before it, -1 where there is none
 */
export async function listedOffsets(
  cluster: Cluster,
  partitions: readonly TopicPartition[],
  view: ClusterView,
  timestamp: bigint,
): Promise<Map<string, bigint | Error>> {
  const found = new Map<string, bigint | Error>();
  await Promise.all(
    [...byLeader(partitions, view)].map(async ([leader, own]) => {
      try {
        const request = listOffsets(partitionsByTopic(own), timestamp);
        for (const { topic, partition, errorCode, offset } of await cluster.call(view.brokers.get(leader)!, request)) // prettier-ignore
          found.set(partitionKey({ topic, partition }), answerError(`${topic}, partition ${partition}`, errorCode) ?? offset); // prettier-ignore
      } catch (error) {
        for (const at of own) found.set(partitionKey(at), error as Error);
      }
    }),
  );
  return found;
}
