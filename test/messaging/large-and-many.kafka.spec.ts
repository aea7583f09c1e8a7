import type { KafkaMessage } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { PeopleModule } from '../../src/people/people.module.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { startMessagesHost } from '../support/messages-host.js';

const MEGABYTE = 1_000_000;

const dead: KafkaMessage[] = [];

const peer = duringTests(() => new KafkaPeer());
const app = duringTests(() =>
  startKafkaApp(peer, { PEOPLE_EVENTS: 'off', PEOPLE_MAX_DATA_BYTES: '10000000' }),
);
beforeAll(async () => {
  await peer.consume(['people.create-dlt'], (letter) => dead.push(letter));
});

const letterOf = async (messageId: string) => {
  const text =
    'SELECT seq::text, code, octet_length(value) AS bytes FROM message_dead_letter WHERE message_id = $1';
  return (await app.database.query<{ seq: string; code: string; bytes: number }>(text, [messageId]))[0];
};

describe('a message that is too large', () => {
  /** No JSON, as the string does not end. */
  const bad = (bytes: number) => `{"name":"${'x'.repeat(bytes)}`;

  // @trap a dead letter is larger than its message, a message larger than a fetch
  it.each([
    ['to be a dead letter with the headers of one', MEGABYTE + 48_250],
    ['for one fetch', 6 * MEGABYTE],
  ])('%s is put aside with all its bytes, and its partition goes on', async (_, bytes) => {
    if (bytes > 2 * MEGABYTE)
      await peer.admin.alterConfigs({
        validateOnly: false,
        resources: [
          {
            type: 2,
            name: 'people.create',
            configEntries: [{ name: 'max.message.bytes', value: '10000000' }],
          },
        ],
      });
    const messageId = randomUUID();
    const value = bad(bytes);
    await eventually(() =>
      peer.emit('people.create', { key: 'k', value, headers: { 'message-id': messageId } }).then(
        () => true,
        () => false,
      ),
    );
    const letter = await eventually(() => letterOf(messageId));
    expect(letter).toMatchObject({ code: 'INVALID_INPUT', bytes: value.length });
    const record = await eventually(() =>
      dead.find(({ headers }) => String(headers?.['people-dead-letter']) === letter.seq),
    );
    expect(record.value).toBeNull();
    expect(String(record.headers?.['kafka_dlt-exception-fqcn'])).toBe('INVALID_INPUT');
    expect((await peer.ask('people.create', '{"name":"behind"}', { key: 'k' })).error).toBeUndefined();
  });

  it('for one fetch is handled all the same', async () => {
    const text = 'x'.repeat(6 * MEGABYTE);
    await peer.emit('people.create', { key: 'k', value: JSON.stringify({ name: 'large', data: { text } }) });
    const found = await eventually(async () => (await app.people.findByName('large')).items[0], 20_000);
    expect((found.data as { text: string }).text).toHaveLength(text.length);
  });
});

describe('one bad of a thousand people', () => {
  const people = (name: string) =>
    Array.from({ length: 1000 }, (_, n) => ({ id: randomUUID(), name: n === 500 ? '' : name }));
  const stored = async (name: string) =>
    (await app.database.query('SELECT FROM people WHERE name = $1', [name])).length;

  // @trap one bad person of a thousand, in one message
  it('in one message: none is stored, the sender is told which, and is told the same again', async () => {
    const value = JSON.stringify({
      people: people('all or none').map((person, n) => (n === 500 ? { name: 5 } : person)),
    });
    const headers = { 'message-id': randomUUID() };
    const first = await peer.ask('people.create-many', value, { headers });
    expect(first.error).toMatchObject({ code: 'INVALID_INPUT', errors: [{ pointer: '#/people/500/name' }] });
    expect(await peer.ask('people.create-many', value, { headers })).toEqual(first);
    expect(await stored('all or none')).toBe(0);
  });

  // @trap one bad message of a thousand
  it('in a thousand messages: the others are stored and it is put aside, once each, also when all are sent again', async () => {
    const messages = people('each by itself').map((person, n) => ({
      key: person.id,
      value: n === 500 ? '{"name":5}' : JSON.stringify(person),
      headers: { 'message-id': person.id },
    }));
    const handled = async () =>
      (await app.database.query('SELECT FROM message_inbox WHERE message_id = ANY ($1)', [messages.map(({ key }) => key)])).length; // prettier-ignore
    for (const _time of ['first', 'again']) {
      await peer.emitAll('people.create', messages);
      await eventually(async () => (await handled()) === 1000, 20_000);
      // Behind the last of each partition.
      for (const partition of [0, 1, 2, 3])
        await peer.ask('people.create', '{"name":"behind"}', { partition });
      expect(await stored('each by itself')).toBe(999);
      expect(await letterOf(messages[500]!.key)).toMatchObject({ code: 'INVALID_INPUT' });
    }
    const letters = await app.database.query('SELECT FROM message_dead_letter WHERE message_id = $1', [messages[500]!.key]); // prettier-ignore
    expect(letters).toHaveLength(1);
  });
});

// @trap no value, where that means to delete
it('a message of people.commands without a value deletes the person that is its key, where that was chosen', async () => {
  const { app: host } = await startMessagesHost(app.database, {
    imports: [PeopleModule.forRoot({ tombstones: 'delete', controllers: { http: false, messages: true } })],
    transport: { parser: { keepBinary: true } },
  });
  const { id } = await app.people.create({ name: 'goes' });
  const { id: stays } = await app.people.create({ name: 'stays' });
  // Of the two groups only this one deletes.
  await peer.emit('people.commands', { key: id, value: null });
  await eventually(async () => (await app.people.findByName('goes')).items.length === 0, 40_000);
  expect((await app.people.get(stays)).name).toBe('stays');
  await host.close();
});
