import type { TopicPartition } from '../records/record.js';

/**
 * Why a partition is not fetched at the moment: too much is held (`buffer`), too much of one key (`key`), or nothing may begin
 * (`suspended`: the database takes no writes, or the application stops).
 */
export type PauseReason = 'buffer' | 'key' | 'suspended';

/** Messages of a topic that were fetched and are not done. */
export interface HeldFigures {
  /** Which topic. */
  topic: string;
  /** They are being handled. */
  inFlight: number;
  /** They wait for others of their key, for a place, or to be tried again. */
  buffered: number;
}

/** What a transport has at the moment. */
export interface TransportFigures {
  /** True for a member of the group that can reach the brokers. */
  isConnected: boolean;
  /** This member's partitions. */
  partitions: readonly (TopicPartition & { pausedFor: PauseReason | undefined })[];
  /** What it has of each topic. */
  held: readonly HeldFigures[];
  /** About what all messages take of memory that are not done. */
  heldBytes: number;
  /** Replies that the brokers have not acknowledged yet. */
  pendingReplies: number;
  /** Partitions of which the database does not know messages that the group has committed, as it was found at the start. */
  partitionsAhead: number;
}

/** How far behind the group is in a partition. */
export interface PartitionLag extends TopicPartition {
  /** From the first record that is not done to the end of the partition. */
  lag: number;
}

/** A transport, for whoever looks at how it is: a `KafkaTransport` is one. */
export interface WatchedTransport {
  /** undefined while messages are consumed and handled, else why not. */
  readonly unavailableReason: string | undefined;
  /** Messages that the group has committed and the database does not know, in a sentence; undefined where none were found. */
  readonly offsetsAhead: string | undefined;
  /** The partitions, and whole topics (partition -1), that are not read on while the others are. */
  readonly stuckPartitions: readonly (TopicPartition & { reason: Error })[];
  readonly figures: TransportFigures;
  /** @throws Error the brokers can't be reached */
  lag(): Promise<PartitionLag[]>;
}
