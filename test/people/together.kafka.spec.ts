import type { KafkaMessage, Message } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { startPeopleApp } from '../support/people-app.js';
import { createDatabase } from '../support/test-database.js';
import { type TransactionRollback, transactionChannels } from '../../src/transactions/transaction-events.js';

const DIGITS = '18446744073709551615';
/** More than a batch of handlers that are called one by one. */
const MANY = 300;

describe('messages that came together', () => {
  const events: KafkaMessage[] = [];
  const peer = duringTests(() => new KafkaPeer());
  const database = duringTests(async () => {
    const made = await createDatabase();
    const name = new URL(made.url).pathname.slice(1);
    // Before whoever waits for a lock gives up, which batches do after a second.
    await made.query(`ALTER DATABASE ${name} SET deadlock_timeout = '50ms'`);
    // Rows are looked up as they are given: a table as small as this one would be read in the order in which they stand.
    for (const plan of ['hashjoin', 'mergejoin', 'seqscan'])
      await made.query(`ALTER DATABASE ${name} SET enable_${plan} = off`);
    return made;
  });
  const app = duringTests(() => startKafkaApp(peer, { KAFKA_CONCURRENCY: '2' }, database));
  beforeAll(async () => {
    await peer.consume(['people.events'], (event) => events.push(event));
  });

  /** One batch of records, which one fetch brings. */
  const send = (topic: string, messages: Message[], partition = 0) =>
    peer.emitAll(
      topic,
      messages.map((message) => ({ partition, ...message })),
    );
  const command = (id: string, operation: string, body: object = {}): Message => ({
    key: id,
    value: JSON.stringify({ id, ...body }),
    headers: { 'people-operation': operation },
  });
  const letters = async (id: string) =>
    app.database.query<{ code: string }>('SELECT code FROM message_dead_letter WHERE message_id = $1', [id]);
  const letterOf = (id: string) =>
    eventually(async () => {
      const found = await letters(id);
      return found.length > 0 && found.map(({ code }) => code);
    });
  const typesOf = (id: string) =>
    events.filter(({ key }) => String(key) === id).map(({ headers }) => String(headers?.ce_type));
  const named = async (name: string) =>
    app.database.query<{ id: string; xmin: string; data: string }>(
      'SELECT id, xmin::text, data::text FROM people WHERE name = $1',
      [name],
    );
  const newPeople = async (count: number, name: string) => {
    const people = Array.from({ length: count }, () => ({ id: randomUUID(), name }));
    await app.people.createMany(people);
    return people.map(({ id }) => id);
  };

  it('are applied together, digit for digit, and an event is sent of each', async () => {
    const ids = Array.from({ length: MANY }, () => randomUUID());
    const value = (id: string) =>
      `{"id":"${id}","name":"many","data":{"n":${DIGITS},"s":"\\u0000 \\ud800 \\" é"}}`;
    await send(
      'people.create',
      ids.map((id) => ({ key: id, value: value(id) })),
    );
    await eventually(async () => (await named('many')).length === MANY);
    const rows = await named('many');
    expect(new Set(rows.map(({ id }) => id))).toEqual(new Set(ids));
    expect(new Set(rows.map(({ data }) => data))).toEqual(
      new Set([`{"n":${DIGITS},"s":"\\u0000 \\ud800 \\" é"}`]),
    );
    // Called one by one, they would be five batches at least; here as many as may be under way.
    expect(new Set(rows.map(({ xmin }) => xmin)).size).toBeLessThanOrEqual(2);
    await eventually(() => ids.every((id) => typesOf(id).length > 0));
    for (const id of ids) expect(typesOf(id)).toEqual(['person.created']);
    const inbox = await app.database.query(
      `SELECT FROM message_inbox WHERE topic = 'people.create' AND reply IS NULL`,
    );
    expect(inbox).toHaveLength(MANY);
  });

  it('are each answered, as one that comes alone is', async () => {
    const [known, gone, changed, taken] = await newPeople(4, 'to be asked for');
    await app.people.remove(gone!);
    const stale = (await app.people.get(changed!)).version;
    await app.people.update(changed!, { name: 'no more what it was' });
    const ask = (id: string, operation: string, body: object = {}) => {
      const { id: correlation, reply } = peer.awaitReply();
      const message = command(id, operation, body);
      const headers = {
        ...message.headers,
        kafka_correlationId: correlation,
        kafka_replyTopic: peer.replyTopic,
      };
      return { message: { ...message, headers }, reply };
    };
    const fresh = randomUUID();
    const asked = [
      ask(fresh, 'create', { name: 'fresh' }),
      ask(taken!, 'create', { name: 'somebody else' }),
      ask(known!, 'update', { name: 'renamed', data: { a: 1 } }),
      ask(gone!, 'update', { name: 'nobody' }),
      ask(changed!, 'update', { name: 'too late', ifMatch: stale }),
      ask(randomUUID(), 'create', { name: 7 }),
      ask(fresh, 'get'),
      ask(fresh, 'delete'),
    ];
    await send(
      'people.commands',
      asked.map(({ message }) => message),
    );
    const replies = await Promise.all(asked.map(({ reply }) => reply));
    expect(replies.map(({ value, error }) => error?.code ?? value)).toEqual([
      `{"id":"${fresh}","name":"fresh","data":null}`,
      'PERSON_CONFLICT',
      `{"id":"${known}","name":"renamed","data":{"a":1}}`,
      'PERSON_NOT_FOUND',
      'PERSON_CHANGED',
      'INVALID_INPUT',
      `{"id":"${fresh}","name":"fresh","data":null}`,
      null,
    ]);
    expect((await app.people.get(changed!)).name).toBe('no more what it was');
    expect((await app.people.get(taken!)).name).toBe('to be asked for');
  });

  it('are applied once each where some are refused, and those become dead letters', async () => {
    const ids = Array.from({ length: 40 }, () => randomUUID());
    const [taken] = await newPeople(1, 'here before');
    const bad = [randomUUID(), randomUUID()];
    const messages = ids.map((id) => ({
      key: id,
      value: JSON.stringify({ id, name: 'beside refused ones' }),
    }));
    await send('people.create', [
      ...messages.slice(0, 10),
      { key: 'bad', value: '{"name":', headers: { 'message-id': bad[0]! } },
      ...messages.slice(10, 30),
      {
        key: taken!,
        value: JSON.stringify({ id: taken, name: 'another' }),
        headers: { 'message-id': bad[1]! },
      },
      ...messages.slice(30),
    ]);
    await eventually(async () => (await named('beside refused ones')).length === ids.length);
    expect(await letterOf(bad[0]!)).toEqual(['INVALID_INPUT']);
    expect(await letterOf(bad[1]!)).toEqual(['PERSON_CONFLICT']);
    await eventually(() => ids.every((id) => typesOf(id).length > 0));
    for (const id of ids) expect(typesOf(id)).toEqual(['person.created']);
  });

  it('of which one fails for its version alone leave the others changed', async () => {
    const ids = await newPeople(30, 'in its first version');
    const versions = await Promise.all(ids.map(async (id) => (await app.people.get(id)).version!));
    await app.people.update(ids[12]!, { name: 'in its second version' });
    const late = randomUUID();
    await send(
      'people.update',
      ids.map((id, n) => ({
        key: id,
        value: JSON.stringify({ id, ifMatch: versions[n], name: 'in a version of the batch' }),
        headers: { 'message-id': n === 12 ? late : randomUUID() },
      })),
    );
    expect(await letterOf(late)).toEqual(['PERSON_CHANGED']);
    await eventually(async () => (await named('in a version of the batch')).length === 29);
    expect((await app.people.get(ids[12]!)).name).toBe('in its second version');
  });

  it('about one person are applied in their order', async () => {
    const ids = Array.from({ length: 20 }, () => randomUUID());
    const batch = ids.flatMap((id, n) => [
      command(id, 'create', { name: 'first' }),
      command(id, 'update', { name: 'second', data: { n } }),
      command(id, 'update', { name: 'third' }),
      ...(n % 2 ? [command(id, 'delete'), command(id, 'create', { name: 'fourth' })] : []),
    ]);
    await send('people.commands', batch);
    const whole = ['person.created', 'person.updated', 'person.updated'];
    for (const [n, id] of ids.entries()) {
      const expected = n % 2 ? [...whole, 'person.deleted', 'person.created'] : whole;
      await eventually(() => typesOf(id).length >= expected.length);
      expect(typesOf(id)).toEqual(expected);
      const { name, data } = await app.people.get(id);
      expect({ name, data }).toEqual(n % 2 ? { name: 'fourth', data: null } : { name: 'third', data: { n } });
    }
  });

  it('do not wait for the one whose person is locked', async () => {
    const ids = await newPeople(20, 'one of them locked');
    const holder = new pg.Client(database.url);
    await holder.connect();
    try {
      await holder.query('BEGIN');
      await holder.query('SELECT FROM people WHERE id = $1 FOR UPDATE', [ids[0]]);
      await send(
        'people.commands',
        ids.map((id, n) =>
          command(id, n % 2 ? 'delete' : 'update', n % 2 ? {} : { name: 'changed meanwhile' }),
        ),
      );
      await eventually(async () => (await named('changed meanwhile')).length === 9);
      await eventually(async () => (await named('one of them locked')).length === 1);
      await holder.query('COMMIT');
      await eventually(async () => (await named('changed meanwhile')).length === 10);
    } finally {
      await holder.end();
    }
  });

  // @trap a batch is handled again without a message that was refused
  it('without a key are not applied before one that is refused and stands before them', async () => {
    const id = randomUUID();
    const early = randomUUID();
    const create = { ...command(id, 'create', { name: 'behind it' }), key: null };
    const headers = { 'people-operation': 'update', 'message-id': early };
    await send('people.commands', [
      { ...command(randomUUID(), 'create', { name: 'before it' }), key: null },
      { ...command(id, 'update', { name: 'too early' }), key: null, headers },
      create,
    ]);
    expect(await letterOf(early)).toEqual(['PERSON_NOT_FOUND']);
    expect((await eventually(() => app.people.get(id).catch(() => false as const))).name).toBe('behind it');
  });

  it('in two batches that are about the same people in opposite order lock them in one, and do not deadlock', async () => {
    const ids = Array.from({ length: 60 }, () => randomUUID()).sort();
    // Where the rows stand is an order as well, which is not the one that is meant.
    await app.people.createMany(ids.toReversed().map((id) => ({ id, name: 'of two batches' })));
    const [middle, behind] = [ids[30], ids.slice(31)];
    const codes: string[] = [];
    const note = (event: unknown) => codes.push((event as TransactionRollback).code);
    const waiting = async () =>
      (await database.query(`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)).length; // prettier-ignore
    const messages = (order: string[], by: string) =>
      order.map((id) => ({ key: `${by} ${id}`, value: JSON.stringify({ id, data: { by } }) }));
    transactionChannels.rollback.subscribe(note);
    const holder = new pg.Client(database.url);
    await holder.connect();
    try {
      await holder.query('BEGIN');
      await holder.query('SELECT FROM people WHERE id = $1 FOR UPDATE', [middle]);
      // Shared out among the two batches that may be under way: the first half and the second.
      await send('people.update', [...messages(ids, 'one'), ...messages(ids.toReversed(), 'other')]);
      await eventually(async () => (await waiting()) >= 2);
      const free = await database.query('SELECT FROM people WHERE id = ANY ($1) FOR UPDATE SKIP LOCKED', [
        behind,
      ]);
      expect(free).toHaveLength(behind.length);
      await holder.query('COMMIT');
      await eventually(() => ids.every((id) => typesOf(id).length === 3));
    } finally {
      await holder.end();
      transactionChannels.rollback.unsubscribe(note);
    }
    expect(codes).not.toContain('40P01');
  });

  describe('where KAFKA_BATCH_HANDLERS is off', () => {
    const own = duringTests(() =>
      startPeopleApp({
        KAFKA_BROKERS: peer.brokers.join(),
        KAFKA_GROUP_ID: `test-${randomUUID()}`,
        KAFKA_BATCH_HANDLERS: 'off',
      }),
    );

    it('are handled one by one, and 64 of them share a transaction at most', async () => {
      // Those that the first of these tests has sent.
      const many = () =>
        own.database.query<{ xmin: string }>(`SELECT xmin::text FROM people WHERE name = 'many'`);
      await eventually(async () => (await many()).length === MANY);
      const transactions = new Set((await many()).map(({ xmin }) => xmin));
      expect(transactions.size).toBeGreaterThanOrEqual(Math.ceil(MANY / 64));
    });
  });
});
