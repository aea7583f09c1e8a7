import { BadRequestException, Controller, type Type, UseFilters } from '@nestjs/common';
import { MessagePattern, Payload, RpcException } from '@nestjs/microservices';
import type { KafkaMessage } from 'kafkajs';
import { randomBytes, randomUUID } from 'node:crypto';
import { MessageErrorFilter } from '../../src/errors/error-responses.js';
import { KAFKA_CLIENTS } from '../../src/messaging/kafka/clients.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { broker, connectPeer } from '../support/kafka.js';
import { count, counters, createCountersDatabase, startConsumingHost } from '../support/messages-host.js';
import { GZIP, type RawRecord, sendRaw } from '../support/raw-records.js';

const KIBIBYTE = 1024;
const LONG = 900_000;
const TEXT = 'x'.repeat(LONG);
const BINARY = Buffer.from([0xff, 0xfe, 0x00, 0x80]);
const MOST_ATTEMPTS = 2;

const cyclic: Record<string, unknown> = { code: 'CYCLIC' };
cyclic.message = cyclic;
/** What a handler may throw, by the name that its message has. */
const THROWN: Record<string, () => unknown> = {
  bad: () => new BadRequestException('not for us'),
  undefined: () => undefined,
  null: () => null,
  text: () => TEXT,
  cycle: () => cyclic,
  'a number that JSON has not': () => ({ code: 1n, message: 2n }),
  'a proxy': () => new Proxy({}, { get: () => TEXT.slice(0, -1), has: () => { throw new Error('no'); } }),
  'a long error': () => new Error(TEXT),
  'a long RPC error': () => new RpcException(TEXT),
  'a long HTTP error': () => new BadRequestException(TEXT),
  'a text with NUL': () => new BadRequestException('before\0behind \ud800'),
}; // prettier-ignore

function controllerOf(topic: string, filter: Type | undefined): Type {
  @Controller()
  class Handlers {
    @MessagePattern(topic)
    @Transactional()
    async take(@Payload() value: unknown) {
      const { what, name } = Object(value) as { what?: string; name?: string };
      if (what !== 'good') throw (THROWN[what ?? 'bad'] ?? THROWN.bad!)();
      await count(name!);
      return { counted: name };
    }
  }
  if (filter) UseFilters(filter)(Handlers);
  return Handlers;
}

const bad = { key: 'bad', value: '{"what":"bad"}' };
const good = (name: string) => JSON.stringify({ what: 'good', name });
const many = (number: number, size = 1) =>
  Array.from({ length: number }, (_, n) => [`h${n}`, 'v'.repeat(size)] as const);

interface DeadRow {
  record: RawRecord;
  /** Left out: what the handler says of it. */
  code?: string;
  /** How many headers the row keeps, or that it keeps their bytes. */
  headers?: [string, string | string[] | null, string?][] | 'bytes';
  /** What the letter has in place of the value. */
  withoutValue?: true;
  attempts?: number;
}
const base64 = (text: Buffer | string) => Buffer.from(text).toString('base64');
const withHeaders = (...headers: NonNullable<RawRecord['headers']>): RawRecord => ({ ...bad, headers });
const thrown = (what: string): RawRecord => ({ key: 'bad', value: JSON.stringify({ what }) });
const asking = (headers: Record<string, Buffer | string>): RawRecord => ({
  ...{ key: 'asks', value: good('asked') },
  headers: Object.entries({ kafka_correlationId: 'c', kafka_replyTopic: 'replies', ...headers }),
});

