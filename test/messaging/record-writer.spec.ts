import { crc32c as crc32cOfAnother } from '@platformatic/kafka';
import fc from 'fast-check';
import { crc32c } from '../../src/messaging/records/crc32c.js';
import { readBatches } from '../../src/messaging/records/batches.js';
import { RECORD_LIMITS } from '../../src/messaging/records/limits.js';
import { encodeBatch, type RecordToWrite } from '../../src/messaging/records/writer.js';

const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));
const text = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('constructor', '__proto__', ''));
const part = fc.oneof(bytes, text);
const nullable = fc.option(part, { nil: null });
const record: fc.Arbitrary<RecordToWrite> = fc.record(
  {
    key: nullable,
    value: nullable,
    headers: fc.array(fc.tuple(part, nullable), { maxLength: 5 }),
    timestamp: fc.bigInt({ min: 0n, max: 2n ** 62n }),
  },
  { requiredKeys: ['key', 'value'] },
);
const reading = () => ({
  limits: RECORD_LIMITS,
  left: RECORD_LIMITS.batchBytes,
  decompress: () => {
    throw new Error('none');
  },
});
const asBytes = (data: Buffer | string | null) => (data === null ? null : Buffer.from(data));

it('what is written is what is read', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(record, { minLength: 1, maxLength: 80 }), async (records) => {
      const written = encodeBatch(records);
      const batches = await readBatches(written, reading());
      expect(batches).toHaveLength(1);
      expect(batches[0]).toMatchObject({
        ...{ lastOffset: BigInt(records.length - 1), producerId: -1n },
        ...{ isTransactional: false, isControl: false },
      });
      expect(batches[0]!.records.map(({ key, value, offset }) => ({ key, value, offset }))).toEqual(
        records.map(({ key, value }, n) => ({ key: asBytes(key), value: asBytes(value), offset: BigInt(n) })),
      );
      for (const [n, { timestamp }] of records.entries())
        if (timestamp !== undefined) expect(batches[0]!.records[n]!.timestamp).toBe(String(timestamp));
      expect(written.readUInt32BE(17)).toBe(crc32cOfAnother(written.subarray(21)));
    }),
  );
});

it('the checksum is the one that CRC-32C is known by', () => {
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
  expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa);
  expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8ab43);
  expect(crc32c(Buffer.alloc(0))).toBe(0);
});
