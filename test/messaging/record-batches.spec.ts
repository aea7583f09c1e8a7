import { jest } from '@jest/globals';
import { isUtf8 } from 'node:buffer';
import fc from 'fast-check';
import { Partitioners } from 'kafkajs';
import { partitionOfKey } from '../../src/messaging/kafka/protocol/key-partition.js';
import type { IncomingRecord } from '../../src/messaging/kafka-driver.js';
import { jsonAtMost, plainText } from '../../src/errors/plain-text.js';
import { readBatches, UndecodableBatchError } from '../../src/messaging/records/batches.js';
import { RECORD_LIMITS, withinLimits } from '../../src/messaging/records/limits.js';
import { headersOf, rawHeadersIn, RecordReader } from '../../src/messaging/records/reader.js';
import { batchOf, GZIP, LZ4, type RawRecord } from '../support/raw-records.js';

const bytes = fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array));
const nullable = fc.option(bytes, { nil: null });
const name = fc.oneof(fc.string(), bytes, fc.constantFrom('constructor', '__proto__', 'toString', ''));
/** A name that is text as that text, any other as its bytes; values as bytes. */
const asTheyCome = ([header, value]: NonNullable<RawRecord['headers']>[number]) => [
  Buffer.isBuffer(header) && isUtf8(header) ? String(header) : header,
  value === null ? null : Buffer.from(value),
];
const record: fc.Arbitrary<RawRecord> = fc.record({
  key: nullable,
  value: nullable,
  headers: fc.array(fc.tuple(name, nullable), { maxLength: 8 }),
});
const reading = () => ({
  limits: RECORD_LIMITS,
  left: RECORD_LIMITS.batchBytes,
  decompress: () => {
    throw new Error('none');
  },
});

it('records are read as they were sent, whatever they are', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(record, { minLength: 1, maxLength: 9 }),
      fc.boolean(),
      async (records, zipped) => {
        const [batch] = await readBatches(batchOf(records, zipped ? GZIP : undefined), reading());
        expect(batch!.records.map(({ key, value }) => ({ key, value }))).toEqual(
          records.map(({ key, value }) => ({ key, value })),
        );
        for (const [index, { headers }] of batch!.records.entries()) {
          const sent = new Map<string, Buffer[]>();
          for (const [header, value] of records[index]!.headers!)
          sent.set(String(header), [...(sent.get(String(header)) ?? []), ...(value === null ? [] : [Buffer.from(value)])]); // prettier-ignore
          expect(Object.getPrototypeOf(headers)).toBeNull();
          expect(batch!.records[index]!.rawHeaders).toEqual(records[index]!.headers!.map(asTheyCome));
          expect(new Map(Object.entries(headers).map(([own, value]) => [own, [value ?? []].flat()]))).toEqual(
            sent,
          );
        }
      },
    ),
  );
});

it('bytes that are no batch are read to an end, as one record or none', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), fc.nat(200), async (noise, at) => {
      const batch = batchOf([{ key: 'k', value: 'v', headers: [['h', 'v']] }]);
      Buffer.from(noise).copy(batch, 17 + (at % (batch.length - 17)));
      const read = await readBatches(batch, reading());
      expect(read.length).toBeLessThanOrEqual(1);
      const [first] = read;
      if (first) expect(first.records.length).toBeLessThanOrEqual(batch.length);
    }),
  );
});

it('the work of reading grows with the bytes: a header is read once, however many there are', async () => {
  const reads = async (headers: number) => {
    const counted = jest.spyOn(RecordReader.prototype, 'varint');
    const limits = { ...RECORD_LIMITS, headers: Infinity, headerBytes: Infinity };
    const pairs = Array.from({ length: headers }, (_, n) => [`h${n}`, 'v'] as const);
    await readBatches(batchOf([{ headers: pairs }]), { ...reading(), limits });
    const { length } = counted.mock.calls;
    counted.mockRestore();
    return length;
  };
  expect((await reads(20_000)) / (await reads(10_000))).toBeCloseTo(2, 1);
});

