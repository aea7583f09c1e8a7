import { KafkaHeaders } from '@nestjs/microservices';
import type { MessageError } from '../errors/error-responses.js';
import type { Undeliverable } from './delivery.js';
import type { IncomingRecord, OutgoingRecord, RecordHeaders } from './kafka-driver.js';

/** Spring Kafka's default suffix, so that its tools find our dead letters. */
export const DEAD_LETTER_SUFFIX = '-dlt';

/** Headers count towards the size a broker accepts, and the original message may be near that already. */
const HEADER_CHARACTERS = 1000;

/**
 * The record for `<topic>-dlt`: the original bytes, key and headers, and beside them Spring Kafka's headers, which say
 * where the message was and what was wrong with it, and `people-attempts`.
 */
export function deadLetterRecord(
  { topic, partition, key, value, headers, offset, timestamp }: IncomingRecord,
  error: Pick<MessageError, 'code' | 'message'>,
  attempts: number,
): OutgoingRecord {
  const cut = (text: string) =>
    text.length > HEADER_CHARACTERS ? `${text.slice(0, HEADER_CHARACTERS - 1)}…` : text;
  return {
    topic: `${topic}${DEAD_LETTER_SUFFIX}`,
    key,
    value,
    headers: {
      ...headers,
      [KafkaHeaders.DLT_ORIGINAL_TOPIC]: topic,
      [KafkaHeaders.DLT_ORIGINAL_PARTITION]: String(partition),
      [KafkaHeaders.DLT_ORIGINAL_OFFSET]: String(offset),
      [KafkaHeaders.DLT_ORIGINAL_TIMESTAMP]: timestamp,
      [KafkaHeaders.DLT_EXCEPTION_FQCN]: error.code,
      [KafkaHeaders.DLT_EXCEPTION_MESSAGE]: cut(error.message),
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
  const { topic, partition, offset, timestamp, key, value, headers } = record;
  return [
    ...[message.consumer, message.messageId, topic, partition, String(offset), timestamp, key, value],
    ...[JSON.stringify(packHeaders(headers)), code, text.replaceAll('\0', '�'), attempts],
  ];
}

/** Columns of a dead letter as they are read. */
export interface DeadLetterRow {
  message_id: string;
  topic: string;
  partition: number;
  offset: string;
  timestamp: string;
  key: Buffer | null;
  value: Buffer | null;
  headers: [name: string, base64: string | string[] | null][];
  code: string;
  message: string;
  attempts: number;
}

/** The record that was put aside. */
export function recordOf(row: DeadLetterRow): IncomingRecord {
  const { topic, partition, offset, timestamp, key, value } = row;
  const headers = unpackHeaders(row.headers);
  return { topic, partition, offset: BigInt(offset), timestamp, key, value, headers };
}

/** Bytes as JSON can hold them. An array of pairs, as a header may be called `__proto__`. */
function packHeaders(headers: RecordHeaders): DeadLetterRow['headers'] {
  const pack = (value: Buffer | string) => Buffer.from(value).toString('base64');
  return Object.entries(headers).map(([name, value]) => [
    name,
    value === undefined || value === null ? null : Array.isArray(value) ? value.map(pack) : pack(value),
  ]);
}

function unpackHeaders(packed: DeadLetterRow['headers']): RecordHeaders {
  const unpack = (text: string) => Buffer.from(text, 'base64');
  return Object.fromEntries(
    packed.map(([name, value]) => [
      name,
      value === null ? undefined : Array.isArray(value) ? value.map(unpack) : unpack(value),
    ]),
  );
}
