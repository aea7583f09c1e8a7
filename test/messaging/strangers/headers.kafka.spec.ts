import { jest } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { eventually } from '../../support/barrier.js';
import { duringTests } from '../../support/during-tests.js';
import { broker, connectPeer } from '../../support/kafka.js';
import { type KeptRecord, readRaw } from '../../support/raw-reader.js';
import { type RawRecord, sendRaw } from '../../support/raw-records.js';
import {
  answeredInTime,
  BAD,
  EACH_SUBJECT,
  PARTITIONS,
  ROW_MS,
  Subject,
  valueOf,
} from '../../support/strangers.js';

type Headers = NonNullable<RawRecord['headers']>;

/** Kafka takes them all (KIP-82): a list of pairs, of whatever bytes, a value may be null. */
const NASTY: [string, Headers][] = [
  ['twice', [['trace', '1'], ['other', 'x'], ['trace', '2'], ['trace', '1']]],
  ['twice, once null', [['trace', null], ['trace', '1']]],
  ['null', [['trace', null]]],
  ['an empty name', [['', 'nameless'], ['', null]]],
  ['constructor', [['constructor', 'x'], ['toString', null], ['hasOwnProperty', 'y']]],
  ['__proto__', [['__proto__', 'x'], ['__proto__', 'y'], ['prototype', null]]],
  ['a name that is no UTF-8', [[Buffer.of(0xff, 0xfe, 0x41), Buffer.of(0x80, 0)], [Buffer.of(0xff), null]]],
  ['an empty value', [['trace', ''], ['trace', Buffer.alloc(0)]]],
]; // prettier-ignore

const ROWS = EACH_SUBJECT.flatMap(([client, kind]) =>
  NASTY.map(([what, headers]) => ({ client, kind, what, headers })),
);

let subject: Subject;
jest.setTimeout(ROW_MS);
const peer = duringTests(() => connectPeer());
afterEach(() => subject.close());

/** What was there before whoever put the record aside had written beside it what was wrong. */
const asTheyCame = ({ headers }: KeptRecord) =>
  headers
    .filter(([name]) => !/^(kafka_dlt-|people-attempts$)/.test(name.toString('latin1')))
    .map(([name, value]) => [name.toString('hex'), value?.toString('hex') ?? null]);
const expected = (headers: Headers) =>
  headers.map(([name, value]) => [
    Buffer.from(name).toString('hex'),
    value === null ? null : Buffer.from(value).toString('hex'),
  ]);

async function allOf(topic: string): Promise<KeptRecord[]> {
  const kept: KeptRecord[] = [];
  for (let partition = 0; partition < PARTITIONS; partition++)
    kept.push(...(await readRaw(broker(), topic, partition)));
  return kept;
}

it.each(ROWS)(
  '$client, $kind: a message with a header that is $what is handled, or put aside with its headers as they came',
  async ({ client, kind, headers }) => {
    subject = await Subject.start({ client, kind, peer });
    const { id, reply } = peer.awaitReply();
    const address: Headers = [['kafka_correlationId', id], ['kafka_replyTopic', peer.replyTopic]]; // prettier-ignore
    const good = `good-${randomUUID()}`;
    await sendRaw(broker(), subject.struck, [
      { key: 'good', value: valueOf(good), headers: [...headers, ...address] },
      { key: 'bad', value: BAD, headers },
    ]);
    expect((await answeredInTime(reply, 'the request with the header')).error).toBeUndefined();
    expect(await subject.handled()).toContain(good);

    const [dead] = await eventually(async () => {
      const found = await allOf(`${subject.struck}-dlt`);
      return found.length > 0 && found;
    });
    expect(asTheyCame(dead!)).toEqual(expected(headers));
    await subject.bystanderIsAnswered();
    for (let partition = 0; partition < PARTITIONS; partition++)
      await subject.ask(`next in ${partition}`, { partition });

    // What was sent on is sent with them once more.
    expect(await subject.store.deadLetters.replay({})).toBe(1);
    const again = await eventually(async () => {
      const found = (await allOf(subject.struck)).filter(({ value }) => value?.toString() === BAD);
      return found.length === 2 && found[1];
    });
    expect(asTheyCame(again).slice(0, headers.length)).toEqual(expected(headers));

    await subject.stop();
    await subject.startAgain();
    await subject.bystanderIsAnswered();
    expect((await subject.ask('after a restart', { partition: 0 })).error).toBeUndefined();
    expect(await subject.reason()).toBe('');
  },
);
