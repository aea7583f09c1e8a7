import { KafkaHeaders, type MessageHandler } from '@nestjs/microservices';
import type { IncomingRecord } from './kafka-driver.js';
import { headerText, type MessageIdentity } from './message-identity.js';
import type { QuarantinedKey } from './quarantined-key.js';

/** Where a sender waits for its reply. */
export interface ReplyAddress {
  topic: string;
  partition: number | undefined;
  correlationId: string;
}

/** One message on its way through the transport, from its fetch to the move of its offset. */
export interface Delivery {
  readonly record: IncomingRecord;
  /** Messages of one lane are handled one after another. */
  readonly laneKey: string;
  readonly message: MessageIdentity;
  /** undefined: nobody takes this pattern. */
  readonly handler: MessageHandler | undefined;
  readonly isBatchable: boolean;
  readonly replyTo: ReplyAddress | undefined;
  readonly bytes: number;
  /** The number of its row, where it is parked; its offset is committed or another's task. */
  parkedAs?: string;
  /** The line of parked messages that goes on once this one has ended. */
  line?: ParkedLine;
  /** Set once it is handled, its dead letter is safe, or it is parked instead of being handled. */
  ended?: 'handled' | 'dead' | 'parked';
  /** The same message, as it is being handled since before partitions were shared out anew; it ends before this one begins. */
  begunBefore?: Delivery;
  /** How often it was handled and failed by no fault of the infrastructure. */
  attempts: number;
  /** The assignment of partitions it belongs to. */
  assignment: number;
}

/** What a dead letter is made of. */
export type Undeliverable = Pick<Delivery, 'message' | 'record' | 'attempts' | 'parkedAs'>;

/** A line of parked messages that goes on here. */
export interface ParkedLine {
  key: QuarantinedKey;
  /** Messages of it that are being handled: the next are read when these have ended. */
  open: Set<Delivery>;
  /** The numbers of those that are handled, and not marked so yet. */
  handled: string[];
  /** True once a message of it is a dead letter that the rest waits for. */
  isStopped: boolean;
  /** How many messages are read at once. */
  atOnce: number;
  /** When those that are open were read, on the clock of `performance`. */
  readAt: number;
}

/** Where the sender waits for a reply, if it does. */
export function replyAddressOf({ headers }: IncomingRecord): ReplyAddress | undefined {
  const correlationId = headerText(headers, KafkaHeaders.CORRELATION_ID);
  const topic = headerText(headers, KafkaHeaders.REPLY_TOPIC);
  const partition = headerText(headers, KafkaHeaders.REPLY_PARTITION);
  if (!correlationId || !topic) return undefined;
  return { topic, correlationId, partition: partition === undefined ? undefined : parseFloat(partition) };
}

/** By key; messages without one by partition, as Kafka gives them no other order. */
export const laneKeyOf = ({ topic, partition, key }: IncomingRecord): string =>
  key === null ? `${topic} ${partition}` : `${topic} = ${key.toString('latin1')}`;

/** Names the record's place, and which topic of that name it was. */
export const placeOf = ({ topic, partition, offset, timestamp }: IncomingRecord): string =>
  `${topic} ${partition} ${offset} ${timestamp}`;

const RECORD_OVERHEAD = 200;

/** About what the record keeps in memory. */
export function sizeOf({ key, value, headers }: IncomingRecord): number {
  const inHeaders = Object.values(headers).reduce((sum, header) => sum + (header?.length ?? 0), 0);
  return RECORD_OVERHEAD + (key?.length ?? 0) + (value?.length ?? 0) + inHeaders;
}
