import { setImmediate as immediate } from 'node:timers/promises';
import { promisify } from 'node:util';
import { unzip } from 'node:zlib';
import type { IncomingRecord } from './kafka-driver.js';
import { headersByName, noHeaders, pastLimits } from './record-limits.js';
import type { RecordLimits, UnreadPart } from './kafka-driver.js';
import { MalformedBatchError, RecordReader } from './record-reader.js';

/** Of a batch's attributes. */
const COMPRESSION = 0b111;
const IS_LOG_APPEND_TIME = 1 << 3;
const IS_TRANSACTIONAL = 1 << 4;
const IS_CONTROL = 1 << 5;
const ABORT = 0;

const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const;
/** How a batch is compressed. */
export type Codec = Exclude<(typeof CODECS)[number], 'none'>;

/** The bytes before a batch's length is known, and those of its head, before the records. */
const LENGTH_BYTES = 12;
const MAGIC_AT = 16;
const MAGIC = 2;
/** How long is decoded without a break. */
const SLICE_MS = 10;

const gunzip = promisify(unzip);

/** A record, as its batch has it. */
export type BatchRecord = Pick<
  IncomingRecord,
  'offset' | 'timestamp' | 'key' | 'value' | 'headers' | 'rawHeaders' | 'unread'
>;

/** A batch as a broker keeps it. */
export interface RecordBatchRead {
  lastOffset: bigint;
  producerId: bigint;
  isTransactional: boolean;
  /** It has no records for readers, and ends a transaction. */
  isControl: boolean;
  isAbort: boolean;
  records: BatchRecord[];
}

/** The reading of one fetch. */
export interface BatchReading {
  limits: RecordLimits;
  /** Bytes that may yet be decompressed, of all partitions of the fetch together; `limits.batchBytes` at first. */
  left: number;
  /** For what is not gzip. @throws Error the client library has none of it */
  decompress: (codec: Codec, bytes: Buffer, atMost: number) => Promise<Buffer> | Buffer;
}

/** True where the records are kept in the format of Kafka 0.11 and later. */
export const isBatchFormat = (bytes: Buffer): boolean => bytes.length > MAGIC_AT && bytes[MAGIC_AT] === MAGIC;

/**
 * Reads what a fetch has brought of one partition, in linear time and with breaks. The client libraries' own decoders take
 * time that grows with the square of the number of headers, have names of headers that objects have by themselves
 * (`constructor`) not right, and decompress without a bound.
 *
 * What does not fit into `left` any more is left out, and comes with the next fetch. A record past a limit, and a batch that can't be read, are handed over as one record with `unread`, so that nobody stops
 * at them.
 */
export async function readBatches(bytes: Buffer, reading: BatchReading): Promise<RecordBatchRead[]> {
  const reader = new RecordReader(bytes);
  const batches: RecordBatchRead[] = [];
  const pauses = new Pauses();
  while (reader.left > LENGTH_BYTES) {
    const firstOffset = reader.int64();
    const length = reader.int32();
    // A fetch may end in the midst of a batch.
    if (length > reader.left) break;
    const batch = await readBatch(firstOffset, reader.take(length), reading, pauses);
    if (!batch) break;
    batches.push(batch);
  }
  return batches;
}

interface Head {
  firstOffset: bigint;
  attributes: number;
  firstTimestamp: bigint;
  maxTimestamp: bigint;
}

