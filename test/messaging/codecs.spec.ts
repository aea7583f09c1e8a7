import { compressionsAlgorithms } from '@platformatic/kafka';
import { readFileSync } from 'node:fs';
import zlib, { gzipSync } from 'node:zlib';
import { type Codec, decompress } from '../../src/messaging/records/codecs.js';
import { readBatches } from '../../src/messaging/records/batches.js';
import { RECORD_LIMITS } from '../../src/messaging/records/limits.js';
import { ZstdThread } from '../../src/messaging/records/zstd.js';
import { randomOf } from '../support/random.js';

const MEBIBYTE = 1024 * 1024;
const NEVER_MORE = 32 * MEBIBYTE;

/** Batches that Java's client has written: `JavaBatches.java` beside them. */
const JAVA = JSON.parse(
  readFileSync(new URL('../support/java-batches/batches.json', import.meta.url), 'utf8'),
) as Record<string, { small: string; large: string }>;
/** Where the records of a batch begin. */
const RECORDS_AT = 61;

const thread = new ZstdThread();
afterAll(() => thread.close());

const native = 'zstdDecompress' in zlib;
/** What zstd is read by on this Node, and on those that have none. */
const readers: [string, typeof decompress][] = [
  ['this Node', decompress],
  ['a Node without zstd', (codec, bytes, atMost) => (codec === 'zstd' ? thread.decompress(bytes, atMost) : decompress(codec, bytes, atMost))],
]; // prettier-ignore

/** Bytes of each codec that stand for `text`. */
const made: Record<Exclude<Codec, 'zstd'>, (text: Buffer) => Buffer> = {
  gzip: (text) => gzipSync(text),
  snappy: (text) => Buffer.from(compressionsAlgorithms.snappy.compressSync(text)),
  lz4: (text) => Buffer.from(compressionsAlgorithms.lz4.compressSync(text)),
};
/** What a batch of Java's client has in it, compressed. */
const javaBytes = (name: string, size: 'small' | 'large' = 'large') =>
  Buffer.from(JAVA[name]![size], 'base64').subarray(RECORDS_AT);

const random = randomOf(12);
/** Bytes that repeat now and then, near and far. */
function textOf(length: number): Buffer {
  const text = Buffer.alloc(length);
  for (let at = 0; at < length;) {
    const size = Math.min(length - at, 1 + Math.floor(random() * 300));
    if (at > 0 && random() < 0.7) {
      const from = Math.floor(random() * at);
      for (let n = 0; n < size; n++) text[at + n] = text[from + n]!;
    } else for (let n = 0; n < size; n++) text[at + n] = Math.floor(random() * 256);
    at += size;
  }
  return text;
}

const int32LE = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};
const int32BE = (value: number) => int32LE(value).reverse();
/** A frame of LZ4 with these blocks; its checksums are none. */
const lz4Frame = (blocks: Buffer[], { flags = 0x60, contentSize = undefined as bigint | undefined, sizes = 0x40 } = {}) => {
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(contentSize ?? 0n);
  return Buffer.concat([
    ...[int32LE(0x184d2204), Buffer.of(flags | (contentSize === undefined ? 0 : 8), sizes)],
    ...[contentSize === undefined ? Buffer.alloc(0) : size, Buffer.of(0)],
    ...blocks.flatMap((block) => [int32LE(block.length), block]),
    ...[int32LE(0), flags & 4 ? Buffer.alloc(4) : Buffer.alloc(0)],
  ]);
}; // prettier-ignore
/** In the framing of snappy-java. */
const xerial = (...blocks: Buffer[]) =>
  Buffer.concat([
    ...[Buffer.from('\x82SNAPPY\0', 'latin1'), int32BE(1), int32BE(1)],
    ...blocks.flatMap((block) => [int32BE(block.length), block]),
  ]);

