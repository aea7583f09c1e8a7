import { KafkaHeaders } from '@nestjs/microservices';
import {
  bothHeaders,
  deadLetterRecord,
  type DeadLetterRow,
  isOwnHeader,
  recordOf,
  REFERENCE_HEADER,
  wholeRecordOf,
} from '../dead-letters/letter.js';
import { type TraceHeaders, traceHeadersOf } from '../../tracing/trace-context.js';
import { ownIdOf } from '../message-identity.js';
import type { OutgoingRecord, RawHeaders } from '../records/record.js';
import { rawHeadersOf } from '../records/limits.js';

const MESSAGE_ID = 'message-id';

/** A row of `message_outbox`, with its dead letter where it stands for one. */
export interface OutboxRow {
  seq: string;
  shard: number;
  id: string;
  aggregatetype: string;
  aggregateid: string;
  type: string;
  topic: string;
  payload: string | null;
  /** The trace that it was published in, as JSON; null also where the table has no column for it. */
  trace?: string | null;
  created_at: Date;
  attempts: number;
  dead_letter: string | null;
  dead: DeadLetterRow | null;
  dead_key: Buffer | null;
  dead_value: Buffer | null;
}

/** What a row is sent as: a CloudEvent (Kafka binding 1.0, binary mode), a dead letter, or a message sent again. */
export function outboxRecord(row: OutboxRow): OutgoingRecord {
  if (!row.dead) return eventRecord(row);
  const dead = { ...row.dead, key: row.dead_key, value: row.dead_value };
  const original = recordOf(dead);
  if (row.type === 'dead-letter') {
    const letter = deadLetterRecord(original, dead, dead.attempts);
    return original.unread
      ? { ...letter, ...bothHeaders([...rawHeadersOf(letter), reference(row)]) }
      : letter;
  }
  const whole = wholeRecordOf(dead);
  const { key, value } = whole;
  const id = ownIdOf(whole.headers) === undefined ? dead.message_id : undefined;
  // Nobody waits for a reply any more. And a `message-id` header that is there but empty must not hide the id that is added.
  const goes = new Set<Buffer | string>([KafkaHeaders.CORRELATION_ID, KafkaHeaders.REPLY_TOPIC]);
  if (id !== undefined) goes.add(MESSAGE_ID);
  const again: RawHeaders = rawHeadersOf(whole).filter(([name]) => !goes.has(name));
  return {
    topic: row.topic,
    key,
    value,
    ...bothHeaders(id === undefined ? again : [...again, [MESSAGE_ID, id]]),
  };
}

function eventRecord({
  id,
  aggregatetype,
  aggregateid,
  type,
  topic,
  payload,
  trace,
  created_at,
}: OutboxRow): OutgoingRecord {
  return {
    topic,
    key: aggregateid,
    value: payload,
    headers: {
      ...storedTrace(trace),
      ce_specversion: '1.0',
      ce_id: id,
      ce_source: `/${aggregatetype}`,
      ce_type: type,
      ce_time: created_at.toISOString(),
      'content-type': 'application/json',
      // As Debezium's outbox event router names it.
      id,
    },
  };
}

/** Whoever writes rows by themselves may have written anything there. */
function storedTrace(trace: string | null | undefined): TraceHeaders | undefined {
  const headers: unknown = trace == null ? undefined : JSON.parse(trace);
  const isObject = typeof headers === 'object' && headers !== null;
  return isObject ? traceHeadersOf(headers as Record<string, unknown>) : undefined;
}

/**
 * What is sent in place of a record that is too large for its topic (a claim check); undefined where there is none. A dead
 * letter goes without the bytes, and with the number of the row that has them; an event with where its aggregate is to be
 * read (`dataref` of CloudEvents).
 */
export function claimCheckOf(record: OutgoingRecord, row: OutboxRow): OutgoingRecord | undefined {
  if (row.type === 'replay') return undefined;
  if (!row.dead) return eventReference(record, row);
  const own = rawHeadersOf(record).filter(([name]) => isOwnHeader(name) && name !== REFERENCE_HEADER);
  return { ...record, value: null, ...bothHeaders([...own, reference(row)]) };
}

function eventReference(record: OutgoingRecord, { aggregatetype, aggregateid }: OutboxRow): OutgoingRecord {
  const dataref = `/${aggregatetype}/${encodeURIComponent(aggregateid)}`;
  // Not null, which would be a tombstone.
  const value = JSON.stringify({ id: aggregateid, dataref });
  return { ...record, value, headers: { ...record.headers, ce_dataref: dataref } };
}

const reference = ({ dead_letter }: OutboxRow) => [REFERENCE_HEADER, dead_letter ?? ''] as const;
