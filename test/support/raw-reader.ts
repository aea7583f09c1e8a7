import { exchange, int16, int32, int64, NOT_YET, text } from './raw-records.js';

/** A record as it is kept, its headers in their order and of whatever bytes. */
export interface KeptRecord {
  partition: number;
  offset: bigint;
  key: Buffer | null;
  value: Buffer | null;
  headers: [name: Buffer, value: Buffer | null][];
}

const VERSION = 4;
const MEBIBYTE = 1024 * 1024;

/** All that partition `partition` of `topic` has; its batches must not be compressed. */
export async function readRaw(broker: string, topic: string, partition: number): Promise<KeptRecord[]> {
  const kept: KeptRecord[] = [];
  // A broker gives what is in one segment.
  for (let from: bigint | undefined = 0n; from !== undefined;) {
    const { records, next } = await readFrom(broker, topic, partition, from);
    kept.push(...records);
    from = next;
  }
  return kept;
}

/** `next` is undefined at the end. */
async function readFrom(
  broker: string,
  topic: string,
  partition: number,
  offset: bigint,
): Promise<{ records: KeptRecord[]; next: bigint | undefined }> {
  const body = Buffer.concat([
    ...[int16(1), int16(VERSION), int32(1), text('raw')],
    ...[int32(-1), int32(0), int32(0), int32(MEBIBYTE), Buffer.of(0)],
    ...[int32(1), text(topic), int32(1), int32(partition), int64(offset), int32(MEBIBYTE)],
  ]);
  const answer = await exchange(broker, Buffer.concat([int32(body.length), body]));
  // Size, correlation, throttling, one topic, its name, one partition, its number.
  let at = 4 + 4 + 4 + 4 + 2 + Buffer.byteLength(topic) + 4 + 4;
  const error = answer.readInt16BE(at);
  if (NOT_YET.includes(error)) return { records: [], next: undefined };
  if (error !== 0) throw new Error(`The broker gives nothing of ${topic}: error ${error}.`);
  at += 2 + 8 + 8;
  at += 4 + Math.max(0, answer.readInt32BE(at)) * 16;
  const end = at + 4 + answer.readInt32BE(at);
  const records: KeptRecord[] = [];
  let next: bigint | undefined;
  for (
    at += 4;
    at + 12 < end && at + 12 + answer.readInt32BE(at + 8) <= end;
    at += 12 + answer.readInt32BE(at + 8)
  ) {
    records.push(...recordsOf(answer, at, partition).filter((record) => record.offset >= offset));
    next = answer.readBigInt64BE(at) + BigInt(answer.readInt32BE(at + 23)) + 1n;
  }
  return { records, next };
}

function recordsOf(answer: Buffer, batch: number, partition: number): KeptRecord[] {
  const base = answer.readBigInt64BE(batch);
  const attributes = answer.readInt16BE(batch + 21);
  if (attributes & 0b111) throw new Error('The batch is compressed.');
  // Control records are of the broker.
  if (attributes & 0b100000) return [];
  const count = answer.readInt32BE(batch + 57);
  let at = batch + 61;
  const varint = () => {
    let [raw, shift] = [0n, 0n];
    for (;;) {
      const byte = answer[at++]!;
      raw |= BigInt(byte & 0x7f) << shift;
      shift += 7n;
      if (byte < 0x80) return Number((raw >> 1n) ^ -(raw & 1n));
    }
  };
  const sized = () => {
    const length = varint();
    if (length < 0) return null;
    at += length;
    return answer.subarray(at - length, at);
  };
  return Array.from({ length: count }, () => {
    varint();
    at += 1;
    varint();
    const offset = base + BigInt(varint());
    const [key, value] = [sized(), sized()];
    const headers = Array.from({ length: varint() }, (): [Buffer, Buffer | null] => [sized()!, sized()]);
    return { partition, offset, key, value, headers };
  });
}
