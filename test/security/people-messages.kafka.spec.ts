import { randomBytes, randomUUID } from 'node:crypto';
import { KAFKA_CLIENTS } from '../../src/messaging/kafka/clients.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { broker, KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { type RawRecord, sendRaw } from '../support/raw-records.js';

const LONG = 900_000;
const person = JSON.stringify({ name: 'hostile' });
const command = (operation: Buffer | string | null): RawRecord => ({
  value: person,
  headers: [['people-operation', operation]],
});
const asking = (to: string): RawRecord => ({
  value: person,
  headers: Object.entries({ kafka_correlationId: 'c', kafka_replyTopic: to }),
});

/** What is sent where, and the code of its dead letter. */
const ROWS: [string, 'people.create' | 'people.commands', string, RawRecord][] = [
  ['no value', 'people.create', 'INVALID_INPUT', { value: null }],
  ['an empty value', 'people.create', 'INVALID_INPUT', { value: '' }],
  ['no UTF-8', 'people.create', 'INVALID_INPUT', { value: Buffer.concat([Buffer.from('{"name":"'), Buffer.from([0xff]), Buffer.from('"}')]) }],
  ['900 kB of [', 'people.create', 'INVALID_INPUT', { value: '['.repeat(LONG) }],
  ['900 kB of digits', 'people.create', 'INVALID_INPUT', { value: '1'.repeat(LONG) }],
  ['noise', 'people.create', 'INVALID_INPUT', { value: randomBytes(1000) }],
  ['a name with NUL', 'people.create', 'INVALID_INPUT', { value: '{"name":"a\\u0000b"}' }],
  ['a key of the prototype alone', 'people.create', 'INVALID_INPUT', { value: '{"__proto__":{"name":"hostile"}}' }],
  ['an operation called constructor', 'people.commands', 'INVALID_INPUT', command('constructor')],
  ['an operation called __proto__', 'people.commands', 'INVALID_INPUT', command('__proto__')],
  ['an operation of 60 kB', 'people.commands', 'INVALID_INPUT', command('o'.repeat(60_000))],
  ['an operation that is null', 'people.commands', 'INVALID_INPUT', command(null)],
  ['an operation that is binary', 'people.commands', 'INVALID_INPUT', command(Buffer.from([0, 255]))],
  ['an operation that is JSON', 'people.commands', 'INVALID_INPUT', command('["create"]')],
  ['two operations', 'people.commands', 'INVALID_INPUT', { value: person, headers: [['people-operation', 'create'], ['people-operation', 'delete']] }],
  ['a header called constructor and a bad value', 'people.create', 'INVALID_INPUT', { value: '{"name":5}', headers: [['constructor', 'v']] }],
  ['10,000 headers', 'people.create', 'RECORD_TOO_LARGE', { value: person, headers: Array.from({ length: 10_000 }, (_, n) => [`h${n}`, 'v'] as const) }],
  ['a key of 900 kB', 'people.create', 'RECORD_TOO_LARGE', { key: randomBytes(LONG), value: person }],
  ['a reply as a forged event', 'people.create', 'REPLY_TOPIC_REFUSED', asking('people.events')],
  ['a reply as a command', 'people.create', 'REPLY_TOPIC_REFUSED', asking('people.delete')],
  ['a reply as a command of the one topic', 'people.commands', 'REPLY_TOPIC_REFUSED', asking('people.commands')],
  ['a reply as a dead letter', 'people.create', 'REPLY_TOPIC_REFUSED', asking('people.create-dlt')],
  ['a reply as an offset', 'people.create', 'REPLY_TOPIC_REFUSED', asking('__consumer_offsets')],
]; // prettier-ignore

describe.each(KAFKA_CLIENTS)('messages of people, by %s', (client) => {
  const peer = duringTests(() => new KafkaPeer());
  const app = duringTests(() => startKafkaApp(peer, { KAFKA_CLIENT: client }), 60_000);

  it.each(ROWS)('%s on %s: a dead letter %s, nobody is stored, and the next is handled', async (...row) => {
    const [, topic, code, record] = row;
    const offset = await sendRaw(broker(), topic, [record]);
    const name = `bystander ${randomUUID()}`;
    const beside = await peer.ask('people.create', JSON.stringify({ name }), { key: 'other', partition: 0 });
    expect(beside.error).toBeUndefined();
    const [letter] = await eventually(async () => {
      const found = await app.database.query<{ code: string; message: string }>(
        'SELECT code, message FROM message_dead_letter WHERE topic = $1 AND partition = 0 AND "offset" = $2',
        [topic, String(offset)],
      );
      return found.length > 0 ? found : undefined;
    });
    expect(letter!.code).toBe(code);
    expect(letter!.message.length).toBeLessThanOrEqual(1000);
    // Its letter has left for its topic.
    await eventually(async () => (await app.database.query('SELECT FROM message_outbox')).length === 0);
    expect((await app.people.findByName('hostile')).items).toEqual([]);
    expect((await app.request('/health/ready')).status).toBe(200);
  });

  it('a person that has grown past what a record may have: the event refers to it, and those behind it follow', async () => {
    const { id } = await app.people.create({ name: 'grows' });
    // As large as may be stored: with what an event has beside it, more than a broker takes.
    await app.people.update(id, { data: { text: 'x'.repeat(1_048_560) } });
    await app.people.update(id, { data: null });
    await eventually(
      async () => (await app.database.query('SELECT FROM message_outbox')).length === 0,
      20_000,
    );
  });
});
