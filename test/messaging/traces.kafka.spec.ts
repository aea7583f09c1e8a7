import { Logger } from '@nestjs/common';
import type { KafkaMessage } from 'kafkajs';
import { randomBytes, randomUUID } from 'node:crypto';
import { Outbox } from '../../src/messaging/outbox.js';
import { JsonLogger } from '../../src/operations/json-logger.js';
import { runInTrace } from '../../src/tracing/trace-context.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';

type Headers = Record<string, string>;
const NAMES = ['traceparent', 'tracestate', 'baggage', 'x-request-id'];

const peer = duringTests(() => new KafkaPeer());
const app = duringTests(() => startKafkaApp(peer));
const events: KafkaMessage[] = [];
const replies: KafkaMessage[] = [];
beforeAll(async () => {
  await peer.createTopics(['trace.events']);
  await peer.consume(['people.events', 'trace.events'], (event) => events.push(event));
  await peer.consume([peer.replyTopic], (reply) => replies.push(reply));
});

const newTrace = (): Headers => ({
  traceparent: `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-01`,
  tracestate: 'vendor=opaque,other=1',
  baggage: 'tenant=one',
  'x-request-id': `request-${randomUUID()}`,
});
const traceOf = ({ headers }: KafkaMessage): Headers =>
  Object.fromEntries(
    NAMES.filter((name) => headers?.[name] !== undefined).map((name) => [name, String(headers![name])]),
  );
/** The traces of a person's events, once there are so many. */
async function tracesOf(id: string, count = 1): Promise<Headers[]> {
  const ofPerson = () => events.filter(({ key }) => String(key) === id);
  await eventually(() => ofPerson().length >= count);
  return ofPerson().map(traceOf);
}
const create = async (name: string, trace: Headers): Promise<string> => {
  const response = await app.send('POST', '/people', JSON.stringify({ name }), trace);
  return ((await response.json()) as { id: string }).id;
};

it('what names a trace and a request comes with the event of each change, as it came in, without an SDK', async () => {
  const [created, changed, merged, removed] = [newTrace(), newTrace(), newTrace(), newTrace()];
  const id = await create('Ada', created);
  await app.send('PATCH', `/people/${id}`, '{"name":"Grace"}', changed);
  await app.send('PATCH', `/people/${id}`, '{"data":{"a":1}}', {
    ...merged,
    'content-type': 'application/merge-patch+json',
  });
  await app.request(`/people/${id}`, { method: 'DELETE', headers: removed });
  expect(await tracesOf(id, 4)).toEqual([created, changed, merged, removed]);
});

it('those who share a statement keep their traces apart, and who has none gets none', async () => {
  const traces = Array.from({ length: 40 }, (_, n) => (n % 4 ? newTrace() : { 'x-request-id': `r${n}` }));
  const people = await Promise.all(
    traces.map((trace, n) => runInTrace(trace, () => app.people.create({ name: `together ${n}` }))),
  );
  const ids = people.map(({ id }) => id);
  for (const [n, id] of ids.entries()) expect(await tracesOf(id)).toEqual([traces[n]]);
  const alone = await app.people.create({ name: 'by dependency injection' });
  expect(await tracesOf(alone.id)).toEqual([{}]);
});

it.each([
  ['application/json', JSON.stringify([{ name: 'one' }, { name: 'two' }])],
  ['application/x-ndjson', '{"name":"one"}\n{"name":"two"}\n'],
])(
  'of many people that come as %s each event has the trace of the request, but nothing long',
  async (type, body) => {
    const trace = newTrace();
    await app.request('/people/bulk', { method: 'POST', body, headers: { ...trace, 'content-type': type } });
    const ofTrace = () => events.filter((event) => traceOf(event)['x-request-id'] === trace['x-request-id']);
    await eventually(() => ofTrace().length === 2);
    const { traceparent, 'x-request-id': id } = trace;
    const short = { traceparent, 'x-request-id': id };
    expect(ofTrace().map(traceOf)).toEqual([short, short]);
  },
);

