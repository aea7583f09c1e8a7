import { isUtf8 } from 'node:buffer';
import { tableIn } from '../../database/table-name.js';
import type { TransactionRunner } from '../../transactions/transaction-runner.js';
import { rawHeadersOf } from '../records/limits.js';
import { partitionKey, type RawHeaders, type TopicPartition } from '../records/record.js';
import type { DeadLetterCause } from './cause.js';
import { type DeadLetterRow, wholeRecordOf } from './letter.js';

/** What became of a message that could not be handled. */
export type DeadLetterState = 'dead' | 'parked' | 'replayed' | 'discarded';

/** A message that could not be handled, or waits behind one. */
export interface DeadLetter {
  /** Its number, by which `show`, `replay` and `discard` know it. */
  seq: string;
  /** `parked`: it waits behind a dead letter of its key, or for an earlier message that is tried again, or is one that was replayed. */
  state: DeadLetterState;
  /** The id of the message: `message-id`, or what it is named by in its place. */
  messageId: string;
  /** Where it came from. */
  topic: string;
  /** Of the record as it came. */
  partition: number;
  /** Of the record as it came. */
  offset: string;
  /** Of one with more than 1,000 bytes the first of them. */
  key: string | null;
  /** Of the error: `INVALID_INPUT`, `KEY_WAITS`, … */
  code: string;
  /** What the error said, 200 characters at most. */
  message: string;
  /** How often it was tried. */
  attempts: number;
  /** When it was put aside. */
  createdAt: Date;
}

/** A key whose messages wait: one of them is a dead letter, or is tried again. */
export interface WaitingKey {
  /** The group that handles its messages. */
  consumer: string;
  /** The topic they came from. */
  topic: string;
  /** Names the key: SHA-256 of it, or, of messages without one, the partition as four bytes; in hex. */
  hash: string;
  /** Of one with more than 1,000 bytes the first of them; null for messages without one. */
  key: string | null;
  /** Of messages without a key; else null. */
  partition: number | null;
  /** When it began to wait. */
  since: Date;
  /** From when on its messages are handled; null: once a dead letter of it is replayed or discarded, or it is released. */
  releasedAt: Date | null;
  /** The `seq` of the first of its messages. */
  first: string | null;
  /** How many of its first 1,000 messages are dead letters, and how many wait. */
  dead: number;
  /** See `dead`. */
  parked: number;
}

/** What is to be sent in place of a dead letter. */
export interface Correction {
  /** The bytes; null is a tombstone. */
  value: Buffer | null;
  /** Left out: as they came. */
  headers?: RawHeaders | undefined;
}

/** Bytes as text where they are UTF-8, else in base64. */
export interface ShownBytes {
  /** Where the bytes are UTF-8. */
  text?: string;
  /** Where they are not. */
  base64?: string;
}

/** A header as it came: names may repeat, a value may be null, and either may be any bytes. */
export interface ShownHeader {
  /** As text; `nameBase64` has the bytes where it is none. */
  name: string;
  /** Where the name is no UTF-8. */
  nameBase64?: string;
  /** null: the header has none. */
  value: ShownBytes | null;
}

/** A dead letter with all that is known of it. */
export interface DeadLetterDetails extends DeadLetter {
  /** When the record was written, by its own word. */
  timestamp: string;
  /** The group that could not handle it. */
  consumer: string;
  /** When it was replayed or discarded; null until then. */
  settledAt: Date | null;
  /** The whole key; null for a message without one. */
  keyBytes: ShownBytes | null;
  /** null: the record has none, or it is larger than is shown (`valueLength`). */
  value: ShownBytes | null;
  /** Bytes of the value; null: it has none. */
  valueLength: number | null;
  /** The first 1,000. */
  headers: ShownHeader[];
  /** False where there are more headers, or they are too large to be shown. */
  hasAllHeaders: boolean;
  /** What it failed with, the outermost error first. Empty for those that were stored by releases that did not keep it. */
  causes: DeadLetterCause[];
  /** Of the W3C header `traceparent`, where it has one. */
  traceId: string | null;
  /** It waits behind a dead letter of its key, or is that one. */
  isQuarantined: boolean;
}

/** The same as it is read. */
export type DetailsRow = Omit<DeadLetterDetails, 'keyBytes' | 'value' | 'headers' | 'causes' | 'traceId'> & {
  keyBytes: Buffer | null;
  value: Buffer | null;
  headers: DeadLetterRow['headers'];
  causes: DeadLetterCause[] | null;
};

const HEADERS_AT_MOST = 1000;
const TRACEPARENT = /^[\da-f]{2}-([\da-f]{32})-[\da-f]{16}-[\da-f]{2}/;

/** As people and programs read it. */
export function detailsOf({ keyBytes, value, headers, causes, ...letter }: DetailsRow): DeadLetterDetails {
  const row = { ...letter, message_id: letter.messageId, key: keyBytes, value, headers };
  const raw = rawHeadersOf(wholeRecordOf(row));
  const traceparent = raw.find(([name]) => name === 'traceparent')?.[1];
  return {
    ...letter,
    keyBytes: keyBytes && shownBytes(keyBytes),
    value: value && shownBytes(value),
    headers: raw.slice(0, HEADERS_AT_MOST).map(shownHeader),
    hasAllHeaders: letter.hasAllHeaders && raw.length <= HEADERS_AT_MOST,
    causes: causes ?? [],
    traceId: TRACEPARENT.exec(String(traceparent ?? ''))?.[1] ?? null,
  };
}

const shownBytes = (bytes: Buffer): ShownBytes =>
  isUtf8(bytes) ? { text: bytes.toString() } : { base64: bytes.toString('base64') };

function shownHeader([name, value]: RawHeaders[number]): ShownHeader {
  return {
    name: String(name),
    ...(typeof name !== 'string' && { nameBase64: name.toString('base64') }),
    value: value === null ? null : shownBytes(Buffer.from(value)),
  };
}

/** The bytes that are shown so. */
export const bytesOfShown = ({ text, base64 }: ShownBytes): Buffer =>
  base64 === undefined ? Buffer.from(text ?? '') : Buffer.from(base64, 'base64');

/** Headers as they are shown, as a record has them. */
export const headersOfShown = (headers: readonly ShownHeader[]): RawHeaders =>
  headers.map(
    ({ name, nameBase64, value }) =>
      [
        nameBase64 === undefined ? name : Buffer.from(nameBase64, 'base64'),
        value && bytesOfShown(value),
      ] as const,
  );

/** Where a record stands. */
export interface RecordPlace extends TopicPartition {
  offset: bigint | string;
}

/** Names a place. */
export const placeName = (at: RecordPlace): string => `${partitionKey(at)} ${at.offset}`;

/** Those of the places, by `placeName`, whose messages are dead letters or are parked, or were. */
export async function placesOfLetters(
  transactions: TransactionRunner,
  consumer: string,
  places: readonly RecordPlace[],
): Promise<Set<string>> {
  if (places.length === 0) return new Set();
  const letters = tableIn(transactions.dataSource, 'message_dead_letter');
  const text = `SELECT topic, partition, "offset"::text FROM ${letters}
     WHERE consumer = $1 AND (topic, partition, "offset") IN
       (SELECT topic, partition, "offset" FROM json_to_recordset($2) AS p(topic text, partition int, "offset" bigint))`;
  const rows = places.map(({ topic, partition, offset }) => ({ topic, partition, offset: String(offset) }));
  const found = await transactions.runStatement<TopicPartition & { offset: string }>(
    { text, values: [consumer, JSON.stringify(rows)] },
    { writes: false },
  );
  return new Set(found.rows.map(placeName));
}
