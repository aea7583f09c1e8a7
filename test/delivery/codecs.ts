import { compressionsAlgorithms } from '@platformatic/kafka';
import { type Compression, GZIP, NONE, SNAPPY } from '../support/raw-records.js';

const MAGIC = Buffer.of(0x28, 0xb5, 0x2f, 0xfd);
/** One segment, its size in four bytes. */
const DESCRIPTOR = Buffer.of(0xa0);
const LARGEST_BLOCK = 128 * 1024;

/** A frame of Zstandard whose blocks are stored as they are: every Node can make it. */
export function zstdStored(data: Buffer): Buffer {
  const size = Buffer.alloc(4);
  size.writeUInt32LE(data.length);
  const parts: Uint8Array[] = [MAGIC, DESCRIPTOR, size];
  for (let at = 0; at === 0 || at < data.length; at += LARGEST_BLOCK) {
    const block = data.subarray(at, at + LARGEST_BLOCK);
    const isLast = at + LARGEST_BLOCK >= data.length;
    const header = Buffer.alloc(3);
    header.writeUIntLE((block.length << 3) | Number(isLast), 0, 3);
    parts.push(header, block);
  }
  return Buffer.concat(parts);
}

const LZ4: Compression = {
  codec: 3,
  compress: (records) => Buffer.from(compressionsAlgorithms.lz4.compressSync(Buffer.from(records))),
};
const ZSTD: Compression = { codec: 4, compress: zstdStored };

/** All that Kafka knows, and none. */
export const ALL_CODECS = [NONE, GZIP, SNAPPY, LZ4, ZSTD];