const own = { topic: '', events: '' };
const DEAD: [string, () => DeadRow][] = [
  ...['constructor', '__proto__', 'toString', 'hasOwnProperty', 'valueOf'].map(
    (name): [string, () => DeadRow] => [
      `a header called ${name}`,
      () => ({ record: withHeaders([name, 'v']), headers: [[name, base64('v')]] }),
    ],
  ),
  ['a header called constructor twice', () => ({ record: withHeaders(['constructor', '1'], ['constructor', '2']), headers: [['constructor', [base64('1'), base64('2')]]] })],
  ['a header that is null', () => ({ record: withHeaders(['n', null]), headers: [['n', null]] })],
  ['a header twice, first null', () => ({ record: withHeaders(['n', null], ['n', '1']), headers: [['n', null], ['n', base64('1')]] })],
  ['a header twice, then null', () => ({ record: withHeaders(['n', '1'], ['n', null]), headers: [['n', base64('1')], ['n', null]] })],
  ['a header three times, one null', () => ({ record: withHeaders(['n', '1'], ['n', null], ['n', '2']), headers: [['n', base64('1')], ['n', null], ['n', base64('2')]] })],
  ['a binary header', () => ({ record: withHeaders(['b', BINARY]), headers: [['b', base64(BINARY)]] })],
  ['a header whose name is no text', () => ({ record: withHeaders([BINARY, 'v']), headers: [['��\0�', base64('v'), base64(BINARY)]] })],
  ['a header without a name', () => ({ record: withHeaders(['', 'v']), headers: [['', base64('v')]] })],
  ['a header with a name of 32 KiB', () => ({ record: withHeaders(['n'.repeat(32 * KIBIBYTE), 'v']), headers: [['n'.repeat(32 * KIBIBYTE), base64('v')]] })],
  ['a header called as one of dead letters', () => ({ record: withHeaders(['kafka_dlt-original-offset', '77']), headers: [['kafka_dlt-original-offset', base64('77')]] })],
  ['1,000 headers', () => ({ record: withHeaders(...many(1000)) })],
  ['1,001 headers', () => ({ record: withHeaders(...many(1001)), code: 'RECORD_TOO_LARGE', headers: 'bytes' })],
  ['10,000 headers', () => ({ record: withHeaders(...many(10_000)), code: 'RECORD_TOO_LARGE', headers: 'bytes' })],
  ['100,000 headers', () => ({ record: withHeaders(...many(100_000)), code: 'RECORD_TOO_LARGE', headers: 'bytes' })],
  ['100,000 times the same header', () => ({ record: withHeaders(...many(100_000).map(() => ['h', ''] as const)), code: 'RECORD_TOO_LARGE', headers: 'bytes' })],
  ['one header of 900 kB', () => ({ record: withHeaders(['h', TEXT]), code: 'RECORD_TOO_LARGE', headers: 'bytes' })],
  ['a header name of 900 kB', () => ({ record: withHeaders([TEXT, 'v']), code: 'RECORD_TOO_LARGE', headers: 'bytes' })],
  ['no key', () => ({ record: { ...bad, key: null } })],
  ['an empty key', () => ({ record: { ...bad, key: '' } })],
  ['a binary key', () => ({ record: { ...bad, key: BINARY } })],
  ['a key of 60 kB', () => ({ record: { ...bad, key: randomBytes(60_000) } })],
  ['a key of 900 kB', () => ({ record: { ...bad, key: randomBytes(LONG) }, code: 'RECORD_TOO_LARGE', headers: 'bytes' })],
  ['an empty value', () => ({ record: { ...bad, value: '' } })],
  ['no value', () => ({ record: { ...bad, value: null } })],
  ['a value of a byte order mark', () => ({ record: { ...bad, value: '\ufeff{"what":"good","name":"no"}' } })],
  ['a value that is no UTF-8', () => ({ record: { ...bad, value: BINARY } })],
  ['a value of 900 kB of [', () => ({ record: { ...bad, value: '['.repeat(LONG) } })],
  ['a value of 900 kB of digits', () => ({ record: { ...bad, value: '1'.repeat(LONG) } })],
  ['a value with NUL', () => ({ record: { ...bad, value: '{"what":"\\u0000"}' } })],
  ['a value of JSON that names the prototype', () => ({ record: { ...bad, value: '{"__proto__":{"what":"good"}}' } })],
  ['the timestamp -1', () => ({ record: { ...bad, timestamp: -1n } })],
  ['the timestamp 0', () => ({ record: { ...bad, timestamp: 0n } })],
  ['the timestamp 2^62', () => ({ record: { ...bad, timestamp: 2n ** 62n } })],
  ['a message id of 300 characters', () => ({ record: withHeaders(['message-id', 'i'.repeat(300)]) })],
  ['an empty message id', () => ({ record: withHeaders(['message-id', '']) })],
  ['a message id with NUL', () => ({ record: withHeaders(['message-id', `a\0${randomUUID()}`]) })],
  ['a binary message id', () => ({ record: withHeaders(['message-id', Buffer.concat([BINARY, randomBytes(9)])]) })],
  ['a message id of null', () => ({ record: withHeaders(['message-id', null]) })],
  ['a CloudEvents id of 60 kB', () => ({ record: withHeaders(['ce_id', randomBytes(30_000).toString('hex')]) })],
  ...Object.keys(THROWN)
    .filter((what) => what !== 'bad')
    .map((what): [string, () => DeadRow] => [
      `a handler that throws ${what}`,
      () => ({ record: thrown(what), ...(/HTTP|NUL/.test(what) ? {} : { code: 'any', attempts: MOST_ATTEMPTS }) }),
    ]),
  ['a reply topic that is this topic', () => ({ record: asking({ kafka_replyTopic: own.topic }), code: 'REPLY_TOPIC_REFUSED' })],
  ['a reply topic of events', () => ({ record: asking({ kafka_replyTopic: own.events }), code: 'REPLY_TOPIC_REFUSED' })],
  ['a reply topic of dead letters', () => ({ record: asking({ kafka_replyTopic: `${own.topic}-dlt` }), code: 'REPLY_TOPIC_REFUSED' })],
  ['a reply topic of Kafka', () => ({ record: asking({ kafka_replyTopic: '__consumer_offsets' }), code: 'REPLY_TOPIC_REFUSED' })],
  ['a reply topic of 300 characters', () => ({ record: asking({ kafka_replyTopic: 't'.repeat(300) }), code: 'REPLY_TOPIC_REFUSED' })],
  ['a reply topic with a space', () => ({ record: asking({ kafka_replyTopic: 'a b' }), code: 'REPLY_TOPIC_REFUSED' })],
  ['a reply topic of two dots', () => ({ record: asking({ kafka_replyTopic: '..' }), code: 'REPLY_TOPIC_REFUSED' })],
  ['a binary reply topic', () => ({ record: asking({ kafka_replyTopic: BINARY }), code: 'REPLY_TOPIC_REFUSED' })],
  ...['x', '1.5', '-1', '1e3', ' ', '99999999999'].map((partition): [string, () => DeadRow] => [
    `the reply partition "${partition}"`,
    () => ({ record: asking({ kafka_replyPartition: partition }), code: 'INVALID_INPUT' }),
  ]),
  ['a correlation id of 2,000 bytes', () => ({ record: asking({ kafka_correlationId: 'c'.repeat(2000) }), code: 'INVALID_INPUT' })],
  ['a correlation id of 900 kB', () => ({ record: asking({ kafka_correlationId: TEXT }), code: 'RECORD_TOO_LARGE', headers: 'bytes' })],
]; // prettier-ignore

