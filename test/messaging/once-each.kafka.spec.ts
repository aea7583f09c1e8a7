import type { KafkaMessage } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { DeadLetters } from '../../src/messaging/dead-letters.js';
import { eventually } from '../support/barrier.js';
import { KAFKA_CLIENTS } from '../../src/messaging/kafka/clients.js';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';

type Received = KafkaMessage & { topic: string; partition: number };

describe.each(KAFKA_CLIENTS)('with %s', (client) => {
  const events: Received[] = [];
  const dead: Received[] = [];

  const peer = duringTests(() => new KafkaPeer());
  const app = duringTests(() => startKafkaApp(peer, { KAFKA_CLIENT: client }));
  beforeAll(async () => {
    await peer.consume(['people.events'], (event) => events.push(event));
    await peer.consume(['people.create-dlt', 'people.update-dlt', 'people.commands-dlt'], (letter) =>
      dead.push(letter),
    );
  });

  const eventsOf = (id: string) => events.filter(({ key }) => String(key) === id);
  const typesOf = (id: string) => eventsOf(id).map(({ headers }) => String(headers?.ce_type));
  const deadWith = (id: string) => dead.filter(({ headers }) => String(headers?.['message-id']) === id);
  const command = (id: string, operation: string, body: object, headers = {}) =>
    peer.emit('people.commands', {
      key: id,
      value: JSON.stringify({ id, ...body }),
      headers: { 'people-operation': operation, ...headers },
    });

  describe('a message that is delivered again', () => {
    // @trap a request is asked again after its reply was lost
    it('is answered as the first time, and changes nothing, whatever has happened since', async () => {
      const headers = { 'message-id': randomUUID() };
      const first = await peer.ask('people.create', '{"name":"Ada","data":{"n":18446744073709551615}}', {
        headers,
      });
      const { id } = JSON.parse(first.value!);
      await app.people.update(id, { name: 'Countess' });
      expect(await peer.ask('people.create', '{"name":"Ada","data":{"n":18446744073709551615}}', { headers })).toEqual(first); // prettier-ignore
      expect(first.value).toContain('18446744073709551615');
      expect((await app.people.get(id)).name).toBe('Countess');
      expect((await app.people.findByName('Ada')).items).toEqual([]);
    });

    it('is answered with the error of the first time, although it would succeed by now', async () => {
      const id = randomUUID();
      const headers = { 'message-id': randomUUID() };
      const update = JSON.stringify({ id, name: 'too early' });
      const first = await peer.ask('people.update', update, { headers });
      expect(first.error?.code).toBe('PERSON_NOT_FOUND');
      await app.people.create({ id, name: 'there now' });
      expect(await peer.ask('people.update', update, { headers })).toEqual(first);
      expect((await app.people.get(id)).name).toBe('there now');
    });

    // @trap the same id, another body
    it('with another body is told that the id is taken, and changes nothing', async () => {
      const headers = { 'message-id': randomUUID() };
      await peer.ask('people.create', '{"name":"first of the id"}', { headers });
      const { error } = await peer.ask('people.create', '{"name":"second of the id"}', { headers });
      expect(error).toMatchObject({ code: 'MESSAGE_ID_CONFLICT', retryable: false });
      expect((await app.people.findByName('second of the id')).items).toEqual([]);
    });

    // @trap the same message twice
    it('many times at once is applied once', async () => {
      const headers = { 'message-id': randomUUID() };
      const replies = await Promise.all(
        Array.from({ length: 20 }, (_, key) =>
          peer.ask('people.create', '{"name":"many times"}', { headers, key: 'same' + (key % 1) }),
        ),
      );
      expect(new Set(replies.map(({ value }) => value)).size).toBe(1);
      expect((await app.people.findByName('many times')).items).toHaveLength(1);
    });
  });

  // @trap an update that overtakes its create
  it('what happens to a person by people.commands happens in order, and its events tell so', async () => {
    const ids = Array.from({ length: 20 }, () => randomUUID());
    for (const id of ids) await command(id, 'create', { name: '0' });
    for (let n = 1; n <= 5; n++) for (const id of ids) await command(id, 'update', { name: String(n) });
    for (const id of ids.slice(0, 10)) await command(id, 'delete', {});
    const created = ['person.created', ...Array.from({ length: 5 }, () => 'person.updated')];
    for (const [index, id] of ids.entries()) {
      const expected = index < 10 ? [...created, 'person.deleted'] : created;
      await eventually(() => eventsOf(id).length >= expected.length, 20_000);
      expect(typesOf(id)).toEqual(expected);
      const names = eventsOf(id).map(({ value }) => JSON.parse(String(value)).name);
      expect(names.slice(0, 6)).toEqual(['0', '1', '2', '3', '4', '5']);
    }
    // What is sent is removed a little later.
    await eventually(async () => (await app.database.query('SELECT FROM message_outbox')).length === 0);
  });

  it('an event is a CloudEvent of what was committed, by whichever door, and none is sent for a rollback', async () => {
    const id = randomUUID();
    await app.people.create({ id, name: 'Grace', data: { n: 18446744073709551615n } });
    await expect(
      app.transactions.run({}, async () => {
        await app.people.update(id, { name: 'rolled back' });
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    expect((await app.request(`/people/${id}`, { method: 'DELETE' })).status).toBe(204);
    await eventually(() => eventsOf(id).length >= 2);
    expect(typesOf(id)).toEqual(['person.created', 'person.deleted']);
    const [created] = eventsOf(id);
    const headers = Object.fromEntries(
      Object.entries(created!.headers!).map(([name, value]) => [name, String(value)]),
    );
    expect(headers).toMatchObject({
      ce_specversion: '1.0',
      ce_source: '/people',
      'content-type': 'application/json',
    });
    expect(headers.ce_id).toBe(headers.id);
    expect(String(created!.value)).toContain('18446744073709551615');
  });

  describe('a message that can not be handled', () => {
    it('leaves the others of its batch alone, and goes with its bytes and headers to the dead letters', async () => {
      const ids = Array.from({ length: 30 }, () => randomUUID());
      const bad = randomUUID();
      await Promise.all(
        ids.map((id, n) =>
          n === 15
            ? peer.emit('people.create', {
                key: id,
                value: '{"name":',
                headers: { 'message-id': bad, own: 'kept' },
              })
            : peer.emit('people.create', { key: id, value: JSON.stringify({ id, name: 'of a batch' }) }),
        ),
      );
      await eventually(async () => (await app.people.findByName('of a batch')).items.length === 29);
      await eventually(() => deadWith(bad).length > 0);
      expect(deadWith(bad)).toHaveLength(1);
      const [letter] = deadWith(bad);
      expect(String(letter!.value)).toBe('{"name":');
      expect(String(letter!.key)).toBe(ids[15]);
      expect(String(letter!.headers?.own)).toBe('kept');
      expect(String(letter!.headers?.['kafka_dlt-original-topic'])).toBe('people.create');
      expect(String(letter!.headers?.['kafka_dlt-exception-fqcn'])).toBe('INVALID_INPUT');
    });

    // @trap no value
    it.each([
      ['no value', null],
      ['an unknown operation', '{}'],
    ])('is dead-lettered at once: %s', async (_, value) => {
      const messageId = randomUUID();
      await peer.emit('people.commands', { key: randomUUID(), value, headers: { 'message-id': messageId } });
      await eventually(() => deadWith(messageId).length > 0);
    });

    it('is listed, and handled when it is replayed; once, however often that is asked for', async () => {
      const letters = app.app.get(DeadLetters, { strict: false });
      const id = randomUUID();
      const messageId = randomUUID();
      const value = JSON.stringify({ id, name: 'after the replay' });
      await peer.emit('people.update', { key: id, value, headers: { 'message-id': messageId } });
      const [letter] = await eventually(async () => {
        const found = await letters.list({ id: messageId });
        return found.length > 0 && found;
      });
      expect(letter).toMatchObject({
        topic: 'people.update',
        key: id,
        code: 'PERSON_NOT_FOUND',
        attempts: 1,
      });
      await app.people.create({ id, name: 'before the replay' });
      expect(
        await Promise.all([letters.replay({ id: messageId }), letters.replay({ id: messageId })]),
      ).toEqual(expect.arrayContaining([0, 1]));
      await eventually(async () => (await app.people.get(id)).name === 'after the replay');
      expect(await letters.list({ id: messageId })).toEqual([]);
      await eventually(() => typesOf(id).length >= 2);
      expect(typesOf(id)).toEqual(['person.created', 'person.updated']);
    });

    it('is put away when it is discarded', async () => {
      const letters = app.app.get(DeadLetters, { strict: false });
      const messageId = randomUUID();
      await peer.emit('people.create', { value: '[]', headers: { 'message-id': messageId } });
      await eventually(async () => (await letters.list({ id: messageId })).length === 1);
      expect(await letters.discard({ id: messageId })).toBe(1);
      expect(await letters.list({ id: messageId })).toEqual([]);
    });
  });

  it('many people that are imported are told of one by one', async () => {
    const lines = Array.from({ length: 12_000 }, (_, n) => `{"name":"imported","data":{"n":${n}}}`).join(
      '\n',
    );
    const response = await app.request('/people/bulk', {
      method: 'POST',
      body: lines,
      headers: { 'content-type': 'application/x-ndjson' },
    });
    expect(await response.json()).toMatchObject({ inserted: 12_000 });
    const imported = () => events.filter(({ value }) => String(value).includes('"imported"'));
    await eventually(() => imported().length >= 12_000, 30_000);
    expect(new Set(imported().map(({ key }) => String(key))).size).toBe(12_000);
  });
});
