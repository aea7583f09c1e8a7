import { crc32c } from './crc32c.js';
import type { RawHeaders } from './record.js';

/** A record to be written. */
export interface RecordToWrite {
  key: Buffer | string | null;
  /** null is a tombstone. */
  value: Buffer | string | null;
  /** In their order; names may be there more than once. */
  headers?: RawHeaders;
  /** Ms since 1970; now, where it is left out. */
  timestamp?: bigint;
}

/** Kafka's batch, up to its checksum and from there up to its records. */
const FIRST_OFFSET_AND_LENGTH = 8 + 4;
const CHECKSUM_AT = FIRST_OFFSET_AND_LENGTH + 4 + 1;
const CHECKED_FROM = CHECKSUM_AT + 4;
const RECORDS_AT = CHECKED_FROM + 2 + 4 + 8 + 8 + 8 + 2 + 4 + 4;

const MAGIC = 2;
const NONE = -1;

type Part = Buffer | string | null;

/** A record's parts and how many bytes each has, and how many bytes it takes behind its length. */
interface Sized {
  parts: Part[];
  lengths: number[];
  headers: number;
  timestampDelta: bigint;
  bytes: number;
}

/**
 * Writes records as one batch in Kafka's format since version 0.11, neither compressed nor of a producer with an id: the twin
 * of `readBatches`. It takes time that grows with the bytes, and one buffer for all of them.
 *
 * @throws RangeError the records have more bytes than a batch can (2 GiB)
 */
export function encodeBatch(records: readonly RecordToWrite[]): Buffer {
  const now = BigInt(Date.now());
  const times = records.map(({ timestamp }) => timestamp ?? now);
  const firstTimestamp = times[0] ?? now;
  const maxTimestamp = times.reduce((max, time) => (time > max ? time : max), firstTimestamp);
  const sized = records.map((record, index) => sizedOf(record, index, times[index]! - firstTimestamp));
  const length = sized.reduce((sum, { bytes }) => sum + varintSize(bytes) + bytes, RECORDS_AT);
  const writer = new RecordWriter(Buffer.allocUnsafe(length));
  writer.int64(0n);
  writer.int32(length - FIRST_OFFSET_AND_LENGTH);
  // The leader's epoch, which the leader sets.
  writer.int32(NONE);
  writer.int8(MAGIC);
  writer.int32(0);
  writer.int16(0);
  writer.int32(records.length - 1);
  writer.int64(firstTimestamp);
  writer.int64(maxTimestamp);
  // The producer's id and epoch, and the number of its first record.
  writer.int64(BigInt(NONE));
  writer.int16(NONE);
  writer.int32(NONE);
  writer.int32(records.length);
  sized.forEach((record, index) => writeRecord(writer, record, index));
  writer.bytes.writeUInt32BE(crc32c(writer.bytes.subarray(CHECKED_FROM)), CHECKSUM_AT);
  return writer.bytes;
}

function sizedOf({ key, value, headers = [] }: RecordToWrite, index: number, timestampDelta: bigint): Sized {
  const parts: Part[] = [key, value];
  for (const [name, header] of headers) parts.push(name, header);
  const lengths = parts.map(lengthOf);
  // The record's own attributes are a byte.
  let bytes = 1 + varlongSize(timestampDelta) + varintSize(index) + varintSize(headers.length);
  for (const length of lengths) bytes += varintSize(length) + Math.max(0, length);
  return { parts, lengths, headers: headers.length, timestampDelta, bytes };
}

function writeRecord(writer: RecordWriter, record: Sized, index: number) {
  const { parts, lengths } = record;
  writer.varint(record.bytes);
  writer.int8(0);
  writer.varlong(record.timestampDelta);
  writer.varint(index);
  writer.part(parts[0] ?? null, lengths[0]!);
  writer.part(parts[1] ?? null, lengths[1]!);
  writer.varint(record.headers);
  for (let n = 2; n < parts.length; n++) writer.part(parts[n] ?? null, lengths[n]!);
}

const lengthOf = (part: Part): number =>
  part === null ? NONE : typeof part === 'string' ? Buffer.byteLength(part) : part.length;

/** How numbers are written, so that those next to zero are small ones. */
const zigzag = (value: number): number => ((value << 1) ^ (value >> 31)) >>> 0;
const zigzagLong = (value: bigint): bigint => BigInt.asUintN(64, (value << 1n) ^ (value >> 63n));

function varintSize(value: number): number {
  let size = 1;
  for (let rest = zigzag(value); rest >= 0x80; rest >>>= 7) size++;
  return size;
}

function varlongSize(value: bigint): number {
  let size = 1;
  for (let rest = zigzagLong(value); rest >= 0x80n; rest >>= 7n) size++;
  return size;
}

/** Writes what Kafka's formats are made of, one after another. */
class RecordWriter {
  private at = 0;

  constructor(readonly bytes: Buffer) {}

  int8(value: number): void {
    this.at = this.bytes.writeInt8(value, this.at);
  }

  int16(value: number): void {
    this.at = this.bytes.writeInt16BE(value, this.at);
  }

  int32(value: number): void {
    this.at = this.bytes.writeInt32BE(value, this.at);
  }

  int64(value: bigint): void {
    this.at = this.bytes.writeBigInt64BE(value, this.at);
  }

  varint(value: number): void {
    let rest = zigzag(value);
    for (; rest >= 0x80; rest >>>= 7) this.bytes[this.at++] = (rest & 0x7f) | 0x80;
    this.bytes[this.at++] = rest;
  }

  varlong(value: bigint): void {
    let rest = zigzagLong(value);
    for (; rest >= 0x80n; rest >>= 7n) this.bytes[this.at++] = Number(rest & 0x7fn) | 0x80;
    this.bytes[this.at++] = Number(rest);
  }

  part(part: Part, length: number): void {
    this.varint(length);
    if (typeof part === 'string') this.at += this.bytes.write(part, this.at);
    else if (part) this.at += part.copy(this.bytes, this.at);
  }
}