const HANDLED: [string, RawRecord][] = [
  ...['constructor', '__proto__', 'toString'].map((name): [string, RawRecord] => [
    `a header called ${name}`,
    { headers: [[name, 'v']] },
  ]),
  ['1,000 headers', { headers: many(1000) }],
  ['a key of 60 kB', { key: randomBytes(60_000) }],
  ['a header that is null', { headers: [['n', null]] }],
  ['a message id of 300 characters', { headers: [['message-id', randomUUID().repeat(9)]] }],
  ['the timestamp -1', { timestamp: -1n }],
  ['an empty reply topic', { headers: Object.entries({ kafka_correlationId: 'c', kafka_replyTopic: '' }) }],
  ['an empty correlation id', { headers: Object.entries({ kafka_correlationId: '', kafka_replyTopic: 'x' }) }],
  ['a reply topic that is null', { headers: [['kafka_correlationId', 'c'], ['kafka_replyTopic', null]] }],
  ['a reply topic that there is not', { headers: Object.entries({ kafka_correlationId: 'c', kafka_replyTopic: randomUUID() }) }],
  ['a reply partition that there is not', { headers: Object.entries({ kafka_correlationId: 'c', kafka_replyTopic: 'replies', kafka_replyPartition: '77' }) }],
]; // prettier-ignore