describe.each(readers)('compressed bytes, on %s', (_reader, read) => {
  const reading = () => ({ limits: RECORD_LIMITS, left: RECORD_LIMITS.batchBytes, decompress: read });

  it.each(Object.keys(JAVA))('batches that Java’s client has written are read: %s', async (name) => {
    for (const size of ['small', 'large'] as const) {
      const bytes = Buffer.from(JAVA[name]![size], 'base64');
      if (bytes.length === 0) continue;
      const [batch] = await readBatches(bytes, reading());
      expect(batch!.undecodable).toBeUndefined();
      expect(batch!.records.map(({ offset, key }) => [offset, String(key)])).toEqual([
        [100n, 'k0'],
        [101n, 'k1'],
        [102n, 'k2'],
      ]);
      for (const [n, { value, rawHeaders }] of batch!.records.entries()) {
        expect(value!.length).toBe(size === 'small' ? 40 : 30_000);
        expect(String(value!.subarray(0, 22))).toBe(`record ${n} line 0;record`);
        expect(rawHeaders).toEqual([
          ['n', null],
          ['n', Buffer.from(String(n))],
        ]);
      }
    }
  });

  it('what has more bytes than may be made is refused with the code that says so, whatever the codec', async () => {
    for (const codec of ['gzip', 'snappy', 'lz4'] as const) {
      const text = textOf(100_000);
      expect(await read(codec, made[codec](text), text.length)).toEqual(text);
      await expect(read(codec, made[codec](text), text.length - 1)).rejects.toMatchObject({
        code: 'ERR_BUFFER_TOO_LARGE',
      });
    }
    for (const [name] of Object.entries(JAVA).filter(([, { large }]) => large)) {
      const codec = name.split(',')[0] as Codec;
      await expect(read(codec, javaBytes(name), 90_000)).rejects.toMatchObject({ code: 'ERR_BUFFER_TOO_LARGE' });
      expect((await read(codec, javaBytes(name), 100_000)).length).toBeGreaterThan(90_000);
    }
  }); // prettier-ignore

  it.each(Object.keys(JAVA).filter((name) => name !== 'none'))(
    'bytes that end too early are no batch, and the next that is whole is read: %s',
    async (name) => {
      const codec = name.split(',')[0] as Codec;
      const whole = javaBytes(name);
      for (const length of [1, 5, 9, 20, whole.length >> 1, whole.length - 5])
        await expect(read(codec, whole.subarray(0, length), NEVER_MORE)).rejects.toThrow();
      expect((await read(codec, whole, NEVER_MORE)).length).toBeGreaterThan(90_000);
    },
  );

  it('bytes that are wrong anywhere are read to an end, within the bound', async () => {
    for (const name of Object.keys(JAVA).filter((one) => one !== 'none')) {
      const codec = name.split(',')[0] as Codec;
      for (let round = 0; round < 15; round++) {
        const bytes = Buffer.from(javaBytes(name, round % 2 ? 'small' : 'large'));
        for (let n = 0; n < 3; n++) bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
        const found = await read(codec, bytes, 200_000).catch((error: Error) => error);
        if (Buffer.isBuffer(found)) expect(found.length).toBeLessThanOrEqual(200_000);
        else expect(found).toMatchObject({ message: expect.any(String) });
      }
    }
  });
});

it('any text comes back from lz4 and snappy', async () => {
  for (const length of [1, 2, 12, 13, 64, 1000, 65_535, 65_536, 65_537, 300_000, 1_000_000]) {
    const text = textOf(length);
    for (const codec of ['snappy', 'lz4'] as const) {
      const found = await decompress(codec, made[codec](text), NEVER_MORE);
      expect(found.equals(text)).toBe(true);
    }
  }
});

describe('lz4', () => {
  const abc = Buffer.from([0x30, ...Buffer.from('abc')]);
  /** Three letters that came before it, again and again, and five of its own. */
  const looksBack = Buffer.from([0x0f, 3, 0, 0, 0x50, ...Buffer.from('there')]);

  it.each<[string, Buffer, string]>([
    ['several frames', Buffer.concat([lz4Frame([abc]), lz4Frame([abc])]), 'abcabc'],
    ['a frame that is to be passed over', Buffer.concat([int32LE(0x184d2a5f), int32LE(3), Buffer.from('xyz'), lz4Frame([abc])]), 'abc'],
    ['what is no frame behind one', Buffer.concat([lz4Frame([abc]), Buffer.from('something else')]), 'abc'],
    ['a block that looks back at the one before', lz4Frame([abc, looksBack], { flags: 0x40 }), `abc${'abc'.repeat(6)}athere`],
    ['its size', lz4Frame([abc], { contentSize: 3n }), 'abc'],
    ['a checksum of its content', Buffer.concat([lz4Frame([abc], { flags: 0x64 }), lz4Frame([abc])]), 'abcabc'],
  ])('%s: is read', async (_name, bytes, text) => {
    expect(String(await decompress('lz4', bytes, 100))).toBe(text);
  }); // prettier-ignore

  it.each<[string, Buffer]>([
    ['a block that looks back before its frame', Buffer.concat([lz4Frame([abc]), lz4Frame([looksBack])])],
    ['a distance of nothing', lz4Frame([Buffer.from([0x30, ...Buffer.from('abc'), 0, 0])])],
    ['a block that ends with a match', lz4Frame([Buffer.from([0x30, ...Buffer.from('abc'), 3, 0])])],
    ['literals that are not there', lz4Frame([Buffer.from([0xf0, 255, 255, 255])])],
    ['a size that it has not', lz4Frame([abc], { contentSize: 4n })],
    ['another version', lz4Frame([abc], { flags: 0x80 })],
    ['a dictionary', lz4Frame([abc], { flags: 0x61 })],
    ['blocks of no size', lz4Frame([abc], { sizes: 0x30 })],
    ['nothing', Buffer.alloc(0)],
  ])('%s: is refused', async (_name, bytes) => {
    await expect(decompress('lz4', bytes, 1000)).rejects.toMatchObject({ name: 'CorruptBytesError' });
  });

  it('a size of more than may be made is refused before memory is taken', async () => {
    const bomb = lz4Frame([abc], { contentSize: 2n ** 50n });
    await expect(decompress('lz4', bomb, NEVER_MORE)).rejects.toMatchObject({ code: 'ERR_BUFFER_TOO_LARGE' });
  });
});

