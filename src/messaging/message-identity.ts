import { createHash } from 'node:crypto';
import type { IncomingRecord, RecordHeaders } from './kafka-driver.js';

/** What tells one message from another, and the same message when it is delivered again. */
export interface MessageIdentity {
  /** Who handles it: messages are handled once by each consumer. */
  consumer: string;
  messageId: string;
  /** Of what was sent: the same id with another digest is a mistake of the sender. */
  digest: string;
  /** Where it came from; undefined for what is no Kafka message. */
  place?: { topic: string; partition: number; offset: bigint | string };
}

const LONGEST_ID = 255;
// What PostgreSQL's text can't hold, and what is too long for an index.
const UNSTORABLE = /\u0000|\p{Surrogate}/u;

/** A header's text; the first where it stands more than once. */
export function headerText(headers: RecordHeaders, name: string): string | undefined {
  const value = headers[name];
  const first = Array.isArray(value) ? value[0] : value;
  return first?.toString();
}

/** The id that the sender gave: header `message-id`, or `ce_id`, which is unique per `ce_source` says CloudEvents. */
export function ownIdOf(headers: RecordHeaders): string | undefined {
  const cloudEventId = headerText(headers, 'ce_id');
  const own =
    headerText(headers, 'message-id') ??
    (cloudEventId && [headerText(headers, 'ce_source'), cloudEventId].filter(Boolean).join(' '));
  return own || undefined;
}

/** The message's own id, else its place. */
export function messageIdOf(record: IncomingRecord): string {
  const own = ownIdOf(record.headers);
  return own === undefined ? placeIdOf(record) : storable(own);
}

/** With the timestamp: a topic that was made anew counts its offsets anew. */
export const placeIdOf = ({ topic, partition, offset, timestamp }: IncomingRecord): string =>
  storable(`${topic}-${partition}-${offset}-${timestamp}`);

/** An id as it can be stored: one that is too long or holds what text can't is replaced by its hash. */
export function storable(id: string): string {
  return id.length > LONGEST_ID || UNSTORABLE.test(id) ? `sha256 ${digestOf(id)}` : id;
}

/** SHA-256 of the parts, each with its length before it. */
export function digestOf(...parts: (string | Uint8Array | null | undefined)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${part?.length ?? '-'}:`).update(part ?? '');
  return hash.digest('base64url');
}

/**
 * Of a message: where it was sent to, its bytes, and the headers that its handler reads. Not every header: a sender that
 * sends it again may give it another trace and another correlation id.
 */
function digestOfRecord({ topic, key, value, headers }: IncomingRecord, digestHeaders: readonly string[]) {
  return digestOf(topic, key, value, ...digestHeaders.map((name) => headerText(headers, name)));
}

/** The digest is made when it is asked for: handlers that claim nothing don't need it. */
export function identityOf(
  record: IncomingRecord,
  consumer: string,
  digestHeaders: readonly string[] = [],
): MessageIdentity {
  const { topic, partition, offset } = record;
  let digest: string | undefined;
  return {
    consumer,
    messageId: messageIdOf(record),
    get digest() {
      return (digest ??= digestOfRecord(record, digestHeaders));
    },
    place: { topic, partition, offset },
  };
}
