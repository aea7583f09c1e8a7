import type { ConnectionOptions } from 'node:tls';
import type {
  IncomingRecord,
  OutgoingRecord,
  RecordBatch,
  RecordLimits,
  TopicPartition,
} from './records/record.js';
import type { RecordWindow, WindowReader, WindowSettings } from './records/window.js';

export type { RecordWindow, WindowReader, WindowSettings } from './records/window.js';
export type {
  IncomingRecord,
  OutgoingRecord,
  RawHeaders,
  RecordBatch,
  RecordHeaders,
  RecordLimits,
  TopicPartition,
  UnreadPart,
} from './records/record.js';
export {
  PartlySentError,
  RecordRefusedError,
  type RefusalOptions,
  type RefusalReason,
} from './records/record.js';

/** Where the brokers are and how to log in. */
export interface KafkaClientSettings {
  /** `host:port` each. */
  brokers: string[];
  /** How this client names itself to the brokers. */
  clientId?: string;
  /** True encrypts and checks certificates. */
  ssl?: boolean | ConnectionOptions;
  /** How to log in. */
  sasl?: { mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'; username: string; password: string };
}

/** How a topic is created that is missing; one that exists stays as it is. */
export interface TopicSettings {
  /** Of a topic that is made. */
  partitions: number;
  /** undefined = 3, or the number of brokers where they are fewer. */
  replication: number | undefined;
}

/** Where a group goes on; `offset` is the next to be read. */
export interface CommitOffset extends TopicPartition {
  /** The next to be read. */
  offset: bigint;
}

/** Records that a group has committed. */
export interface CommittedRecords extends TopicPartition {
  /** The next to be read. */
  committed: bigint;
  /** Some of those right before it, in their order. */
  records: readonly IncomingRecord[];
}

/** What is done when a group's committed offset is not in the partition any more (or not yet). */
export type OffsetOutOfRangePolicy = 'stop' | 'earliest' | 'latest';

/** How a member of a group reads. */
export interface ConsumerSettings {
  /** The consumer group. */
  groupId: string;
  /** Names, or what names have to match. */
  topics: (string | RegExp)[];
  /** How long the group waits for a member that gives no sign of life. */
  sessionTimeoutMs: number;
  /** How often a sign of life is given, in ms. */
  heartbeatIntervalMs: number;
  /** How long a fetch waits for records. */
  fetchWaitMs: number;
  /** Bytes that one fetch may bring. */
  fetchMaxBytes: number;
  /** Where a group begins that has committed nothing: true = with the first record there is. */
  fromBeginning: boolean;
  /** Where it goes on then. */
  onOffsetOutOfRange: OffsetOutOfRangePolicy;
  /** What a record may have that is decoded. Left out: `RECORD_LIMITS`. */
  limits?: RecordLimits;
}

/** A partition that is not read on, while others are. */
export interface StuckPartition extends TopicPartition {
  /** The record that is not read, where it is known which. */
  offset?: bigint;
  /** What has to change for it to go on. */
  reason: Error;
}

/** What a consumer tells. None of these may throw, and none is awaited. */
export interface ConsumerListener {
  /** The partitions that are this member's from now on, all of them. Comes before the first of their records. */
  assigned(partitions: TopicPartition[]): void;
  /** The group is about to assign its partitions anew: the last moment to commit what is done. */
  revoking(): void;
  /** Takes the records over; the consumer goes on fetching. Records of a partition come once per assignment, in order. */
  records(batch: RecordBatch): void;
  /** The broker can't be reached at the moment, or the like; the consumer goes on trying. */
  interrupted(reason: Error): void;
  /** What was interrupted goes on: told once a fetch, or a heartbeat, has succeeded. */
  recovered(): void;
  /**
   * All that is not read on of what this member is to read, each time that it changes: partitions that can't be decoded or
   * whose offset is out of range, and topics (partition -1) that do not exist or may not be read. They are tried again by
   * themselves. A listener without this is told `failed` where an offset is out of range.
   */
  stuck?(partitions: readonly StuckPartition[]): void;
  /** The consumer has ended and does not come back by itself. */
  failed(reason: Error): void;
}

/** How far a partition is fetched, and how far it goes. */
export interface FetchPosition extends TopicPartition {
  /** The offset that is fetched next. */
  next: bigint;
  /** The one behind the last record that the partition has. */
  end: bigint;
}

/** A member of a consumer group. It sends heartbeats by itself, whatever becomes of the records. */
export interface KafkaConsumer {
  /** The library's own object, for `KafkaContext.getConsumer()`. */
  readonly raw: unknown;
  /** Fetches nothing more of these partitions; what had been fetched already may still come. */
  pause(partitions: readonly TopicPartition[]): void;
  /** Fetches these again. */
  resume(partitions: readonly TopicPartition[]): void;
  /**
   * Commits for the current assignment.
   *
   * @throws CommitRefusedError the group is assigning its partitions anew, or this member is none of it any more
   * @throws Error the broker can't be reached
   */
  commit(offsets: readonly CommitOffset[]): Promise<void>;
  /**
   * Asks the brokers how far this member's partitions go, of those whose position is known. A consumer without this has no lag
   * in its metrics.
   *
   * @throws Error the brokers can't be reached
   */
  fetchPositions?(): Promise<readonly FetchPosition[]>;
  /**
   * The last few records that the group has committed of each of these partitions, as far as there are any. With a consumer without
   * this it is not looked whether the database knows them.
   *
   * @throws Error the brokers can't be reached
   */
  lastCommitted?(partitions: readonly TopicPartition[]): Promise<readonly CommittedRecords[]>;
  /** Stops fetching and leaves the group. Does not wait for records that were handed over. */
  close(): Promise<void>;
}

/** Sends records to the brokers. */
export interface KafkaProducer {
  /** The library's own object, for `KafkaContext.getProducer()`. */
  readonly raw: unknown;
  /**
   * Resolves when every record is acknowledged by all in-sync replicas. Records of one partition arrive in the order given.
   *
   * @throws RecordRefusedError the brokers do not take one of the records; others may have been sent
   * @throws PartlySentError the brokers can't be reached, and some records were acknowledged before
   * @throws Error the brokers can't be reached; records may have been sent
   */
  send(records: readonly OutgoingRecord[]): Promise<void>;
  /** Sends what was given and disconnects. */
  close(): Promise<void>;
}

/** A Kafka client library, as far as the transport and the relay need one. */
export interface KafkaDriver {
  /** The library's own client object, for `unwrap()`. */
  readonly raw: unknown;
  /** Creates those of `topics` that are missing. @throws Error the brokers can't be reached, or refuse */
  createMissingTopics(topics: readonly string[], settings: TopicSettings): Promise<void>;
  /** @throws Error the brokers can't be reached */
  consume(settings: ConsumerSettings, listener: ConsumerListener): Promise<KafkaConsumer>;
  /** @throws Error the brokers can't be reached */
  producer(): Promise<KafkaProducer>;
  /**
   * Finds a window of a topic, to be read without a group. A driver without this replays none.
   *
   * @throws Error there is no such topic, or the brokers can't be reached
   */
  readWindow?(window: RecordWindow, settings: WindowSettings): Promise<WindowReader>;
}

/** The group does not take the offsets: its partitions are being assigned anew, or are another member's by now. */
export class CommitRefusedError extends Error {
  /** Always `CommitRefusedError`. */
  override readonly name = 'CommitRefusedError';
}

/**
 * The offset that the group has committed is not in the partition: records were deleted before they were read (retention),
 * or the topic was made anew. Nothing was skipped; set the group's offset, or choose `onOffsetOutOfRange`.
 */
export class OffsetOutOfRangeError extends Error {
  /** Always `OffsetOutOfRangeError`. */
  override readonly name = 'OffsetOutOfRangeError';

  constructor({ topic, partition }: TopicPartition, groupId: string, where: string) {
    super(
      `The group ${groupId} can't go on in ${topic}, partition ${partition}: ${where} ` +
        'Choose onOffsetOutOfRange (KAFKA_ON_OFFSET_OUT_OF_RANGE): earliest or latest; or stop all members of the group, ' +
        'set its offset (kafka-consumer-groups --reset-offsets), and start them again.',
    );
  }
}
