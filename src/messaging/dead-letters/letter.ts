import { KafkaHeaders } from '@nestjs/microservices';
import type { MessageError } from '../../errors/error-responses.js';
import type { Undeliverable } from '../delivery.js';
import type { IncomingRecord, OutgoingRecord, RawHeaders, UnreadPart } from '../records/record.js';
import { plainText } from '../../errors/plain-text.js';
import { headersByName, noHeaders, rawHeadersOf, RECORD_LIMITS } from '../records/limits.js';
import { headersOf, rawHeadersIn } from '../records/reader.js';

/** Spring Kafka's default suffix, so that its tools find our dead letters. */
export const DEAD_LETTER_SUFFIX = '-dlt';

/** Headers count towards the size a broker accepts, and the original message may be near that already. */
const MESSAGE_CHARACTERS = 1000;

/** The number of the row that has what a dead letter is too large for. */
export const REFERENCE_HEADER = 'people-dead-letter';

/** Headers that we give to dead letters; those of an earlier dead letter make way for them. */
const OWN_HEADERS: ReadonlySet<string> = new Set([
  KafkaHeaders.DLT_ORIGINAL_TOPIC,
  KafkaHeaders.DLT_ORIGINAL_PARTITION,
  KafkaHeaders.DLT_ORIGINAL_OFFSET,
  KafkaHeaders.DLT_ORIGINAL_TIMESTAMP,
  KafkaHeaders.DLT_EXCEPTION_FQCN,
  KafkaHeaders.DLT_EXCEPTION_MESSAGE,
  'people-attempts',
  REFERENCE_HEADER,
]);
/** True for a header that we give to dead letters. */
export const isOwnHeader = (name: Buffer | string): boolean =>
  typeof name === 'string' && OWN_HEADERS.has(name);

/**
 * The record for `<topic>-dlt`: the original bytes, key and headers as they came, and behind them Spring Kafka's headers, which
 * say where the message was and what was wrong with it, and `people-attempts`. Of a record that was not decoded whole it has no
 * headers, and no key that is larger than a record may have one: who reads dead letters is not to meet them either.
 */
export function deadLetterRecord(
  record: IncomingRecord,
  error: Pick<MessageError, 'code' | 'message'>,
  attempts: number,
): OutgoingRecord {
  const { topic, partition, key, value, offset, timestamp, unread } = record;
  const original = rawHeadersOf(record).filter(([name]) => !isOwnHeader(name));
  const own = Object.entries({
    [KafkaHeaders.DLT_ORIGINAL_TOPIC]: topic,
    [KafkaHeaders.DLT_ORIGINAL_PARTITION]: String(partition),
    [KafkaHeaders.DLT_ORIGINAL_OFFSET]: String(offset),
    [KafkaHeaders.DLT_ORIGINAL_TIMESTAMP]: timestamp,
    [KafkaHeaders.DLT_EXCEPTION_FQCN]: plainText(error.code),
    [KafkaHeaders.DLT_EXCEPTION_MESSAGE]: plainText(error.message, MESSAGE_CHARACTERS),
    'people-attempts': String(attempts),
  });
  return {
    topic: `${topic}${DEAD_LETTER_SUFFIX}`,
    key: unread && (key?.length ?? 0) > RECORD_LIMITS.keyBytes ? null : key,
    value,
    ...bothHeaders([...original, ...own]),
  };
}

/** Headers in both forms: a driver of a user's own may know only those by name. */
export const bothHeaders = (rawHeaders: RawHeaders): Pick<OutgoingRecord, 'headers' | 'rawHeaders'> => ({
  headers: headersByName(rawHeaders),
  rawHeaders,
});

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
  record: placeOnly(delivery.record),
});

/** A record's place, without what it is made of. */
export const placeOnly = (record: IncomingRecord): IncomingRecord => ({
  ...{ ...record, key: null, value: null },
  ...{ headers: noHeaders(), rawHeaders: [] },
});

/**
 * A header as JSON can hold it: several values that are next to one another under one name are an array. A name that is no text
 * has its bytes in the third place, so that versions that do not know them read the rest.
 */
type PackedHeader = [name: string, base64: string | string[] | null, nameBase64?: string];
/** Pairs, as a header may be called `__proto__`, and their order counts; or, not decoded, their bytes. */
type PackedHeaders = PackedHeader[] | { unread: UnreadPart['code']; reason: string; bytes: string | null };

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

/** The record that a row was made of. */
export function recordOf(row: DeadLetterRow): IncomingRecord {
  const { topic, partition, offset, timestamp, key, value, headers: packed } = row;
  const record = { topic, partition, offset: BigInt(offset), timestamp, key, value };
  if (Array.isArray(packed)) {
    const rawHeaders = unpackHeaders(packed);
    return { ...record, headers: headersByName(rawHeaders), rawHeaders };
  }
  const { unread: code, reason, bytes } = packed;
  const headers = bytes === null ? undefined : Buffer.from(bytes, 'base64');
  return { ...record, headers: noHeaders(), unread: { code, reason, headers } };
}

/** The same to be sent again: with all its headers. */
export function wholeRecordOf(row: DeadLetterRow): IncomingRecord {
  const { unread, ...record } = recordOf(row);
  if (!unread?.headers) return record;
  return { ...record, headers: headersOf(unread.headers), rawHeaders: rawHeadersIn(unread.headers) };
}

function packHeaders(record: IncomingRecord): PackedHeaders {
  const { unread } = record;
  if (unread)
    return { unread: unread.code, reason: unread.reason, bytes: unread.headers?.toString('base64') ?? null };
  return packedHeaders(rawHeadersOf(record));
}

/** As a row has them. */
export function packedHeaders(headers: RawHeaders): PackedHeader[] {
  const packed: PackedHeader[] = [];
  for (const [name, value] of headers) {
    const isText = typeof name === 'string';
    const base64 = value === null ? null : Buffer.from(value).toString('base64');
    const last = packed.at(-1);
    if (isText && last && last.length === 2 && last[0] === name && last[1] !== null && base64 !== null)
      last[1] = [last[1], base64].flat();
    else packed.push(isText ? [name, base64] : [String(name), base64, name.toString('base64')]);
  }
  return packed;
}

function unpackHeaders(packed: readonly PackedHeader[]): RawHeaders {
  const unpack = (base64: string) => Buffer.from(base64, 'base64');
  return packed.flatMap(([text, values, nameBase64]) => {
    const name = nameBase64 === undefined ? text : unpack(nameBase64);
    return [values].flat().map((value) => [name, value === null ? null : unpack(value)] as const);
  });
}
