// messaging/kafka/protocol/: Requests to brokers and their answers, byte by byte, in fixed versions.
// Promises: pure functions of bytes; versions that brokers since Kafka 2.3 have.
// May know: records/ for what batches are.

import { RecordReader } from '../../records/reader.js';

/** Writes what Kafka's requests are made of, one after another. */
export class RequestWriter {
  private readonly parts: Buffer[] = [];

  get bytes(): Buffer {
    return Buffer.concat(this.parts);
  }

  int8(value: number): this {
    return this.raw(Buffer.of(value & 0xff));
  }

  bool(value: boolean): this {
    return this.int8(value ? 1 : 0);
  }

  int16(value: number): this {
    const bytes = Buffer.allocUnsafe(2);
    bytes.writeInt16BE(value);
    return this.raw(bytes);
  }

  int32(value: number): this {
    const bytes = Buffer.allocUnsafe(4);
    bytes.writeInt32BE(value);
    return this.raw(bytes);
  }

  int64(value: bigint): this {
    const bytes = Buffer.allocUnsafe(8);
    bytes.writeBigInt64BE(value);
    return this.raw(bytes);
  }

  text(value: string | null): this {
    if (value === null) return this.int16(-1);
    const bytes = Buffer.from(value);
    return this.int16(bytes.length).raw(bytes);
  }

  blob(value: Buffer): this {
    return this.int32(value.length).raw(value);
  }

  /** @param items null = the request means all there are */
  array<T>(items: readonly T[] | null, write: (item: T) => unknown): this {
    this.int32(items === null ? -1 : items.length);
    items?.forEach(write);
    return this;
  }

  /** Of flexible versions, whose lengths are one more and have as many bytes as they need. */
  compactText(value: string | null): this {
    if (value === null) return this.uvarint(0);
    const bytes = Buffer.from(value);
    return this.uvarint(bytes.length + 1).raw(bytes);
  }

  compactArray<T>(items: readonly T[] | null, write: (item: T) => unknown): this {
    this.uvarint(items === null ? 0 : items.length + 1);
    items?.forEach(write);
    return this;
  }

  uuid(value: string): this {
    return this.raw(Buffer.from(value, 'hex'));
  }

  /** No field that not every version has. */
  noTags(): this {
    return this.uvarint(0);
  }

  private uvarint(value: number): this {
    const bytes: number[] = [];
    let rest = value;
    for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
    bytes.push(rest);
    return this.raw(Buffer.from(bytes));
  }

  private raw(bytes: Buffer): this {
    this.parts.push(bytes);
    return this;
  }
}

/** Reads what their answers are made of. */
export class AnswerReader extends RecordReader {
  bool(): boolean {
    return this.int8() !== 0;
  }

  nullableText(): string | null {
    const length = this.int16();
    return length < 0 ? null : this.take(length).toString();
  }

  blob(): Buffer {
    return this.take(Math.max(0, this.int32()));
  }

  array<T>(item: () => T): T[] {
    return this.times(this.int32(), item);
  }

  compactText(): string {
    return this.take(Math.max(0, this.uvarint() - 1)).toString();
  }

  compactBlob(): Buffer {
    return this.take(Math.max(0, this.uvarint() - 1));
  }

  compactArray<T>(item: () => T): T[] {
    return this.times(this.uvarint() - 1, item);
  }

  /** As hexadecimal digits. */
  uuid(): string {
    return this.take(16).toString('hex');
  }

  skipTags(): void {
    for (let left = this.uvarint(); left > 0; left--) {
      this.uvarint();
      this.take(this.uvarint());
    }
  }

  uvarint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.take(1)[0]!;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
    }
    return value;
  }

  private times<T>(count: number, item: () => T): T[] {
    const items: T[] = [];
    // Not made at once: a length is what somebody has sent, and what does not follow ends the reading.
    for (let n = 0; n < count; n++) items.push(item());
    return items;
  }
}