describe('snappy', () => {
  const abc = Buffer.from([3, 2 << 2, ...Buffer.from('abc')]);

  it.each<[string, Buffer, string]>([
    ['a block alone', abc, 'abc'],
    ['several blocks in frames', xerial(abc, abc, abc), 'abcabcabc'],
    ['frames behind frames', Buffer.concat([xerial(abc), xerial(abc)]), 'abcabc'],
    ['a frame without blocks', xerial(), ''],
    ['a block that repeats itself', Buffer.from([13, 2 << 2, ...Buffer.from('abc'), (9 << 2) | 2, 3, 0]), 'abcabcabcabca'],
    ['a distance of four bytes', Buffer.from([7, 2 << 2, ...Buffer.from('abc'), (3 << 2) | 3, 3, 0, 0, 0]), 'abcabca'],
  ])('%s: is read', async (_name, bytes, text) => {
    expect(String(await decompress('snappy', bytes, 100))).toBe(text);
  }); // prettier-ignore

  it.each<[string, Buffer]>([
    ['a size of more than its bytes can stand for', Buffer.from([0xff, 0xff, 0xff, 0x7f, 0, 1])],
    ['a size that is no number', Buffer.alloc(9, 0xff)],
    ['fewer bytes than it says', Buffer.from([4, 2 << 2, ...Buffer.from('abc')])],
    ['more bytes than it says', Buffer.from([2, 2 << 2, ...Buffer.from('abc')])],
    ['a distance before its start', Buffer.from([7, 2 << 2, ...Buffer.from('abc'), (3 << 2) | 2, 4, 0])],
    ['a distance before its block', xerial(abc, Buffer.from([4, (3 << 2) | 2, 3, 0]))],
    ['a frame that is not there', Buffer.concat([xerial(abc), int32BE(77)])],
    ['a frame of a negative size', Buffer.concat([xerial(abc), int32BE(-2)])],
    ['nothing', Buffer.alloc(0)],
  ])('%s: is refused', async (_name, bytes) => {
    await expect(decompress('snappy', bytes, 1000)).rejects.toMatchObject({ name: 'CorruptBytesError' });
  });
});

it('others run while a large batch is decompressed', async () => {
  const text = Buffer.alloc(24 * MEBIBYTE, textOf(1_000_003));
  for (const codec of ['gzip', 'snappy', 'lz4'] as const) {
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    expect((await decompress(codec, made[codec](text), NEVER_MORE)).length).toBe(text.length);
    clearInterval(timer);
    expect(turns).toBeGreaterThan(0);
  }
});

it.each(['gzip', 'snappy', 'lz4', 'zstd'] as const)('no bytes at all are none of %s', async (codec) => {
  await expect(decompress(codec, Buffer.alloc(0), 100)).rejects.toThrow();
});

(native ? it : it.skip)('several frames of zstd are read, on each Node alike', async () => {
  const compress = (zlib as unknown as { zstdCompressSync: (text: string) => Buffer }).zstdCompressSync;
  const frames = Buffer.concat([compress('abc'), compress('def')]);
  for (const [, read] of readers) expect(String(await read('zstd', frames, 100))).toBe('abcdef');
});
