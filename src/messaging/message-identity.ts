import { isUtf8 } from 'node:buffer';
import { hash } from 'node:crypto';
import type { IncomingRecord, RecordHeaders } from './records/record.js';
import type { HandledMessage } from './message-answer.js';

/** What tells one message from another, and the same message when it is delivered again. */
export interface MessageIdentity {
  /** Who handles it: messages are handled once by each consumer. */
  consumer: string;
  /** What its sender, or its place, names it. */
  messageId: string;
  /** Named by its place, as its sender gave it no id: what came from another place with this id is another message. */
  isNamedByPlace?: boolean;
  /** Of the content: the same id with another digest is another message, sent under it by mistake. */
  digest: string;
  /** Where it came from; undefined for what is no Kafka message. */
  place?: { topic: string; partition: number; offset: bigint | string };
}

const HASH_PREFIX = 'sha256 ';
const CONFLICT_PREFIX = 'conflict ';
const LONGEST_ID = 255;
/** What PostgreSQL's text can hold. */
const isText = (id: string) => !id.includes('\0') && id.isWellFormed();

/** A header's text; the first where it stands more than once. */
export function headerText(headers: RecordHeaders, name: string): string | undefined {
  const value = headers[name];
  const first = Array.isArray(value) ? value[0] : value;
  return first?.toString();
}

/**
 * The id that the sender gave, as it is stored: header `message-id`, or `ce_id`, which is unique per `ce_source` says
 * CloudEvents. Undefined: it gave none.
 */
export function ownIdOf(headers: RecordHeaders): string | undefined {
  const own = idIn(headers, 'message-id');
  if (own !== undefined) return own === '' ? undefined : storable(own);
  const cloudEventId = idIn(headers, 'ce_id');
  if (!cloudEventId) return undefined;
  const source = idIn(headers, 'ce_source');
  // A space within either would make one of two ids; no URI reference has any.
  if (/ /.test(`${source ?? ''}${cloudEventId}`)) return `${HASH_PREFIX}${digestOf(source, cloudEventId)}`;
  return storable(source ? `${source} ${cloudEventId}` : cloudEventId);
}

/** The message's own id, else its place. */
export const messageIdOf = (record: IncomingRecord): string => ownIdOf(record.headers) ?? placeIdOf(record);

/** With the timestamp: a topic that was made anew counts its offsets anew. A sender may give the same as an id. */
export const placeIdOf = ({ topic, partition, offset, timestamp }: IncomingRecord): string =>
  storable(`${topic}-${partition}-${offset}-${timestamp}`);

/** Names a message whose id another one has: no sender can give this as an id. */
export const conflictIdOf = (record: IncomingRecord): string => `${CONFLICT_PREFIX}${placeIdOf(record)}`;

/**
 * An id as it can be stored: replaced by its hash where it is too long, holds what text can't, or looks like an id that is
 * made here.
 */
export function storable(id: string): string {
  const isReserved = id.startsWith(HASH_PREFIX) || id.startsWith(CONFLICT_PREFIX);
  return isReserved || id.length > LONGEST_ID || !isText(id) ? `${HASH_PREFIX}${digestOf(id)}` : id;
}

/** True when what was handled with the message's id is this message, or the same that was sent before. */
export function isSameMessage(handled: HandledMessage, message: MessageIdentity): boolean {
  if (handled.digest !== message.digest) return false;
  if (!message.isNamedByPlace) return true;
  const [one, other] = [handled.place, message.place];
  return (
    one?.topic === other?.topic &&
    one?.partition === other?.partition &&
    String(one?.offset) === String(other?.offset)
  );
}

/** An id that is no UTF-8 becomes a digest with a lone surrogate in front, which no text begins with. */
function idIn(headers: RecordHeaders, name: string): string | undefined {
  const value = headers[name];
  const first = Array.isArray(value) ? value[0] : value;
  return Buffer.isBuffer(first) && !isUtf8(first) ? `\ud800${digestOf(first)}` : first?.toString();
}

