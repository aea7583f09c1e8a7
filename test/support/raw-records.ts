import { compressionsAlgorithms, crc32c } from '@platformatic/kafka';
import { gzipSync } from 'node:zlib';
import { connect } from 'node:net';
import { eventually } from './barrier.js';

/** A record as no client library would send it. */
export interface RawRecord {
  key?: Buffer | string | null;
  value?: Buffer | string | null;
  headers?: readonly (readonly [name: Buffer | string, value: Buffer | string | null])[];
  timestamp?: bigint;
}

/** Kafka's number of a codec, and what it does. */
export interface Compression {
  codec: number;
  compress: (records: Buffer) => Buffer;
}
export const NONE: Compression = { codec: 0, compress: (records) => records };
export const GZIP: Compression = { codec: 1, compress: (records) => gzipSync(records) };
export const SNAPPY: Compression = {
  codec: 2,
  compress: (records) => Buffer.from(compressionsAlgorithms.snappy.compressSync(records)),
};

export const LZ4: Compression = {
  codec: 3,
  compress: (records) => Buffer.from(compressionsAlgorithms.lz4.compressSync(records)),
};

const PRODUCE = { api: 0, version: 7 };
const FETCH = { api: 1, version: 4 };
const PATIENCE_MS = 60_000;
/** What a broker says of a topic that it has only just heard of, or not yet, and of one whose copies are away. */
export const NOT_YET = [3, 5, 6, 19, 20];

/** Sends records to a partition of `topic` as one batch; of several brokers to whoever leads it. @returns the offset of the first. @throws Error the broker refuses them */
export async function sendRaw(
  broker: string | readonly string[],
  topic: string,
  records: readonly RawRecord[],
  compression: Compression = NONE,
  partition = 0,
): Promise<bigint> {
  return sendBatch(broker, topic, batchOf(records, compression), partition);
}

/** Sends one batch, as it is. @returns the offset of its first record. @throws Error the broker refuses it */
export async function sendBatch(
  broker: string | readonly string[],
  topic: string,
  batch: Buffer,
  partition = 0,
): Promise<bigint> {
  const body = Buffer.concat([
    ...head(PRODUCE),
    ...[int16(-1), int16(-1), int32(10_000), int32(1), text(topic), int32(1), int32(partition), int32(batch.length), batch],
  ]); // prettier-ignore
  // Size, correlation, one topic, its name, one partition, its number.
  const at = 4 + 4 + 4 + 2 + Buffer.byteLength(topic) + 4 + 4;
  const request = Buffer.concat([int32(body.length), body]);
  const ask = (one: string): Promise<Buffer | undefined> =>
    // One of several may be away.
    typeof broker === 'string' ? exchange(one, request) : exchange(one, request).catch(() => undefined);
  const answer = await eventually(
    async () => {
      for (const one of [broker].flat()) {
        const found = await ask(one);
        if (found && !NOT_YET.includes(found.readInt16BE(at))) return found;
      }
      return false;
    },
    typeof broker === 'string' ? undefined : PATIENCE_MS,
  );
  const error = answer.readInt16BE(at);
  if (error !== 0) throw new Error(`The broker refuses the records: error ${error}.`);
  return answer.readBigInt64BE(at + 2);
}

/** What the broker has of partition 0 of `topic`, from `offset` on: batches, as it keeps them. */
export async function fetchRaw(broker: string, topic: string, offset = 0n): Promise<Buffer> {
  const body = Buffer.concat([
    ...head(FETCH),
    ...[int32(-1), int32(100), int32(1), int32(50_000_000), Buffer.of(0)],
    ...[int32(1), text(topic), int32(1), int32(0), int64(offset), int32(50_000_000)],
  ]);
  const answer = await exchange(broker, Buffer.concat([int32(body.length), body]));
  // Size, correlation, throttling, one topic, its name, one partition, its number.
  let at = 4 + 4 + 4 + 4 + 2 + Buffer.byteLength(topic) + 4 + 4;
  const error = answer.readInt16BE(at);
  if (error !== 0) throw new Error(`The broker gives no records: error ${error}.`);
  // The error, two offsets, transactions that were aborted.
  at += 2 + 8 + 8;
  at += 4 + 16 * Math.max(0, answer.readInt32BE(at));
  return answer.subarray(at + 4, at + 4 + Math.max(0, answer.readInt32BE(at)));
}

const head = ({ api, version }: typeof PRODUCE) => [int16(api), int16(version), int32(1), text('raw')];

/** A batch as a broker keeps it. */
export function batchOf(records: readonly RawRecord[], { codec, compress }: Compression = NONE): Buffer {
  const timestamp = records[0]?.timestamp ?? BigInt(Date.now());
  const bytes = compress(Buffer.concat(records.map(recordOf)));
  const checked = Buffer.concat([
    ...[int16(codec), int32(records.length - 1), int64(timestamp), int64(timestamp)],
    ...[int64(-1n), int16(-1), int32(-1), int32(records.length), bytes],
  ]);
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32c(checked));
  const rest = Buffer.concat([int32(-1), Buffer.from([2]), sum, checked]);
  return Buffer.concat([int64(0n), int32(rest.length), rest]);
}

function recordOf({ key = null, value = null, headers = [] }: RawRecord, index: number): Buffer {
  const body = Buffer.concat([
    ...[Buffer.from([0]), varint(0), varint(index), sized(key), sized(value), varint(headers.length)],
    ...headers.flatMap(([name, header]) => [sized(name), sized(header)]),
  ]);
  return Buffer.concat([varint(body.length), body]);
}

function sized(data: Buffer | string | null): Buffer {
  if (data === null) return varint(-1);
  const bytes = Buffer.from(data);
  return Buffer.concat([varint(bytes.length), bytes]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = ((value << 1) ^ (value >> 31)) >>> 0;
  for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  return Buffer.from([...bytes, rest]);
}

export const int16 = (value: number) => written(2, (buffer) => buffer.writeInt16BE(value));
export const int32 = (value: number) => written(4, (buffer) => buffer.writeInt32BE(value));
export const int64 = (value: bigint) => written(8, (buffer) => buffer.writeBigInt64BE(value));
export const text = (value: string) => Buffer.concat([int16(Buffer.byteLength(value)), Buffer.from(value)]);

function written(size: number, write: (buffer: Buffer) => void): Buffer {
  const buffer = Buffer.alloc(size);
  write(buffer);
  return buffer;
}

/** One request, one answer. */
export function exchange(broker: string, request: Buffer): Promise<Buffer> {
  const [host, port] = broker.split(':') as [string, string];
  return new Promise((resolve, reject) => {
    let answer = Buffer.alloc(0);
    const socket = connect(Number(port), host, () => socket.write(request));
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('The broker has closed the connection.')));
    socket.on('data', (data) => {
      answer = Buffer.concat([answer, data]);
      if (answer.length < 4 || answer.length < 4 + answer.readInt32BE(0)) return;
      resolve(answer);
      socket.destroy();
    });
  });
}
