import type { MessageHandler } from '@nestjs/microservices';
import type { IncomingRecord } from './records/record.js';
import type { ApplicationError } from '../errors/application-error.js';
import type { BatchHandler } from './consuming/batch-handlers.js';
import type { MessageIdentity } from './message-identity.js';
import type { TraceHeaders } from '../tracing/trace-context.js';
import type { QuarantinedKey } from './dead-letters/quarantined-key.js';

/** Where a sender waits for its reply. */
export interface ReplyAddress {
  topic: string;
  /** NaN where the sender gave what is no number of a partition. */
  partition: number | undefined;
  /** The very bytes that came: some clients send a UUID's 16, which need not be text. */
  correlationId: string | Buffer;
}

/** One message on its way through the transport, from its fetch to the move of its offset. */
export interface Delivery {
  readonly record: IncomingRecord;
  /** `placeOf` the record, once it was asked for. */
  place?: string;
  /** Messages of one lane are handled one after another. */
  readonly laneKey: string;
  readonly message: MessageIdentity;
  /** undefined: nobody takes this pattern. */
  readonly handler: MessageHandler | undefined;
  readonly isBatchable: boolean;
  /** Takes it together with others, in place of `handler`. */
  readonly batchHandler?: BatchHandler | undefined;
  readonly replyTo: ReplyAddress | undefined;
  /** Why it is not to be handled, known before anybody looks at its value. With `replyTo` its sender is told as well. */
  readonly refusal?: ApplicationError | undefined;
  readonly bytes: number;
  /** The number of its row, where it is parked; its offset is committed or another's task. */
  parkedAs?: string;
  /** The backlog that it is of, where that goes on here: the next messages are read once this one has ended. */
  backlog?: Backlog;
  /** What became of it in the end: it is handled, its dead letter is safe, or it is parked instead of being handled. */
  outcome?: 'handled' | 'dead' | 'parked';
  /** Its sender is told of a failure. */
  isRejected?: boolean;
  /** It was handled before, and nothing was done. */
  isRepeated?: boolean;
  /** The same message, as it is being handled since before partitions were assigned anew; it ends before this one begins. */
  begunBefore?: Delivery;
  /** How often it was handled and failed by no fault of the infrastructure. */
  attempts: number;
  /** When its handling has begun, the last time, on the clock of `performance`; undefined before the first. */
  begunAt?: number;
  /** What its reply is to carry: the trace that it came with, or as its handling has it. */
  trace?: TraceHeaders | undefined;
  /** The assignment of partitions it belongs to. */
  assignment: number;
}

/** What a dead letter is made of. */
export type Undeliverable = Pick<Delivery, 'message' | 'record' | 'attempts' | 'parkedAs'>;

/** The parked messages of one key, as they are handled here. */
export interface Backlog {
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

/** By key; messages without one by partition, as Kafka gives them no other order. */
export const laneKeyOf = ({ topic, partition, key }: IncomingRecord): string =>
  key === null ? `${topic} ${partition}` : `${topic} = ${key.toString('latin1')}`;

/** Names the record's place, and which topic of that name it was. */
export const placeOf = ({ topic, partition, offset, timestamp }: IncomingRecord): string =>
  `${topic} ${partition} ${offset} ${timestamp}`;

/** The same for a log entry. */
export const loggedPlace = ({ topic, partition, offset }: IncomingRecord) => ({
  topic,
  partition,
  offset: String(offset),
});

const RECORD_OVERHEAD = 200;
const HEADER_OVERHEAD = 100;

/** About what the record keeps in memory. */
export function sizeOf({ key, value, headers, unread }: IncomingRecord): number {
  let inHeaders = unread?.headers?.length ?? 0;
  for (const values of Object.values(headers))
    for (const header of [values].flat()) inHeaders += HEADER_OVERHEAD + (header?.length ?? 0);
  return RECORD_OVERHEAD + (key?.length ?? 0) + (value?.length ?? 0) + inHeaders;
}

/** About what the messages keep in memory. */
export const bytesOf = (messages: readonly Delivery[]) => messages.reduce((sum, { bytes }) => sum + bytes, 0);