it('of a record past a limit the headers are kept as bytes, and can be read later', async () => {
  const headers = Array.from({ length: 1001 }, (_, n) => [`h${n}`, 'v'] as const);
  const [batch] = await readBatches(batchOf([{ key: 'k', headers }, { key: 'next' }]), reading());
  const [unread, next] = batch!.records;
  expect(unread!.unread).toMatchObject({
    code: 'RECORD_TOO_LARGE',
    reason: 'The record has 1001 headers (at most 1000)',
  });
  expect(Object.keys(unread!.headers)).toEqual([]);
  expect(Object.keys(headersOf(unread!.unread!.headers!))).toHaveLength(1001);
  expect(rawHeadersIn(unread!.unread!.headers!)).toEqual(headers.map(asTheyCome));
  expect(next).toMatchObject({ key: Buffer.from('next') });
  expect(next!.unread).toBeUndefined();
});

it('batches of a fetch that grow past what it may be decompressed to are left for the next one', async () => {
  const one = batchOf([{ value: Buffer.alloc(1000) }], GZIP);
  const limited = { ...reading(), limits: { ...RECORD_LIMITS, batchBytes: 2500 }, left: 2500 };
  expect(await readBatches(Buffer.concat([one, one, one]), limited)).toHaveLength(2);
  const [large] = await readBatches(batchOf([{ value: Buffer.alloc(9000) }], GZIP), {
    ...limited,
    left: 2500,
  });
  expect(large!.records[0]!.unread).toMatchObject({ code: 'RECORD_TOO_LARGE' });
});

describe('a batch that can not be read', () => {
  const good = batchOf([{ key: 'good', value: 'v' }]);
  /** A batch at another offset. */
  const at = (offset: bigint, batch: Buffer) => {
    const moved = Buffer.from(batch);
    moved.writeBigInt64BE(offset);
    return moved;
  };
  const changed = (batch: Buffer, change: (bytes: Buffer) => void) => {
    const bytes = Buffer.from(batch);
    change(bytes);
    return bytes;
  };
  const two = (compression = GZIP) => batchOf([{ key: 'a' }, { key: 'b' }], compression);
  const ATTRIBUTES_AT = 21;
  const COUNT_AT = 57;

  it.each<[string, Buffer, string]>([
    ['a codec that nobody knows', changed(good, (bytes) => bytes.writeInt16BE(7, ATTRIBUTES_AT)), 'A batch of 1 records from offset 7 on can\'t be read: It is compressed in a way that is not known'],
    ['no gzip', changed(two(), (bytes) => bytes.fill(0, 61)), 'A batch of 2 records from offset 7 on, compressed by gzip, can\'t be read: incorrect header check'],
    ['a codec that this client has not', two(LZ4), 'A batch of 2 records from offset 7 on, compressed by lz4, can\'t be read: none'],
    ['fewer records than it says', changed(good, (bytes) => bytes.writeInt32BE(9, COUNT_AT)), 'A batch of 9 records from offset 7 on can\'t be read: It ends before it should'],
    ['the format of another time', changed(good, (bytes) => bytes.writeInt8(1, 16)), 'A batch from offset 7 on can\'t be read: It is in no format of Kafka 0.11 or later'],
    ['no room for its head', changed(good, (bytes) => bytes.writeInt32BE(11, 8)), 'A batch from offset 7 on can\'t be read: It ends before it should'],
    ['a negative size', changed(good, (bytes) => bytes.writeInt32BE(-100, 8)), 'A batch from offset 7 on can\'t be read: It ends before it should'],
  ])('%s: is the last that is handed over, and nothing of it or behind it is', async (_name, bad, message) => {
    const read = await readBatches(Buffer.concat([at(6n, good), at(7n, bad), at(8n, good)]), reading());
    expect(read).toHaveLength(2);
    expect(read[0]!.records).toMatchObject([{ offset: 6n, key: Buffer.from('good') }]);
    expect(read[0]!.undecodable).toBeUndefined();
    expect(read[1]!.records).toEqual([]);
    expect(read[1]!.undecodable).toBeInstanceOf(UndecodableBatchError);
    expect(read[1]!.undecodable!.offset).toBe(7n);
    expect(read[1]!.undecodable!.message).toContain(message);
    expect(read[1]!.undecodable!.message).toContain('kafka-consumer-groups --reset-offsets');
  }); // prettier-ignore
});

