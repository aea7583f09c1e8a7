import type { IncomingRecord, RawHeaders, RecordHeaders, RecordLimits, UnreadPart } from './record.js';

const KIBIBYTE = 1024;

/** The limits where nothing else is said. */
export const RECORD_LIMITS: RecordLimits = {
  headers: 1000,
  headerBytes: 64 * KIBIBYTE,
  keyBytes: 64 * KIBIBYTE,
  batchBytes: 32 * KIBIBYTE * KIBIBYTE,
};

/** @returns what is past a limit */
export function pastLimits(
  { headers, headerBytes, keyBytes }: Record<'headers' | 'headerBytes' | 'keyBytes', number>,
  limits: RecordLimits,
): Pick<UnreadPart, 'code' | 'reason'> | undefined {
  if (headers <= limits.headers && headerBytes <= limits.headerBytes && keyBytes <= limits.keyBytes)
    return undefined;
  const past = [
    [`${headers} headers`, headers, limits.headers],
    [`headers of ${headerBytes} bytes`, headerBytes, limits.headerBytes],
    [`a key of ${keyBytes} bytes`, keyBytes, limits.keyBytes],
  ] as const;
  const reasons = past
    .filter(([, is, atMost]) => is > atMost)
    .map(([what, , atMost]) => `${what} (at most ${atMost})`);
  return { code: 'RECORD_TOO_LARGE', reason: `The record has ${reasons.join(' and ')}` };
}

/** Adds a header as Kafka means it: one that stands in a record more than once has an array of values, without those that are null. */
function addHeader(headers: RecordHeaders, name: string, value: Buffer | string | undefined): void {
  const known = headers[name];
  if (!(name in headers)) headers[name] = value;
  else if (value !== undefined)
    headers[name] = known === undefined ? value : [...(Array.isArray(known) ? known : [known]), value];
}

/** An object that has no names but those of headers: a header may be called `constructor`. */
export const noHeaders = (): RecordHeaders => Object.create(null) as RecordHeaders;

/** Headers by their names; one whose name is no text has the replacement character in it. */
export function headersByName(raw: RawHeaders): RecordHeaders {
  const headers = noHeaders();
  for (const [name, value] of raw) addHeader(headers, String(name), value ?? undefined);
  return headers;
}

/** The headers of a record as they are to be sent on: as they came, or as well as they are known. */
export const rawHeadersOf = ({
  headers,
  rawHeaders,
}: Partial<Pick<IncomingRecord, 'headers' | 'rawHeaders'>>): RawHeaders =>
  rawHeaders ?? pairsOf(headers, [null]);

/** Headers as pairs. @param missing the values of one that has none: null is sent as one, and nothing is not */
export const pairsOf = (headers: RecordHeaders = {}, missing: null[]): RawHeaders =>
  Object.entries(headers).flatMap(([name, values]) =>
    [values ?? missing].flat().map((value) => [name, value ?? null] as const),
  );

/** A record of whatever driver, with own headers of bytes or text alone, and within the limits. */
export function withinLimits(record: IncomingRecord, limits: RecordLimits): IncomingRecord {
  if (record.unread) return record;
  const raw = rawHeadersOf(record);
  const keyBytes = record.key?.length ?? 0;
  if (raw.length === 0 && keyBytes <= limits.keyBytes && isWithoutHeaders(record)) return record;
  const headerBytes = raw.reduce((sum, [name, value]) => sum + name.length + (value?.length ?? 0), 0);
  const past = pastLimits({ headers: raw.length, headerBytes, keyBytes }, limits);
  if (past) return { ...record, headers: noHeaders(), rawHeaders: [], unread: past };
  const rawHeaders = raw.map(
    ([name, value]) => [bytesOrText(name) ?? '', bytesOrText(value) ?? null] as const,
  );
  return { ...record, headers: headersByName(rawHeaders), rawHeaders };
}

/** As the reader of batches makes them: there is nothing to be copied. */
const isWithoutHeaders = ({ headers, rawHeaders }: IncomingRecord) =>
  rawHeaders !== undefined && Object.getPrototypeOf(headers) === null && Object.keys(headers).length === 0;

const bytesOrText = (value: unknown): Buffer | string | undefined =>
  Buffer.isBuffer(value) || typeof value === 'string' ? value : undefined;