it('a message hands its trace on to its event and to its reply, also where many are handled together', async () => {
  const traces = Array.from({ length: 20 }, newTrace);
  await peer.emitAll(
    'people.create',
    traces.map((headers, n) => ({
      key: 'one lane',
      value: JSON.stringify({ name: `message ${n}` }),
      headers,
    })),
  );
  const asked = newTrace();
  const reply = await peer.ask('people.create', '{"name":"asked"}', { headers: asked });
  const { id } = JSON.parse(reply.value!) as { id: string };
  expect(await tracesOf(id)).toEqual([asked]);
  expect(replies.map(traceOf)).toContainEqual(asked);
  const requestIds = () => new Set(events.map((event) => traceOf(event)['x-request-id']));
  await eventually(() => traces.every((trace) => requestIds().has(trace['x-request-id'])));
  for (const trace of traces) expect(events.map(traceOf)).toContainEqual(trace);
});

it('lines of the log about a message name its request and its trace', async () => {
  const lines: Record<string, unknown>[] = [];
  const destination = { write: (line: string) => void lines.push(JSON.parse(line) as (typeof lines)[0]) };
  Logger.overrideLogger(new JsonLogger('info', destination));
  const headers = newTrace();
  await peer.emit('people.create', { value: '{"name":7}', headers });
  const line = await eventually(() => lines.find(({ msg }) => msg === 'message dead-lettered'));
  Logger.overrideLogger(false);
  expect(line).toMatchObject({
    requestId: headers['x-request-id'],
    traceId: headers.traceparent!.slice(3, 35),
  });
});

it('events of one’s own have the trace of the unit of work that publishes them', async () => {
  const outbox = app.app.get(Outbox, { strict: false });
  const trace = newTrace();
  await runInTrace(trace, () =>
    app.transactions.run({}, async () =>
      outbox.publish({ aggregateType: 'x', aggregateId: 'own', type: 't', topic: 'trace.events' }),
    ),
  );
  expect(await tracesOf('own')).toEqual([trace]);
});

// @trap headers that name a trace and are none
it('what is no trace, or too long, goes no further, and the event goes without', async () => {
  const id = await create('bad', {
    traceparent: '00-00000000000000000000000000000000-0000000000000000-01',
    tracestate: 'vendor=opaque',
    baggage: `a=${'x'.repeat(8192)}`,
    'x-request-id': 'good',
  });
  expect(await tracesOf(id)).toEqual([{ 'x-request-id': 'good' }]);
  const value = '{"name":"bad message"}';
  const twice = newTrace().traceparent!;
  const reply = await peer.ask('people.create', value, {
    headers: { traceparent: [twice, twice], baggage: Buffer.from([0xff, 0x00]), 'x-request-id': 'a b' },
  });
  expect(await tracesOf((JSON.parse(reply.value!) as { id: string }).id)).toEqual([{}]);
});

it('a row that somebody else has written with no trace, or with what is none, is sent as ever', async () => {
  const ids = [randomUUID(), randomUUID(), randomUUID()];
  const traces = [null, '"text"', '{"traceparent": 7, "authorization": "secret"}'];
  for (const [n, id] of ids.entries())
    await app.database.query(
      `INSERT INTO message_outbox (aggregatetype, aggregateid, type, topic, trace) VALUES ('x', $1, 't', 'trace.events', $2)`,
      [id, traces[n]],
    );
  app.app.get(Outbox, { strict: false }).wake();
  for (const id of ids) {
    expect(await tracesOf(id)).toEqual([{}]);
    const event = events.find(({ key }) => String(key) === id)!;
    expect(Object.keys(event.headers!)).not.toContain('authorization');
  }
});

// @trap an old version beside a new one
it('a table without the column, as the version before has it, takes and gives events without a trace', async () => {
  await app.database.query('ALTER TABLE message_outbox DROP COLUMN trace');
  const outbox = app.app.get(Outbox, { strict: false });
  // Whoever comes first meets it.
  await create('meets it', newTrace());
  await eventually(async () => {
    await outbox.look();
    return !outbox.hasTrace;
  });
  const id = await create('without', newTrace());
  expect(await tracesOf(id)).toEqual([{}]);
  await app.database.query('ALTER TABLE message_outbox ADD COLUMN trace json');
  await outbox.look();
  const trace = newTrace();
  expect(await tracesOf(await create('again', trace))).toEqual([trace]);
});
