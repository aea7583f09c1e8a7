/** A partition of a topic. */
export interface TopicPartition {
  /** Its topic. */
  topic: string;
  /** Its number in the topic, from 0 on. */
  partition: number;
}

/** Names a partition, for maps. */
export const partitionKey = ({ topic, partition }: TopicPartition): string => `${topic} ${partition}`;

/** The numbers of the partitions of each topic. */
export function partitionsByTopic(partitions: readonly TopicPartition[]): Map<string, number[]> {
  const topics = new Map<string, number[]>();
  for (const { topic, partition } of partitions) topics.set(topic, [...(topics.get(topic) ?? []), partition]);
  return topics;
}

/** Headers by name, for whoever looks for one; one that stands in a record more than once has an array of values. */
export type RecordHeaders = Record<string, Buffer | string | (Buffer | string)[] | undefined>;

/** Headers as a record has them (KIP-82): in their order, some more than once, values that are null, names of any bytes. */
export type RawHeaders = readonly (readonly [name: Buffer | string, value: Buffer | string | null])[];

/** Why a record was not decoded whole, and what was not. */
export interface UnreadPart {
  /** `RECORD_UNREADABLE`: in a form that this client does not know. */
  code: 'RECORD_TOO_LARGE' | 'RECORD_UNREADABLE';
  /** As a sentence without its end. */
  reason: string;
  /** The headers' bytes, beginning with their number; `headersOf` reads them. */
  headers?: Buffer | undefined;
}

/** What a record may have that is decoded; past it a record becomes a dead letter undecoded. */
export interface RecordLimits {
  /** Headers of one record. */
  headers: number;
  /** Their bytes, as they are sent. */
  headerBytes: number;
  /** Bytes of the key of one record. */
  keyBytes: number;
  /** Bytes of compressed batches of one fetch, once they are not compressed any more. */
  batchBytes: number;
}

/** One record as the broker gave it. */
export interface IncomingRecord extends TopicPartition {
  /** Its place in the partition. */
  offset: bigint;
  /** Ms since 1970. */
  timestamp: string;
  /** null: it has none. */
  key: Buffer | null;
  /** null is a tombstone. */
  value: Buffer | null;
  /** By name. */
  headers: RecordHeaders;
  /** The same as they came, for whoever sends them on. A driver that has none leaves it out. */
  rawHeaders?: RawHeaders;
  /** Set where the record is past a limit or can't be read: it becomes a dead letter as it is, and `headers` has none. */
  unread?: UnreadPart;
}

/** Records of one partition, in the order of their offsets. */
export interface RecordBatch extends TopicPartition {
  /** In the order of their offsets. */
  records: IncomingRecord[];
  /** The offset behind this batch: behind its last record, and behind control records and gaps that follow it. */
  nextOffset: bigint;
}

/** One record to be sent. */
export interface OutgoingRecord {
  /** Where it is sent. */
  topic: string;
  /** Left out: by the hash of the key (murmur2, as Java's client has it), or any where there is no key. */
  partition?: number;
  /** Records of one key have one partition, and so an order. */
  key?: Buffer | string | null;
  /** null is a tombstone. */
  value: Buffer | string | null;
  /** By name. */
  headers?: RecordHeaders;
  /** Sent in place of `headers`, where their order matters, or what they are made of. */
  rawHeaders?: RawHeaders;
}

/**
 * Why a record was refused:
 *
 * - `too-large`: it is larger than the broker or the topic takes.
 * - `no-topic`: there is no such topic, or it has no such name.
 * - `no-partition`: the topic has no partition of that number.
 * - `not-allowed`: this client may not write there.
 * - `invalid`: anything else that is wrong with it.
 */
export type RefusalReason = 'too-large' | 'no-topic' | 'no-partition' | 'not-allowed' | 'invalid';

/** The brokers do not take this record, however often it is sent, until somebody changes something; others they may take. */
export class RecordRefusedError extends Error {
  /** Always `RecordRefusedError`. */
  override readonly name = 'RecordRefusedError';
  /** Why. */
  readonly reason: RefusalReason;
  /** Those of the records given that are with the brokers all the same. */
  readonly acknowledged: readonly OutgoingRecord[];

  constructor(
    message: string,
    /** The record is larger than the broker or the topic takes. */
    readonly isTooLarge: boolean,
    { reason, acknowledged = [], ...options }: RefusalOptions = {},
  ) {
    super(message, options);
    this.reason = reason ?? (isTooLarge ? 'too-large' : 'invalid');
    this.acknowledged = acknowledged;
  }
}

/** What is known of a refusal beside its message. */
export interface RefusalOptions extends ErrorOptions {
  /** As of the error. */
  reason?: RefusalReason;
  /** As of the error. */
  acknowledged?: readonly OutgoingRecord[];
}

/** Some records could not be sent now; those of `acknowledged` are with the brokers, and need not be sent again. */
export class PartlySentError extends Error {
  /** Always `PartlySentError`. */
  override readonly name = 'PartlySentError';

  constructor(
    message: string,
    /** Those that are with the brokers. */
    readonly acknowledged: readonly OutgoingRecord[],
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