async function readBatch(
  firstOffset: bigint,
  bytes: Buffer,
  reading: BatchReading,
  pauses: Pauses,
): Promise<RecordBatchRead | undefined> {
  const reader = new RecordReader(bytes);
  // The leader's epoch, the format's number, the checksum, which came over TCP.
  reader.take(4 + 1 + 4);
  const attributes = reader.int16();
  const lastOffset = firstOffset + BigInt(reader.int32());
  const [firstTimestamp, maxTimestamp, producerId] = [reader.int64(), reader.int64(), reader.int64()];
  reader.take(2 + 4);
  const count = reader.int32();
  const head: Head = { firstOffset, attributes, firstTimestamp, maxTimestamp };
  const batch: RecordBatchRead = {
    ...{ lastOffset, producerId, records: [] },
    isTransactional: (attributes & IS_TRANSACTIONAL) !== 0,
    isControl: (attributes & IS_CONTROL) !== 0,
    isAbort: false,
  };
  const rest = reader.take(reader.left);
  const codec = CODECS[attributes & COMPRESSION];
  try {
    const each = new RecordReader(await decompressed(codec, rest, reading));
    for (let n = 0; n < count; n++) {
      batch.records.push(readRecord(each, head, reading.limits));
      await pauses.now();
    }
  } catch (error) {
    if (isTooLarge(error) && reading.left < reading.limits.batchBytes) return undefined;
    batch.records = [unreadable(head, lastOffset, rest, count, codec, error as Error)];
  }
  const key = batch.isControl ? batch.records[0]?.key : undefined;
  batch.isAbort = key !== null && key !== undefined && key.length >= 4 && key.readInt16BE(2) === ABORT;
  return batch;
}

function readRecord(reader: RecordReader, head: Head, limits: RecordLimits): BatchRecord {
  const length = reader.varint();
  const whole = new RecordReader(reader.take(length));
  whole.int8();
  const timestamp = timestampOf(head, whole.varlong());
  const offset = head.firstOffset + BigInt(whole.varint());
  const [key, value] = [whole.nullableBytes(), whole.nullableBytes()];
  const headersAt = whole.at;
  const headers = whole.varint();
  const past = pastLimits({ headers, headerBytes: whole.left, keyBytes: key?.length ?? 0 }, limits);
  if (!past) {
    const rawHeaders = whole.rawHeaders(headers);
    return { offset, timestamp, key, value, headers: headersByName(rawHeaders), rawHeaders };
  }
  whole.at = headersAt;
  const unread = { ...past, headers: whole.take(whole.left) };
  return { offset, timestamp, key, value, headers: noHeaders(), unread };
}

const timestampOf = ({ attributes, firstTimestamp, maxTimestamp }: Head, delta: bigint): string =>
  String(attributes & IS_LOG_APPEND_TIME ? maxTimestamp : BigInt.asIntN(64, firstTimestamp + delta));

async function decompressed(
  codec: (typeof CODECS)[number] | undefined,
  bytes: Buffer,
  reading: BatchReading,
): Promise<Buffer> {
  if (codec === undefined) throw new MalformedBatchError('It is compressed in a way that is not known.');
  if (codec === 'none') return bytes;
  const maxOutputLength = Math.max(1, reading.left);
  const found =
    codec === 'gzip'
      ? await gunzip(bytes, { maxOutputLength })
      : await reading.decompress(codec, bytes, maxOutputLength);
  reading.left -= found.length;
  return found;
}

const isTooLarge = (error: unknown) => (error as { code?: string }).code === 'ERR_BUFFER_TOO_LARGE';

/** Stands for all of a batch, at its last place. */
function unreadable(
  head: Head,
  lastOffset: bigint,
  value: Buffer,
  count: number,
  codec: string | undefined,
  error: Error,
): BatchRecord {
  const what = `A batch of ${count} records, from offset ${head.firstOffset} on, compressed by ${codec}, can't be read`;
  const unread: UnreadPart = {
    code: isTooLarge(error) ? 'RECORD_TOO_LARGE' : 'RECORD_UNREADABLE',
    reason: isTooLarge(error) ? `${what}: it is too large` : `${what}: ${error.message}`,
  };
  const timestamp = timestampOf(head, 0n);
  return { offset: lastOffset, timestamp, key: null, value, headers: noHeaders(), unread };
}

/** Lets others run now and then. */
class Pauses {
  private since = performance.now();
  private steps = 0;

  now(): Promise<void> | undefined {
    if (++this.steps % 64 !== 0 || performance.now() - this.since < SLICE_MS) return undefined;
    return immediate().then(() => void (this.since = performance.now()));
  }
}