describe.each(KAFKA_CLIENTS)('messages, by %s', (driver) => {
  describe.each<[string, Type | undefined]>([
    ['the filter of this package', MessageErrorFilter],
    ['Nest’s own filter', undefined],
  ])('behind %s', (_, filter) => {
    const topic = `hostile-${randomUUID()}`;
    const events = `events-${randomUUID()}`;
    const replies = `answers-${randomUUID()}`;
    /** Nest's own filter tells no more of what is not an RpcException. */
    const codeOfOthers = filter ? 'BAD_REQUEST' : 'error';
    const letters: KafkaMessage[] = [];
    const answers: KafkaMessage[] = [];

    const peer = duringTests(() => connectPeer());
    beforeAll(async () => {
      await peer.admin.createTopics({
        topics: [
          {
            topic,
            numPartitions: 1,
            configEntries: [{ name: 'message.timestamp.after.max.ms', value: String(2n ** 63n - 1n) }],
          },
        ],
      });
      await peer.createTopics([replies]);
    });
    const database = duringTests(() => createCountersDatabase());
    const host = duringTests(() =>
      startConsumingHost(database, {
        controllers: [controllerOf(topic, filter)],
        transport: { driver, maxAttempts: MOST_ATTEMPTS, eventTopics: [events] },
      }),
    );
    beforeAll(async () => {
      await peer.consume([`${topic}-dlt`], (letter) => letters.push(letter));
      await peer.consume([replies], (answer) => answers.push(answer));
      Object.assign(own, { topic, events });
    });
    beforeEach(() => void Object.assign(own, { topic, events }));

    const letterAt = async (offset: bigint) =>
      (
        await database.query<{ seq: string; code: string; message: string; key: Buffer | null; value: Buffer | null; headers: unknown; attempts: number }>(
          `SELECT seq::text, code, message, key, value, headers, attempts FROM message_dead_letter WHERE topic = $1 AND "offset" = $2`,
          [topic, String(offset)],
        )
      )[0]; // prettier-ignore
    /** Another key of the same partition goes on, and nothing else has become of the row. */
    const expectBystander = async () => {
      const name = randomUUID();
      await peer.emit(topic, { key: 'bystander', value: good(name) });
      await eventually(async () => (await counters(database))[name] === 1);
      expect(host.transport.unavailableReason).toBeUndefined();
    };
    // Jest compares large buffers byte by byte.
    const isSame = (found: Buffer | null, sent: Buffer | string | null | undefined) =>
      found === null ? sent === null : found.equals(Buffer.from(sent!));

    // @trap hostile headers, keys, values, ids, reply topics, errors
    it.each(DEAD)('%s: a dead letter with its bytes', async (_name, rowOf) => {
      const row = rowOf();
      const before = (await counters(database)).asked;
      const offset = await sendRaw(broker(), topic, [row.record]);
      await expectBystander();
      const found = await eventually(() => letterAt(offset));
      if (row.code !== 'any') expect(found.code).toBe(row.code ?? codeOfOthers);
      expect(found.attempts).toBe(row.attempts ?? 1);
      expect(found.message.length).toBeLessThanOrEqual(1000);
      expect(isSame(found.key, row.record.key)).toBe(true);
      expect(isSame(found.value, row.record.value)).toBe(true);
      if (row.headers === 'bytes') expect(found.headers).toMatchObject({ unread: 'RECORD_TOO_LARGE' });
      else if (row.headers) expect(found.headers).toEqual(row.headers);
      const letter = await eventually(() =>
        letters.find(({ headers }) => String(headers!['kafka_dlt-original-offset']) === String(offset)),
      );
      expect(isSame(letter.value, row.record.value)).toBe(true);
      expect(String(letter.headers!['kafka_dlt-exception-fqcn'])).toBe(found.code);
      if (row.headers === 'bytes') expect(String(letter.headers!['people-dead-letter'])).toBe(found.seq);
      expect((await counters(database)).asked).toBe(before);
    });

    it.each(HANDLED)('%s: handled as any other', async (_name, record) => {
      const name = randomUUID();
      const headers = record.headers?.map(
        ([header, value]) => [header, value === 'replies' ? replies : value] as const,
      );
      await sendRaw(broker(), topic, [
        { key: 'k', value: good(name), ...record, ...(headers && { headers }) },
      ]);
      await expectBystander();
      await eventually(async () => (await counters(database))[name] === 1);
    });

    it.each([
      ['text', 'c-1'],
      ['binary', BINARY],
      ['as if it were JSON', '{"a":1}'],
    ])('a correlation id that is %s: comes back as it was', async (_name, id) => {
      const name = randomUUID();
      const headers = [['kafka_correlationId', id], ['kafka_replyTopic', replies]] as const; // prettier-ignore
      await sendRaw(broker(), topic, [{ key: 'k', value: good(name), headers }]);
      const answer = await eventually(() => answers.find(({ value }) => String(value).includes(name)));
      expect(answer.headers!.kafka_correlationId).toEqual(Buffer.from(id));
    });

    it.each(Object.keys(THROWN).filter((what) => what !== 'bad'))(
      'a handler that throws %s: the sender who waits gets an error',
      async (what) => {
        const id = randomUUID();
        const headers = [['kafka_correlationId', id], ['kafka_replyTopic', replies]] as const; // prettier-ignore
        await sendRaw(broker(), topic, [{ ...thrown(what), headers }]);
        await expectBystander();
        const answer = await eventually(() =>
          answers.find(({ headers: found }) => String(found!.kafka_correlationId) === id),
        );
        expect(answer.headers!['kafka_nest-err']!.length).toBeGreaterThan(0);
        expect(answer.headers!['kafka_nest-err']!.length).toBeLessThan(20 * KIBIBYTE);
      },
    );

    it('a batch that grows a thousandfold: one dead letter for all of it', async () => {
      const zeros = Buffer.alloc(40_000_000);
      const records = [{ key: 'bomb', value: zeros }];
      await peer.admin.alterConfigs({
        validateOnly: false,
        resources: [{ type: 2, name: topic, configEntries: [{ name: 'max.message.bytes', value: '50000000' }, { name: 'message.timestamp.after.max.ms', value: String(2n ** 63n - 1n) }] }],
      }); // prettier-ignore
      const offset = await eventually(() =>
        sendRaw(broker(), topic, records, GZIP).then(
          (at) => ({ at }),
          () => undefined,
        ),
      );
      await expectBystander();
      expect((await eventually(() => letterAt(offset.at))).code).toBe('RECORD_TOO_LARGE');
    });
  });
});
