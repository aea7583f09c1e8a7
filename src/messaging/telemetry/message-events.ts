// messaging/telemetry/: What becomes of messages and events, for whoever listens, and what waits at the moment.
// Promises: what nobody listens to costs nothing; a question to the database has a connection and a limit of its own.
// May know: a `Delivery`, the port and database/; neither how messages are handled nor who counts them.

import { channel } from 'node:diagnostics_channel';
import type { Delivery } from '../delivery.js';
import type { RefusalReason } from '../kafka-driver.js';
import type { TopicPartition } from '../records/record.js';

/**
 * What became of a message:
 *
 * - `applied`: it is handled, and its effect committed.
 * - `repeated`: it was handled before, and nothing was done; its sender has the answer of then.
 * - `rejected`: its sender was told an error; nothing was done.
 * - `dead`: it is a dead letter.
 * - `parked`: it waits in the database behind others of its key, and is told of again when it is handled.
 * - `retried`: this attempt has failed, and another follows.
 */
export type MessageOutcome = 'applied' | 'repeated' | 'rejected' | 'dead' | 'parked' | 'retried';

/** Messages have come from the broker. */
export interface MessagesFetched extends TopicPartition {
  /** How many, of one partition. */
  messages: number;
}

/** An attempt at a message has ended, or it needed none. */
export interface MessageHandled extends TopicPartition {
  /** Of its record. */
  offset: bigint;
  /** As in `MessageIdentity`. */
  messageId: string;
  /** What became of it. */
  outcome: MessageOutcome;
  /** Of the error: that of the reply or the dead letter; empty where there was none. */
  code: string;
  /** Since its handling has begun, or that of the batch it is of, in ms; undefined where it has not. */
  durationMs: number | undefined;
  /** Since the timestamp of its record, in ms; undefined where it has none. Of one that was applied: until its commit. */
  ageMs: number | undefined;
}

/** Events of the outbox are with the brokers. */
export interface OutboxRelayed {
  /** Where they were sent. */
  topic: string;
  /** How many. */
  events: number;
}

/** The brokers refuse an event of the outbox; it is tried again. */
export interface OutboxRefused {
  /** Where it was to be sent. */
  topic: string;
  /** Why it is refused. */
  reason: RefusalReason;
}

/** A broker has answered late, or not at all. */
export interface BrokerLate {
  /** `host:port` */
  broker: string;
  /** Kafka's name of what was asked. */
  request: string;
  /** Behind the time for which it was asked to wait, in ms. */
  lateMs: number;
}

/** The `diagnostics_channel`s of every KafkaTransport and relay in this process; they cost nothing while nobody listens. */
export const messageChannels = {
  /** `nestjs-people:message:fetched`: MessagesFetched */
  fetched: channel('nestjs-people:message:fetched'),
  /** `nestjs-people:message:handled`: MessageHandled */
  handled: channel('nestjs-people:message:handled'),
  /** `nestjs-people:outbox:relayed`: OutboxRelayed */
  relayed: channel('nestjs-people:outbox:relayed'),
  /** `nestjs-people:outbox:refused`: OutboxRefused */
  refused: channel('nestjs-people:outbox:refused'),
  /** `nestjs-people:broker:late`: BrokerLate */
  late: channel('nestjs-people:broker:late'),
} as const;

export function publishFetched({ topic, partition }: TopicPartition, messages: number): void {
  if (messages === 0 || !messageChannels.fetched.hasSubscribers) return;
  const fetched: MessagesFetched = { topic, partition, messages };
  messageChannels.fetched.publish(fetched);
}

/** @param codeOf of the error, where there is one */
export function publishHandled(
  { record, message, begunAt }: Delivery,
  outcome: MessageOutcome,
  codeOf?: () => string,
): void {
  if (!messageChannels.handled.hasSubscribers) return;
  const { topic, partition, offset, timestamp } = record;
  // Written out: to spread one object into another takes longer than all else that is done to tell of a message.
  const handled: MessageHandled = {
    topic,
    partition,
    offset,
    outcome,
    messageId: message.messageId,
    code: codeOf?.() ?? '',
    durationMs: begunAt === undefined ? undefined : performance.now() - begunAt,
    ageMs: ageOf(timestamp),
  };
  messageChannels.handled.publish(handled);
}

export function publishRelayed(rows: readonly { topic: string }[]): void {
  if (!messageChannels.relayed.hasSubscribers) return;
  const counts = new Map<string, number>();
  for (const { topic } of rows) counts.set(topic, (counts.get(topic) ?? 0) + 1);
  for (const [topic, events] of counts) {
    const relayed: OutboxRelayed = { topic, events };
    messageChannels.relayed.publish(relayed);
  }
}

export function publishRefused(topic: string, reason: RefusalReason): void {
  const refused: OutboxRefused = { topic, reason };
  messageChannels.refused.publish(refused);
}

export function publishLate(late: BrokerLate): void {
  messageChannels.late.publish(late);
}

/** The clock of whoever has written the record may be ahead of this one; a record without a timestamp has -1. */
function ageOf(timestamp: string): number | undefined {
  const at = Number(timestamp);
  return at > 0 ? Math.max(0, Date.now() - at) : undefined;
}
