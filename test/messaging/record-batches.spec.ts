import { jest } from '@jest/globals';
import fc from 'fast-check';
import { Partitioners } from 'kafkajs';
import { partitionOfKey } from '../../src/messaging/key-partition.js';
import type { IncomingRecord } from '../../src/messaging/kafka-driver.js';
import { jsonAtMost, plainText } from '../../src/messaging/plain-text.js';
import { readBatches } from '../../src/messaging/record-batches.js';
import { RECORD_LIMITS, withinLimits } from '../../src/messaging/record-limits.js';
import { headersOf, RecordReader } from '../../src/messaging/record-reader.js';
import { batchOf, GZIP, type RawRecord } from '../support/raw-records.js';

const bytes = fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array));
const nullable = fc.option(bytes, { nil: null });
const name = fc.oneof(fc.string(), fc.constantFrom('constructor', '__proto__', 'toString', ''));
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
