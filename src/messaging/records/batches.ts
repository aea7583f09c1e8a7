// messaging/records/: Kafka's record batches read and written, with every codec, in linear time and bounded memory.
// Promises: a record that is past a limit is handed on unread; bytes that are no batch are an error, never a loop.
// May know: bytes, and what the port calls a record.

import { type Codec, decompress } from './codecs.js';
import type { IncomingRecord, RecordLimits, UnreadPart } from './record.js';
import { headersByName, noHeaders, pastLimits } from './limits.js';
import { MalformedBatchError, RecordReader } from './reader.js';
import { WorkSlices } from '../../json/work-slices.js';

/** Of a batch's attributes. */
const COMPRESSION = 0b111;
const IS_LOG_APPEND_TIME = 1 << 3;
const IS_TRANSACTIONAL = 1 << 4;
const IS_CONTROL = 1 << 5;
const ABORT = 0;

const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const;

/** The bytes before a batch's length is known. */
const LENGTH_BYTES = 12;
const MAGIC = 2;

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
  /** Why it can't be read: nothing from its first offset on is, and `records` has none. */
  undecodable?: UndecodableBatchError;
}

/** What a batch says of itself, as far as it could be read. */
interface BatchHead {
  codec?: string | undefined;
  count?: number;
  lastOffset?: bigint;
}

/** A batch is in a form that this version does not know, or is no batch. Nothing was skipped. */
export class UndecodableBatchError extends Error {
  /** Always `UndecodableBatchError`. */
  override readonly name = 'UndecodableBatchError';
  /** Of its last record, where the batch could be read so far. */
  readonly lastOffset: bigint | undefined;

  constructor(
    /** Of its first record. */
    readonly offset: bigint,
    head: BatchHead,
    options: { cause: Error },
  ) {
    const { codec, count, lastOffset } = head;
    const what = count === undefined ? 'A batch' : `A batch of ${count} records`;
    const how = codec === undefined || codec === 'none' ? '' : `, compressed by ${codec},`;
    const behind = lastOffset === undefined ? 'behind it' : `to ${lastOffset + 1n}, behind it`;
    super(
      `${what} from offset ${offset} on${how} can't be read: ${options.cause.message.replace(/\.$/, '')}. ` +
        `Run a version that can read it, or set the offset of the group ${behind} (kafka-consumer-groups --reset-offsets).`,
      options,
    );
    this.lastOffset = lastOffset;
  }
}

/** The reading of one fetch. */
export interface BatchReading {
  limits: RecordLimits;
  /** Bytes that may yet be decompressed, of all partitions of the fetch together; `limits.batchBytes` at first. */
  left: number;
  /** For what is not gzip: `decompress` of `codecs`. @throws Error it can't */
  decompress: (codec: Codec, bytes: Buffer, atMost: number) => Promise<Buffer> | Buffer;
}

/**
 * Reads what a fetch has brought of one partition, in linear time and with breaks. The client libraries' own decoders take
 * time that grows with the square of the number of headers, have names of headers that objects have by themselves
 * (`constructor`) not right, and decompress without a bound.
 *
 * What does not fit into `left` any more is left out, and comes with the next fetch. A record past a limit, and a batch that is too
 * large, are handed over as one record with `unread`, so that nobody stops at them. A batch that can't be read is the last that is
 * handed over, as `undecodable`: what it holds is lost to whoever goes on behind it.
 */
export async function readBatches(bytes: Buffer, reading: BatchReading): Promise<RecordBatchRead[]> {
  const reader = new RecordReader(bytes);
  const batches: RecordBatchRead[] = [];
  const slices = new WorkSlices();
  while (reader.left > LENGTH_BYTES) {
    const firstOffset = reader.int64();
    const length = reader.int32();
    // A fetch may end in the midst of a batch.
    if (length > reader.left) break;
    const own = bytes.subarray(reader.at, reader.at + Math.max(0, length));
    const batch = await readBatch(firstOffset, own, reading, slices);
    if (!batch) break;
    batches.push(batch);
    if (batch.undecodable) break;
    reader.take(length);
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
  slices: WorkSlices,
): Promise<RecordBatchRead | undefined> {
  const known: BatchHead = {};
  const batch: RecordBatchRead = {
    ...{ lastOffset: firstOffset, producerId: -1n, records: [] },
    ...{ isTransactional: false, isControl: false, isAbort: false },
  };
  try {
    const reader = new RecordReader(bytes);
    // The leader's epoch, the format's number, the checksum, which came over TCP.
    reader.take(4);
    if (reader.int8() !== MAGIC) throw new MalformedBatchError('It is in no format of Kafka 0.11 or later.');
    reader.take(4);
    const attributes = reader.int16();
    const codec = CODECS[attributes & COMPRESSION];
    batch.isTransactional = (attributes & IS_TRANSACTIONAL) !== 0;
    batch.isControl = (attributes & IS_CONTROL) !== 0;
    batch.lastOffset = firstOffset + BigInt(reader.int32());
    const [firstTimestamp, maxTimestamp] = [reader.int64(), reader.int64()];
    batch.producerId = reader.int64();
    reader.take(2 + 4);
    const count = reader.int32();
    Object.assign(known, { codec, count, lastOffset: batch.lastOffset });
    const head: Head = { firstOffset, attributes, firstTimestamp, maxTimestamp };
    const rest = reader.take(reader.left);
    try {
      const each = new RecordReader(await decompressed(codec, rest, reading));
      for (let n = 0; n < count; n++) {
        const from = each.at;
        batch.records.push(readRecord(each, head, reading.limits));
        if (slices.isOver(each.at - from)) await slices.giveWay();
      }
    } catch (error) {
      if (!isTooLarge(error)) throw error;
      if (reading.left < reading.limits.batchBytes) return undefined;
      batch.records = [tooLarge(head, batch.lastOffset, rest, count, codec)];
    }
  } catch (error) {
    const undecodable = new UndecodableBatchError(firstOffset, known, { cause: error as Error });
    return { ...batch, records: [], undecodable };
  }
  const key = batch.isControl ? batch.records[0]?.key : undefined;
  batch.isAbort = key !== null && key !== undefined && key.length >= 4 && key.readInt16BE(2) === ABORT;
  return batch;
}

function readRecord(reader: RecordReader, head: Head, limits: RecordLimits): BatchRecord {
  const length = reader.varint();
  const whole = reader.within(length);
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
  const found = await (codec === 'gzip' ? decompress : reading.decompress)(codec, bytes, maxOutputLength);
  reading.left -= found.length;
  return found;
}

const isTooLarge = (error: unknown) => (error as { code?: string }).code === 'ERR_BUFFER_TOO_LARGE';

/** Stands for all of a batch, at its last place. */
function tooLarge(
  head: Head,
  lastOffset: bigint,
  value: Buffer,
  count: number,
  codec: string | undefined,
): BatchRecord {
  const unread: UnreadPart = {
    code: 'RECORD_TOO_LARGE',
    reason: `A batch of ${count} records, from offset ${head.firstOffset} on, compressed by ${codec}, can't be read: it is too large`,
  };
  return {
    offset: lastOffset,
    timestamp: timestampOf(head, 0n),
    key: null,
    value,
    headers: noHeaders(),
    unread,
  };
}
