import { randomBytes, randomUUID } from 'node:crypto';
import path from 'node:path';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { brokers, KafkaPeer } from '../support/kafka.js';
import { OtlpReceiver, type ReceivedSpan } from '../support/otlp-receiver.js';
import { ServiceHome } from '../support/service-process.js';
import { createDatabase } from '../support/test-database.js';

/** As `node --import` brings the official SDK into a process. */
const WITH_SDK = [process.execPath, '--import', path.resolve('test/support/otlp-sdk.mjs')];
const NAME = 'a name that nobody is to read in a trace';

const receiver = duringTests(() => OtlpReceiver.start());
const database = duringTests(() => createDatabase());
const peer = duringTests(() => new KafkaPeer());
let home: ServiceHome;
let http: string;

beforeAll(async () => {
  await peer.connect();
  await peer.deleteTopics();
  await peer.createTopics(['people.events', 'people.create']);
  home = new ServiceHome();
  const otel = { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url, OTEL_BSP_SCHEDULE_DELAY: '100' };
  home.run([...WITH_SDK, path.resolve('test/support/event-consumer.mjs')], {
    ...otel,
    BROKERS: brokers().join(),
    GROUP: `consumer-${randomUUID()}`,
  });
  const service = home.run([...WITH_SDK, path.resolve('dist/src/main.js')], {
    ...otel,
    PORT: '0',
    DATABASE_URL: database.url,
    KAFKA_BROKERS: brokers().join(),
    KAFKA_GROUP_ID: `service-${randomUUID()}`,
  });
  ({ http } = await service.services());
}, 120_000);
afterAll(() => home.remove());

const newTrace = () => {
  const traceId = randomBytes(16).toString('hex');
  return { traceId, traceparent: `00-${traceId}-${randomBytes(8).toString('hex')}-01` };
};
const spansOf = (traceId: string) => receiver.spans.filter((span) => span.traceId === traceId);
/** From a span to the one that began its trace. */
function lineOf(span: ReceivedSpan | undefined): string[] {
  if (!span) return [];
  const parent = receiver.spans.find(({ spanId }) => spanId === span.parentSpanId);
  return [span.name, ...lineOf(parent)];
}
const untilConsumed = (traceId: string) =>
  eventually(() => spansOf(traceId).some(({ name }) => name === 'consume event'), 30_000);

it('one trace goes from POST /people through its statement and the outbox to a consumer of people.events', async () => {
  const { traceId, traceparent } = newTrace();
  const response = await fetch(`${http}/people`, {
    method: 'POST',
    body: JSON.stringify({ name: NAME, data: { secret: NAME } }),
    headers: { 'content-type': 'application/json', traceparent },
  });
  expect(response.status).toBe(201);
  const { id } = (await response.json()) as { id: string };
  await untilConsumed(traceId);
  const called = (name: string) => spansOf(traceId).find((span) => span.name === name);
  await eventually(() => called('POST /people') && called('send people.events'));
  expect(lineOf(called('INSERT people'))).toEqual([
    'INSERT people',
    'transaction attempt',
    'transaction',
    'shareable statement',
    'POST /people',
  ]);
  expect(lineOf(called('consume event'))).toEqual(['consume event', 'send people.events', 'POST /people']);
  expect(called('POST /people')).toMatchObject({ kind: 2, parentSpanId: traceparent.slice(36, 52) });
  expect(called('INSERT people')!.attributes).toMatchObject({
    'db.system.name': 'postgresql',
    'db.operation.name': 'INSERT',
    'db.collection.name': 'people',
  });
  expect(called('send people.events')).toMatchObject({
    kind: 4,
    attributes: { 'messaging.system': 'kafka', 'messaging.destination.name': 'people.events' },
  });
  expect(receiver.text).not.toContain(NAME);
  expect(receiver.text).not.toContain(id);
});

it('a message’s span is a child of its sender’s, and its unit of work, its event and its reply are of that trace', async () => {
  const { traceId, traceparent } = newTrace();
  await peer.ask('people.create', JSON.stringify({ name: NAME }), { headers: { traceparent } });
  await untilConsumed(traceId);
  const reply = `send ${peer.replyTopic}`;
  const called = (name: string) => spansOf(traceId).find((span) => span.name === name);
  await eventually(() => called(reply) && called('send people.events'));
  expect(called('process people.create')).toMatchObject({ kind: 5, parentSpanId: traceparent.slice(36, 52) });
  expect(lineOf(called('INSERT people')).slice(-3)).toEqual([
    'transaction attempt',
    'transaction',
    'process people.create',
  ]);
  expect(lineOf(called('COMMIT')).slice(-3)).toEqual([
    'transaction attempt',
    'transaction',
    'process people.create',
  ]);
  expect(lineOf(called('consume event')).at(-1)).toBe('process people.create');
  expect(lineOf(called(reply))).toEqual([reply, 'process people.create']);
});

it('messages that are handled together have a span that is linked to their senders, and their events are in their own traces', async () => {
  const traces = Array.from({ length: 30 }, newTrace);
  await peer.emitAll(
    'people.create',
    traces.map(({ traceparent }, n) => ({
      key: 'one lane',
      value: JSON.stringify({ name: `${NAME} ${n}` }),
      headers: { traceparent },
    })),
  );
  for (const { traceId } of traces) await untilConsumed(traceId);
  const isLinked = ({ links }: ReceivedSpan) => links.length > 1;
  await eventually(() => receiver.spans.some(isLinked));
  const together = receiver.spans.find(isLinked)!;
  expect(together.name).toBe('process people.create');
  expect(together.attributes['messaging.batch.message_count']).toBe(together.links.length);
  const senders = new Map(traces.map(({ traceId, traceparent }) => [traceId, traceparent.slice(36, 52)]));
  for (const { traceId, spanId } of together.links) expect(senders.get(traceId)).toBe(spanId);
});

it('nobody’s housekeeping is traced', async () => {
  await fetch(`${http}/health/ready`);
  const { traceId, traceparent } = newTrace();
  await fetch(`${http}/people?name=nobody`, { headers: { traceparent } });
  await eventually(() => spansOf(traceId).length > 0);
  const begins = receiver.spans.filter(({ parentSpanId }) => !parentSpanId).map(({ name }) => name);
  expect(new Set(begins)).toEqual(new Set(['process people.create']));
});
