import { randomBytes, randomUUID } from 'node:crypto';
import { readBatches } from '../../src/messaging/records/batches.js';
import { RECORD_LIMITS } from '../../src/messaging/records/limits.js';
import { encodeBatch, type RecordToWrite } from '../../src/messaging/records/writer.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { broker, connectPeer } from '../support/kafka.js';
import { fetchRaw, sendBatch } from '../support/raw-records.js';

const peer = duringTests(() => connectPeer());

it('a broker takes what is written, checks it, and gives it as it was', async () => {
  const topic = `written-${randomUUID()}`;
  await peer.createTopics([topic]);
  const records: RecordToWrite[] = [
    { key: null, value: null },
    { key: '', value: '' },
    { key: 'k', value: randomBytes(300_000), headers: [['a', null], ['a', Buffer.from('1')], ['', Buffer.alloc(0)]] },
    { key: randomBytes(300), value: 'v', headers: [[Buffer.from([0xff, 0]), randomBytes(9)], ['__proto__', null]] },
    ...Array.from({ length: 200 }, (_, n) => ({ key: `k${n}`, value: `v${n}`, headers: [['n', String(n)]] as const })),
  ]; // prettier-ignore
  expect(await sendBatch(broker(), topic, encodeBatch(records))).toBe(0n);
  expect(await sendBatch(broker(), topic, encodeBatch(records.slice(0, 1)))).toBe(BigInt(records.length));

  const reading = { limits: RECORD_LIMITS, left: RECORD_LIMITS.batchBytes, decompress: () => Promise.reject(new Error('none')) }; // prettier-ignore
  const [first, second] = await readBatches(await fetchRaw(broker(), topic), reading);
  expect(second!.records).toHaveLength(1);
  const asBytes = (data: Buffer | string | null) => (data === null ? null : Buffer.from(data));
  const isUtf8Name = (name: Buffer | string) => (typeof name === 'string' ? name : Buffer.from(name));
  for (const [n, { key, value, headers = [] }] of records.entries()) {
    const found = first!.records[n]!;
    expect(found.key).toEqual(asBytes(key));
    expect(asBytes(value)?.equals(found.value!) ?? found.value === null).toBe(true);
    expect(found.rawHeaders).toEqual(headers.map(([name, header]) => [isUtf8Name(name), asBytes(header)]));
  }
});

it('another client reads it', async () => {
  const topic = `written-${randomUUID()}`;
  await peer.createTopics([topic]);
  await sendBatch(broker(), topic, encodeBatch([{ key: 'k', value: 'v', headers: [['h', '1'], ['h', '2']] }])); // prettier-ignore
  const found: unknown[] = [];
  await peer.consume([topic], ({ key, value, headers }) => found.push([String(key), String(value), headers]));
  await eventually(() => found.length > 0);
  expect(found).toEqual([['k', 'v', { h: [Buffer.from('1'), Buffer.from('2')] }]]);
});
