import { isUtf8 } from 'node:buffer';
import type { RawHeaders, RecordHeaders } from './record.js';
import { headersByName } from './limits.js';

/** The bytes of a batch are none of Kafka's format. */
export class MalformedBatchError extends Error {
  override readonly name = 'MalformedBatchError';
}

/** Reads what Kafka's formats are made of, one after another. Bytes are shared, not copied. */
export class RecordReader {
  /** @param at where it begins to read @param end where it ends at the latest */
  constructor(
    private readonly bytes: Buffer,
    public at = 0,
    private readonly end = bytes.length,
  ) {}

  get left(): number {
    return this.end - this.at;
  }

  int8(): number {
    return this.bytes.readInt8(this.next(1));
  }

  int16(): number {
    return this.bytes.readInt16BE(this.next(2));
  }

  int32(): number {
    return this.bytes.readInt32BE(this.next(4));
  }

  int64(): bigint {
    return this.bytes.readBigInt64BE(this.next(8));
  }

  /** A reader of the next bytes, which this one passes over. */
  within(length: number): RecordReader {
    const from = this.next(length);
    return new RecordReader(this.bytes, from, this.at);
  }

  take(length: number): Buffer {
    const from = this.next(length);
    return this.bytes.subarray(from, from + length);
  }

  /** A text of at most 32 KiB; null becomes the empty one. */
  text(): string {
    return this.take(Math.max(0, this.int16())).toString();
  }

  /** A zigzag number of at most 32 bits. */
  varint(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.bytes[this.next(1)]!;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) break;
      if (shift >= 28) throw new MalformedBatchError('A number has more than 32 bits.');
    }
    return (value >>> 1) ^ -(value & 1);
  }

  /** A zigzag number of at most 64 bits. */
  varlong(): bigint {
    const first = this.left > 0 ? this.bytes[this.at]! : 0x80;
    // Most are of one byte: the time since the record before.
    if (first < 0x80) return BigInt(this.varint());
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.bytes[this.next(1)]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) break;
      if (shift >= 63n) throw new MalformedBatchError('A number has more than 64 bits.');
    }
    return BigInt.asIntN(64, (value >> 1n) ^ -(value & 1n));
  }

  /** null where the length is negative. */
  nullableBytes(): Buffer | null {
    const length = this.varint();
    return length < 0 ? null : this.take(length);
  }

  /** So many headers, as they are. */
  rawHeaders(count: number): RawHeaders {
    const headers: RawHeaders[number][] = [];
    for (let n = 0; n < count; n++) {
      const name = this.nullableBytes();
      headers.push([name === null ? '' : isUtf8(name) ? name.toString() : name, this.nullableBytes()]);
    }
    return headers;
  }

  headers(count: number): RecordHeaders {
    return headersByName(this.rawHeaders(count));
  }

  private next(length: number): number {
    const from = this.at;
    if (length < 0 || length > this.left) throw new MalformedBatchError('It ends before it should.');
    this.at += length;
    return from;
  }
}

/** What a record's headers are, given their bytes, beginning with their number. */
export const headersOf = (bytes: Buffer): RecordHeaders => headersByName(rawHeadersIn(bytes));

/** The same as they are: in their order, with their duplicates and nulls. */
export function rawHeadersIn(bytes: Buffer): RawHeaders {
  const reader = new RecordReader(bytes);
  return reader.rawHeaders(reader.varint());
}
