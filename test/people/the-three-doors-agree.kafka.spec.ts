import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';

const U64_MAX = '18446744073709551615';

describe('one person through HTTP, Kafka and injection', () => {
  const peer = duringTests(() => new KafkaPeer());
  const app = duringTests(() => startKafkaApp(peer));

  it('created by a message is the same one that HTTP, injection and SQL read, digit for digit', async () => {
    const reply = await peer.ask('people.create', `{"name":"Ada","data":{"many_many_fields":${U64_MAX}}}`);
    expect(reply.error).toBeUndefined();
    const person = reply.value!;
    const { id } = JSON.parse(person);
    expect(person).toBe(`{"id":"${id}","name":"Ada","data":{"many_many_fields":${U64_MAX}}}`);

    const overHttp = await app.request(`/people/${id}`);
    expect(await overHttp.text()).toBe(person);
    expect(await app.people.get(id)).toEqual({
      id,
      name: 'Ada',
      data: { many_many_fields: BigInt(U64_MAX) },
    });
    const rows = await app.database.query('SELECT name, data::text FROM people WHERE id = $1', [id]);
    expect(rows).toEqual([{ name: 'Ada', data: `{"many_many_fields":${U64_MAX}}` }]);
  });

  it('created over HTTP is read, found, changed and deleted by messages', async () => {
    const created = await app.send('POST', '/people', `{"name":"Grace","data":{"n":${U64_MAX}}}`);
    const { id } = JSON.parse(await created.text());
    const get = await peer.ask('people.get', JSON.stringify({ id }));
    expect(get.value).toBe(`{"id":"${id}","name":"Grace","data":{"n":${U64_MAX}}}`);
    const found = await peer.ask('people.find-by-name', '{"name":"Grace","limit":10}');
    expect(found.value).toBe(`{"items":[${get.value}],"next":null}`);
    const updated = await peer.ask('people.update', JSON.stringify({ id, name: 'Grace Hopper', data: null }));
    expect(updated.value).toBe(`{"id":"${id}","name":"Grace Hopper","data":null}`);
    const removed = await peer.ask('people.delete', JSON.stringify({ id }));
    expect(removed).toEqual({ value: null, error: undefined });
    expect((await app.request(`/people/${id}`)).status).toBe(404);
  });

  it('created by injection is changed over HTTP, and a message sees the change', async () => {
    const person = await app.people.create({ name: 'Linus', data: { n: BigInt(U64_MAX), s: 'x' } });
    await app.send('PATCH', `/people/${person.id}`, '{"data":{"s":"y"}}', {
      'content-type': 'application/merge-patch+json',
    });
    const get = await peer.ask('people.get', JSON.stringify({ id: person.id }));
    expect(get.value).toBe(`{"id":"${person.id}","name":"Linus","data":{"n":${U64_MAX},"s":"y"}}`);
  });

  it('many at once arrive by one message, all or none', async () => {
    const reply = await peer.ask(
      'people.create-many',
      '{"people":[{"name":"m1"},{"name":"m2","data":{"a":1.0}}],"ids":true}',
    );
    const { inserted, ids } = JSON.parse(reply.value!);
    expect(inserted).toBe(2);
    expect((await app.people.get(ids[1])).dataJson).toBe('{"a":1.0}');

    const refused = await peer.ask(
      'people.create-many',
      `{"people":[{"name":"m3"},{"name":"m4","id":"${ids[0]}"}]}`,
    );
    expect(refused.error).toMatchObject({ code: 'PERSON_CONFLICT', retryable: false });
    expect((await app.people.findByName('m3')).items).toEqual([]);
  });

  it('fails alike at every door', async () => {
    const id = '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f';
    await expect(app.people.get(id)).rejects.toMatchObject({ type: 'person-not-found', id });
    const overHttp = await app.request(`/people/${id}`);
    expect(overHttp.status).toBe(404);
    expect(await overHttp.json()).toMatchObject({
      type: '/problems/person-not-found',
      detail: `No person has the id ${id}.`,
    });
    const reply = await peer.ask('people.get', JSON.stringify({ id }));
    expect(reply.error).toEqual({
      code: 'PERSON_NOT_FOUND',
      message: `No person has the id ${id}.`,
      retryable: false,
    });
  });

  it('a message that asks for no reply has its effect all the same', async () => {
    const id = '01938c5e-7a1b-7c3d-9e2f-000000000001';
    await peer.emit('people.create', { key: id, value: JSON.stringify({ id, name: 'Edsger' }) });

    const person = await eventually(() => app.people.get(id).catch(() => undefined));
    expect(person.name).toBe('Edsger');
  });
});
