import { KafkaHeaders } from '@nestjs/microservices';
import type { MessageError } from '../errors/error-responses.js';
import type { Undeliverable } from './delivery.js';
import type { IncomingRecord, OutgoingRecord, RecordHeaders } from './kafka-driver.js';
import { plainText } from './plain-text.js';
import { noHeaders, RECORD_LIMITS } from './record-limits.js';
import type { UnreadPart } from './kafka-driver.js';
import { headersOf } from './record-reader.js';

/** Spring Kafka's default suffix, so that its tools find our dead letters. */
export const DEAD_LETTER_SUFFIX = '-dlt';

/** Headers count towards the size a broker accepts, and the original message may be near that already. */
const MESSAGE_CHARACTERS = 1000;

/**
 * The record for `<topic>-dlt`: the original bytes, key and headers, and beside them Spring Kafka's headers, which say
 * where the message was and what was wrong with it, and `people-attempts`. Of a record that was not decoded whole it has no
 * headers, and no key that is larger than a record may have one: who reads dead letters is not to meet them either.
 */
export function deadLetterRecord(
  { topic, partition, key, value, headers, offset, timestamp, unread }: IncomingRecord,
  error: Pick<MessageError, 'code' | 'message'>,
  attempts: number,
): OutgoingRecord {
  return {
    topic: `${topic}${DEAD_LETTER_SUFFIX}`,
    key: unread && (key?.length ?? 0) > RECORD_LIMITS.keyBytes ? null : key,
    value,
    headers: {
      ...headers,
      [KafkaHeaders.DLT_ORIGINAL_TOPIC]: topic,
      [KafkaHeaders.DLT_ORIGINAL_PARTITION]: String(partition),
      [KafkaHeaders.DLT_ORIGINAL_OFFSET]: String(offset),
      [KafkaHeaders.DLT_ORIGINAL_TIMESTAMP]: timestamp,
      [KafkaHeaders.DLT_EXCEPTION_FQCN]: plainText(error.code),
      [KafkaHeaders.DLT_EXCEPTION_MESSAGE]: plainText(error.message, MESSAGE_CHARACTERS),
      'people-attempts': String(attempts),
    },
  };
}

/** The columns of a row, and in the same order what `rowValues` gives for them. */
export const ROW_COLUMNS = `consumer, message_id, topic, partition, "offset", "timestamp", key, value, headers, code, message, attempts`;
export const ROW_PARAMETERS = `$1::text, $2::text, $3::text, $4::int, $5::bigint, $6::text, $7::bytea, $8::bytea, $9::json, $10::text, $11::text, $12::int`;

/** A message and what is wrong with it, for `message_dead_letter`. */
export function rowValues(
  { message, record, attempts }: Undeliverable,
  { code, message: text }: Pick<MessageError, 'code' | 'message'>,
): unknown[] {
  const { topic, partition, offset, timestamp, key, value } = record;
  return [
    ...[message.consumer, message.messageId, topic, partition, String(offset), timestamp, key, value],
    ...[JSON.stringify(packHeaders(record)), plainText(code), plainText(text, MESSAGE_CHARACTERS), attempts],
  ];
}

/** The same without what the message is made of: for a store that does not take it as it is. */
export const withPlaceOnly = (delivery: Undeliverable): Undeliverable => ({
  ...delivery,
  record: { ...delivery.record, key: null, value: null, headers: noHeaders() },
});

/** Headers as JSON can hold them: pairs, as a header may be called `__proto__`; or, not decoded, their bytes. */
type PackedHeaders =
  | [name: string, base64: string | string[] | null][]
  | { unread: UnreadPart['code']; reason: string; bytes: string | null };

/** Columns of a dead letter as they are read. */
export interface DeadLetterRow {
  message_id: string;
  topic: string;
  partition: number;
  offset: string;
  timestamp: string;
  key: Buffer | null;
  value: Buffer | null;
  headers: PackedHeaders;
  code: string;
  message: string;
  attempts: number;
}

/** The record that was put aside. */
export function recordOf(row: DeadLetterRow): IncomingRecord {
  const { topic, partition, offset, timestamp, key, value, headers: packed } = row;
  const record = { topic, partition, offset: BigInt(offset), timestamp, key, value };
  if (Array.isArray(packed)) return { ...record, headers: unpackHeaders(packed) };
  const { unread: code, reason, bytes } = packed;
  const headers = bytes === null ? undefined : Buffer.from(bytes, 'base64');
  return { ...record, headers: noHeaders(), unread: { code, reason, headers } };
}

/** The same to be sent again: with all its headers. */
export function wholeRecordOf(row: DeadLetterRow): IncomingRecord {
  const { unread, ...record } = recordOf(row);
  return unread?.headers ? { ...record, headers: headersOf(unread.headers) } : record;
}

function packHeaders({ headers, unread }: IncomingRecord): PackedHeaders {
  if (unread)
    return { unread: unread.code, reason: unread.reason, bytes: unread.headers?.toString('base64') ?? null };
  const pack = (value: Buffer | string) => Buffer.from(value).toString('base64');
  return Object.entries(headers).map(([name, value]) => [
    name,
    value === undefined || value === null ? null : Array.isArray(value) ? value.map(pack) : pack(value),
  ]);
}

function unpackHeaders(packed: Extract<PackedHeaders, unknown[]>): RecordHeaders {
  const unpack = (text: string) => Buffer.from(text, 'base64');
  const headers = noHeaders();
  for (const [name, value] of packed)
    headers[name] = value === null ? undefined : Array.isArray(value) ? value.map(unpack) : unpack(value);
  return headers;
}
