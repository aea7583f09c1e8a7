import fc from 'fast-check';
import {
  deadLetterRecord,
  type DeadLetterRow,
  recordOf,
  rowValues,
  wholeRecordOf,
} from '../../src/messaging/dead-letters/letter.js';
import type { IncomingRecord, RawHeaders } from '../../src/messaging/kafka-driver.js';
import { claimCheckOf, outboxRecord, type OutboxRow } from '../../src/messaging/outbox/record.js';
import { headersByName } from '../../src/messaging/records/limits.js';

const BINARY = Buffer.from([0xff, 0xfe, 0x00, 0x80]);
const ERROR = { code: 'BAD', message: 'not for us' };
const OURS = [
  ['kafka_dlt-original-topic', 't'],
  ['kafka_dlt-original-partition', '3'],
  ['kafka_dlt-original-offset', '42'],
  ['kafka_dlt-original-timestamp', '7'],
  ['kafka_dlt-exception-fqcn', 'BAD'],
  ['kafka_dlt-exception-message', 'not for us'],
  ['people-attempts', '2'],
];
const NASTY: RawHeaders = [
  ['n', null],
  ['n', Buffer.from('1')],
  ['', Buffer.from('')],
  ['constructor', Buffer.from('c')],
  ['n', Buffer.from('2')],
  [BINARY, null],
  ['__proto__', Buffer.from('p')],
  ['n', null],
];

const recordWith = (rawHeaders: RawHeaders): IncomingRecord => ({
  ...{ topic: 't', partition: 3, offset: 42n, timestamp: '7', key: Buffer.from('k'), value: null },
  ...{ headers: headersByName(rawHeaders), rawHeaders },
});
/** The row that is stored of a record, as it is read again. */
function stored(record: IncomingRecord, headers?: unknown): DeadLetterRow {
  const message = { consumer: 'c', messageId: 'place', digest: 'd' };
  const values = rowValues({ message, record, attempts: 2 }, ERROR);
  return {
    ...{ message_id: 'place', topic: 't', partition: 3, offset: '42', timestamp: '7' },
    ...{ key: record.key, value: record.value, ...ERROR, attempts: 2 },
    headers: (headers ?? JSON.parse(values[8] as string)) as DeadLetterRow['headers'],
  };
}
const outboxRow = (type: 'dead-letter' | 'replay', dead: DeadLetterRow): OutboxRow => ({
  ...{ seq: '1', shard: 0, id: 'i', aggregatetype: type, aggregateid: 'a', type, topic: 'to', payload: null },
  ...{ created_at: new Date(0), attempts: 0, dead_letter: '77', dead, dead_key: dead.key, dead_value: dead.value },
}); // prettier-ignore

const bytes = fc.uint8Array({ maxLength: 9 }).map((array) => Buffer.from(array));
const notText = fc.constantFrom(BINARY, Buffer.of(0xc0), Buffer.of(0xed, 0xa0, 0x80));
const name = fc.oneof(fc.constantFrom('a', 'b', '', '__proto__'), fc.string({ unit: 'binary' }), notText);

it('what is stored of headers is what came: in order, with duplicates, nulls and names of any bytes', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(name, fc.option(bytes, { nil: null })), { maxLength: 9 }), (raw) => {
      const record = recordWith(raw);
      expect(recordOf(stored(record))).toEqual(record);
      expect(wholeRecordOf(stored(record))).toEqual(record);
    }),
  );
});

it('rows of versions that kept headers by name are read', () => {
  const one = (text: string) => Buffer.from(text).toString('base64');
  const row = stored(recordWith([]), [['a', one('1')], ['b', [one('2'), one('3')]], ['c', null]]); // prettier-ignore
  const { headers, rawHeaders } = recordOf(row);
  expect(rawHeaders).toEqual([['a', Buffer.from('1')], ['b', Buffer.from('2')], ['b', Buffer.from('3')], ['c', null]]); // prettier-ignore
  expect({ ...headers }).toEqual({ a: Buffer.from('1'), b: [Buffer.from('2'), Buffer.from('3')], c: undefined }); // prettier-ignore
});

it('a dead letter has the headers as they came, and ours behind them', () => {
  for (const letter of [
    deadLetterRecord(recordWith(NASTY), ERROR, 2),
    outboxRecord(outboxRow('dead-letter', stored(recordWith(NASTY)))),
  ]) {
    expect(letter.rawHeaders).toEqual([...NASTY, ...OURS]);
    // For drivers that know them by name alone.
    expect(Object.entries(letter.headers!)).toEqual(Object.entries(headersByName(letter.rawHeaders!)));
  }
});

it('a record of a driver that has headers by name alone makes the same letter', () => {
  const { rawHeaders: _left, ...byName } = recordWith([]);
  const letter = deadLetterRecord({ ...byName, headers: { a: ['1', '2'], none: undefined } }, ERROR, 2);
  expect(letter.rawHeaders).toEqual([['a', '1'], ['a', '2'], ['none', null], ...OURS]); // prettier-ignore
});

it('a dead letter of a dead letter has our headers once, and those of other tools as they were', () => {
  const first = deadLetterRecord(recordWith([['own', null]]), { code: 'FIRST', message: 'first' }, 9);
  const others: RawHeaders = [['kafka_dlt-exception-stacktrace', 'at'], ['people-dead-letter', '5']]; // prettier-ignore
  const second = deadLetterRecord(recordWith([...first.rawHeaders!, ...others]), ERROR, 2);
  expect(second.rawHeaders).toEqual([['own', null], others[0], ...OURS]);
  expect(second.headers!['people-attempts']).toBe('2');
});

it('a replayed message has the headers as they came, without those that ask for a reply, and an id', () => {
  const asking: RawHeaders = [['kafka_correlationId', BINARY], ...NASTY, ['kafka_replyTopic', 'r'], ['kafka_correlationId', null]]; // prettier-ignore
  const replayed = outboxRecord(outboxRow('replay', stored(recordWith(asking))));
  expect(replayed).toMatchObject({ topic: 'to', key: Buffer.from('k'), value: null });
  expect(replayed.rawHeaders).toEqual([...NASTY, ['message-id', 'place']]);
  expect(replayed.headers!['message-id']).toBe('place');

  const named: RawHeaders = [['message-id', Buffer.from('own')], ...NASTY];
  expect(outboxRecord(outboxRow('replay', stored(recordWith(named)))).rawHeaders).toEqual(named);
  const unnamed: RawHeaders = [['message-id', null], ['message-id', Buffer.from('')], ['a', null]]; // prettier-ignore
  expect(outboxRecord(outboxRow('replay', stored(recordWith(unnamed)))).rawHeaders).toEqual([['a', null], ['message-id', 'place']]); // prettier-ignore
});

it('in place of a letter that is too large our headers go alone, with the number of its row', () => {
  const row = outboxRow('dead-letter', stored(recordWith(NASTY)));
  const reference = claimCheckOf(outboxRecord(row), row)!;
  expect(reference.rawHeaders).toEqual([...OURS, ['people-dead-letter', '77']]);
  expect(reference).toMatchObject({ value: null, headers: Object.fromEntries(reference.rawHeaders!) });
});