it('a key has the partition that kafkajs gives it, and one of 900 kB is hashed in as many steps as it has words', () => {
  const partitioner = Partitioners.DefaultPartitioner();
  const partitionMetadata = Array.from(
    { length: 12 },
    (_, partitionId) => ({ partitionId, leader: 1 }) as never,
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (array) => {
      const key = Buffer.from(array);
      const expected = partitioner({ topic: 't', partitionMetadata, message: { key, value: null } });
      expect(partitionOfKey(key, 12)).toBe(expected);
    }),
  );
  const words = jest.spyOn(Math, 'imul');
  partitionOfKey(Buffer.alloc(900_000), 12);
  const { length } = words.mock.calls;
  words.mockRestore();
  expect(length).toBeLessThan(3 * 225_000 + 5);
});

it('what a driver of a host hands over has own headers of bytes or text alone', () => {
  const inherited = Object.create({ inherited: 'no' }) as IncomingRecord['headers'];
  inherited.constructor = [Object, Buffer.from('v')] as never;
  inherited.kept = 'text';
  const given = {
    topic: 't',
    partition: 0,
    offset: 1n,
    timestamp: '1',
    key: null,
    value: null,
    headers: inherited,
  };
  const { headers } = withinLimits(given, RECORD_LIMITS);
  expect(Object.entries(headers)).toEqual([['constructor', Buffer.from('v')], ['kept', 'text']]); // prettier-ignore
  const many = Object.fromEntries(Array.from({ length: 1001 }, (_, n) => [`h${n}`, 'v']));
  expect(withinLimits({ ...given, headers: many }, RECORD_LIMITS).unread?.code).toBe('RECORD_TOO_LARGE');
});

it('the headers of a driver of a host are kept as it gives them: by their order where it has one', () => {
  const place = { topic: 't', partition: 0, offset: 1n, timestamp: '1', key: null, value: null };
  const rawHeaders = [['n', null], ['a', 'x'], ['n', Buffer.from('1')], [Buffer.of(0xff), null]] as const; // prettier-ignore
  const kept = withinLimits({ ...place, headers: {}, rawHeaders }, RECORD_LIMITS);
  expect(kept.rawHeaders).toEqual(rawHeaders);
  expect({ ...kept.headers }).toEqual({ n: Buffer.from('1'), a: 'x', '\ufffd': undefined });
  const byName = withinLimits({ ...place, headers: { n: ['1', '2'], none: undefined } }, RECORD_LIMITS);
  expect(byName.rawHeaders).toEqual([['n', '1'], ['n', '2'], ['none', null]]); // prettier-ignore
  const many = Array.from({ length: 1001 }, () => ['h', null] as const);
  const past = withinLimits({ ...place, headers: {}, rawHeaders: many }, RECORD_LIMITS);
  expect(past).toMatchObject({ rawHeaders: [], unread: { code: 'RECORD_TOO_LARGE' } });
});

it('any value is text that can be told and stored, cut where it is long', () => {
  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  fc.assert(
    fc.property(fc.anything({ withBigInt: true, withNullPrototype: true }), (value) => {
      const text = plainText(value);
      expect(text.length).toBeLessThanOrEqual(200);
      expect(text).not.toContain('\0');
      expect(text).toBe(Buffer.from(text).toString());
    }),
  );
  for (const value of [
    cycle,
    '😀'.repeat(200),
    'x'.repeat(900_000),
    {
      toJSON: () => {
        throw new Error('no');
      },
    },
  ])
    // prettier-ignore
    expect(plainText(value).length).toBeLessThanOrEqual(200);
  expect(jsonAtMost(cycle, 100)).toBeUndefined();
});
