import { promisify } from 'node:util';
import { gunzip as gunzipWithCallback } from 'node:zlib';
import { unlz4 } from './lz4.js';
import { unsnappy } from './snappy.js';
import { unzstd } from './zstd.js';

/** How a batch may be compressed. */
export type Codec = 'gzip' | 'snappy' | 'lz4' | 'zstd';

type Decompress = (bytes: Buffer, atMost: number) => Promise<Buffer>;

const gunzip = promisify(gunzipWithCallback);

const DECOMPRESS: Readonly<Record<Codec, Decompress>> = {
  gzip: (bytes, atMost) => gunzip(bytes, { maxOutputLength: atMost }),
  snappy: unsnappy,
  lz4: unlz4,
  zstd: unzstd,
};

/**
 * Decompresses what a client of Kafka has compressed, by the same code with every client library and on every Node. No more than `atMost`
 * bytes are made, and others are let run meanwhile.
 *
 * @param atMost 1 or more
 * @throws Error it has more than `atMost` bytes (code `ERR_BUFFER_TOO_LARGE`), or is not what the codec makes
 */
export const decompress = (codec: Codec, bytes: Buffer, atMost: number): Promise<Buffer> =>
  DECOMPRESS[codec](bytes, atMost);