/** A UTF-16 unit has so many bytes in UTF-8 at most. */
const UNIT_BYTES = 3;
/** A length, as text, and the colon behind it. */
const LENGTH_BYTES = 20;

/** SHA-256 of the parts, each with its length before it. */
export function digestOf(...parts: (string | Uint8Array | null | undefined)[]): string {
  let room = 0;
  for (const part of parts)
    room += LENGTH_BYTES + (typeof part === 'string' ? UNIT_BYTES * part.length : (part?.length ?? 0));
  const bytes = Buffer.allocUnsafe(room);
  let [end, text] = [0, ''];
  for (const part of parts) {
    text += `${part?.length ?? '-'}:`;
    if (typeof part === 'string') text += part;
    else if (part) {
      end += bytes.write(text, end);
      bytes.set(part, end);
      end += part.length;
      text = '';
    }
  }
  end += bytes.write(text, end);
  // In one go: a hash that is fed piece by piece takes three times as long for a message of the usual size.
  return hash('sha256', bytes.subarray(0, end), 'base64url');
}

/**
 * Of a message: where it was sent to, its bytes, and the headers that its handler reads. Not every header: a sender that
 * sends it again may give it another trace and another correlation id.
 */
export function digestOfMessage(
  { topic, key, value, headers }: DigestedMessage,
  digestHeaders: readonly string[],
): string {
  const values = digestHeaders.map((name) => [headers[name] ?? undefined].flat().map(textOrBytes));
  // Those of a header that stands more than once come last, so that all others have the digest that they always had.
  const more = values.flatMap((all, index) =>
    all.length > 1 ? [digestHeaders[index], ...all.slice(1)] : [],
  );
  return digestOf(topic, key, value, ...values.map(([first]) => first), ...more);
}

/** Bytes that are text as that text. */
export const textOrBytes = <T>(value: T | Buffer): T | Buffer | string =>
  Buffer.isBuffer(value) && isUtf8(value) ? value.toString() : value;

/** A record, or what Nest's own parser has made of one. */
interface DigestedMessage {
  topic: string;
  key: Buffer | string | null | undefined;
  value: Buffer | string | null | undefined;
  headers: RecordHeaders;
}

/** Of a record. */
export const identityOf = (
  record: IncomingRecord,
  consumer: string,
  digestHeaders: readonly string[] = [],
): MessageIdentity => new RecordIdentity(record, consumer, digestHeaders);

/** The same message under another name, or of another consumer. */
export function identityAs(
  { consumer, messageId, isNamedByPlace, digest, place }: MessageIdentity,
  other: Partial<Pick<MessageIdentity, 'consumer' | 'messageId' | 'isNamedByPlace'>>,
): MessageIdentity {
  return { consumer, messageId, isNamedByPlace, digest, place, ...other };
}

/**
 * The digest is made when it is asked for: handlers that claim nothing don't need it. By a class: a getter of each object's own
 * would make a shape for each, which holds on to the record until a full garbage collection.
 */
class RecordIdentity implements MessageIdentity {
  readonly messageId: string;
  readonly isNamedByPlace: boolean;
  readonly place: NonNullable<MessageIdentity['place']>;
  #digest: string | undefined;
  readonly #record: IncomingRecord;
  readonly #digestHeaders: readonly string[];

  constructor(
    record: IncomingRecord,
    readonly consumer: string,
    digestHeaders: readonly string[],
  ) {
    const { topic, partition, offset } = record;
    const ownId = ownIdOf(record.headers);
    this.messageId = ownId ?? placeIdOf(record);
    this.isNamedByPlace = ownId === undefined;
    this.place = { topic, partition, offset };
    this.#record = record;
    this.#digestHeaders = digestHeaders;
  }

  get digest(): string {
    return (this.#digest ??= digestOfMessage(this.#record, this.#digestHeaders));
  }
}
