import { context, propagation, SpanKind, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { Logger, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { TypeOrmModule } from '@nestjs/typeorm';
import type { EventEmitter } from 'node:events';
import pg from 'pg';
import type { ServiceSettings } from '../../src/app/app.module.js';
import { createApp } from '../../src/app/create-app.js';
import { readEnvironment } from '../../src/app/environment.js';
import { JsonLogger } from '../../src/operations/json-logger.js';
import { PeopleModule } from '../../src/people/people.module.js';
import { continueTrace } from '../../src/tracing/continue-trace.js';
import { currentIds } from '../../src/tracing/trace-context.js';
import { transactionChannels } from '../../src/transactions/transaction-events.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';
import { createDatabase } from '../support/test-database.js';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const SENDER = 'b7ad6b7169203331';
const given = { traceparent: `00-${TRACE}-${SENDER}-01`, 'x-request-id': 'request-1' };
const NAME = 'nobody’s business';

describe('with comments', () => {
  const app = duringTests(() => startPeopleApp({ DB_STATEMENT_COMMENTS: 'on' }));
  const seen = () => app.database.query<{ text: string }>('SELECT text FROM seen');
  beforeAll(() =>
    app.database.query(`CREATE TABLE seen (text text);
      CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (current_query()); RETURN new; END $$;
      CREATE TRIGGER see BEFORE INSERT OR UPDATE ON people FOR EACH ROW EXECUTE FUNCTION see()`),
  );
  beforeEach(() => app.database.query('TRUNCATE seen'));

  it('each statement of a request says whose it is, and is prepared under no name', async () => {
    const created = await app.send('POST', '/people', '{"name":"Ada"}', given);
    const { id } = (await created.json()) as { id: string };
    const patch = { ...given, 'x-request-id': 'request-2', 'content-type': 'application/merge-patch+json' };
    await app.send('PATCH', `/people/${id}`, '{"data":{"a":1}}', patch);
    const comments = (await seen()).map(({ text }) => text.slice(text.lastIndexOf('/*')));
    expect(comments).toEqual(
      ['request-1', 'request-2'].map((of) => `/*request_id='${of}',traceparent='${given.traceparent}'*/`),
    );
  });

  it('also where many are there together, and one without an id has none', async () => {
    await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        app.send('POST', '/people', '{"name":"Ada"}', { 'x-request-id': `at-once-${n}` }),
      ),
    );
    const texts = (await seen()).map(({ text }) => text);
    for (let n = 0; n < 20; n++)
      expect(texts.filter((text) => text.includes(`request_id='at-once-${n}'`))).toHaveLength(1);
    await app.database.query('TRUNCATE seen');
    await app.people.create({ name: 'by dependency injection' });
    expect((await seen())[0]!.text).not.toContain('/*');
  });
});

describe('the log', () => {
  const lines: Record<string, unknown>[] = [];
  const database = duringTests(() => createDatabase());
  const app = duringTests(async () => {
    const environment = { DATABASE_URL: database.url, KAFKA: 'off', PORT: '0', LOG_LEVEL: 'info' };
    const destination = { write: (line: string) => void lines.push(JSON.parse(line) as (typeof lines)[0]) };
    const settings = readEnvironment(environment) as ServiceSettings;
    const started = await createApp(settings, new JsonLogger('info', destination));
    await started.listen({ port: 0, host: '127.0.0.1' });
    return started;
  });
  const speak = () => new Logger('a part of the service').log('in the midst of it');
  afterEach(() => transactionChannels.begin.unsubscribe(speak));

  it('names the request and the trace in each line of a request, whoever writes it', async () => {
    transactionChannels.begin.subscribe(speak);
    await fetch(`${await app.getUrl()}/people?name=Ada`, { headers: given });
    const line = await eventually(() => lines.find(({ msg }) => msg === 'in the midst of it'));
    expect(line).toMatchObject({ requestId: 'request-1', traceId: TRACE });
    await eventually(() =>
      lines.find(({ msg, requestId }) => msg === 'request' && requestId === 'request-1'),
    );
  });
});

describe.each([
  ['Express', () => new ExpressAdapter()],
  ['Fastify', () => new FastifyAdapter()],
])('the routes of people in a host on %s', (_, adapter) => {
  const database = duringTests(() => createDatabase());
  const host = duringTests(async () => {
    const typeOrm = TypeOrmModule.forRoot({
      ...{ type: 'postgres', url: database.url, autoLoadEntities: true, installExtensions: false },
    });
    const controllers = { http: true, messages: false };
    @Module({ imports: [typeOrm, PeopleModule.forRoot({ controllers, events: true })] })
    class HostModule {}
    const app = await NestFactory.create(HostModule, adapter(), { logger: false, rawBody: true });
    await app.listen(0, '127.0.0.1');
    return app;
  });

  it('continue the trace of a request, down to its event', async () => {
    const url = await host.getUrl();
    const send = (method: string, path: string, body?: string) =>
      fetch(`${url}${path}`, {
        method,
        headers: { ...given, ...(body && { 'content-type': 'application/json' }) },
        ...(body && { body }),
      });
    const { id } = (await (await send('POST', '/people', '{"name":"Ada"}')).json()) as { id: string };
    await send('PATCH', `/people/${id}`, '{"name":"Grace"}');
    await send('DELETE', `/people/${id}`);
    const rows = await database.query('SELECT type, trace FROM message_outbox ORDER BY seq');
    const types = ['created', 'updated', 'deleted'];
    expect(rows).toEqual(types.map((type) => ({ type: `person.${type}`, trace: given })));
  });
});

it('a host’s own middleware continues the trace that a request came with, once', () => {
  const seen: unknown[] = [];
  const next = () => seen.push(currentIds());
  const other = { 'x-request-id': 'another' };
  continueTrace({ headers: given }, undefined, () => continueTrace({ headers: other }, undefined, next));
  continueTrace({ headers: {} }, undefined, next);
  expect(seen).toEqual([{ requestId: 'request-1', traceId: TRACE }, undefined]);
});

describe('with an SDK', () => {
  const spans = new InMemorySpanExporter();
  let app: PeopleApp;
  beforeAll(async () => {
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    propagation.setGlobalPropagator(new W3CTraceContextPropagator());
    const spanProcessors = [new SimpleSpanProcessor(spans)];
    trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors }));
    app = await startPeopleApp();
    // What it asks for once is asked for.
    await app.people.create({ name: 'first' });
  });
  beforeEach(() => spans.reset());
  afterAll(async () => {
    await app.close();
    trace.disable();
    propagation.disable();
    context.disable();
  });
  const named = (name: string) => spans.getFinishedSpans().filter((span) => span.name === name);
  const parentOf = ({ parentSpanContext }: ReadableSpan) => parentSpanContext?.spanId;

  it('a request has one span, of its route, and no value of a person is in any', async () => {
    const created = await app.send('POST', '/people', JSON.stringify({ name: NAME }), given);
    const { id } = (await created.json()) as { id: string };
    await app.request(`/people/${id}`);
    await app.request(`/people?name=${encodeURIComponent(NAME)}`);
    await app.send('POST', '/people', JSON.stringify({ id, name: 'another' }));
    await eventually(() => named('POST /people').length === 2 && named('GET /people').length === 1);
    const [post] = named('POST /people');
    expect(post).toMatchObject({
      kind: SpanKind.SERVER,
      attributes: {
        'http.request.method': 'POST',
        'http.route': '/people',
        'http.response.status_code': 201,
      },
    });
    expect([post!.spanContext().traceId, parentOf(post!)]).toEqual([TRACE, SENDER]);
    expect(named('GET /people/:id')).toHaveLength(1);
    const all = spans.getFinishedSpans().map(({ name, attributes, events, status }) => ({
      ...{ name, attributes, events, status },
    }));
    for (const value of [NAME, encodeURIComponent(NAME), id])
      expect(JSON.stringify(all)).not.toContain(value);
  });

  it('probes have none', async () => {
    await app.request('/health/live');
    await app.request('/people?name=x');
    await eventually(() => named('GET /people').length === 1);
    expect(spans.getFinishedSpans().filter(({ kind }) => kind === SpanKind.SERVER)).toHaveLength(1);
  });

  it('those who share a statement have a span each, and its own is linked to all of theirs', async () => {
    await Promise.all(Array.from({ length: 30 }, (_, n) => app.people.create({ name: `shared ${n}` })));
    const shared = named('shared statement').filter(({ links }) => links.length > 1);
    expect(shared.length).toBeGreaterThan(0);
    const callers = named('shareable statement').map((span) => span.spanContext().spanId);
    expect(callers).toHaveLength(30);
    for (const span of shared) {
      expect(parentOf(span)).toBeUndefined();
      for (const link of span.links) expect(callers).toContain(link.context.spanId);
    }
  });

  it('a failure tells its SQLSTATE, and nothing of what the server says', async () => {
    const text = `SELECT 'secret'::uuid`;
    await expect(app.transactions.run({}, (unit) => unit.query({ text }))).rejects.toThrow('secret');
    const [span] = named('SELECT');
    expect(span!.attributes).toMatchObject({ 'error.type': '22P02', 'db.response.status_code': '22P02' });
    expect(JSON.stringify(spans.getFinishedSpans().map(({ status, events }) => [status, events]))).not.toContain('secret'); // prettier-ignore
  });

  it.each([
    ['SELECT * FROM a.people p JOIN b ON true', 'SELECT a.people'],
    [`INSERT INTO "people" SELECT 'x' ON CONFLICT DO UPDATE SET name = 'y'`, 'INSERT people'],
    ['WITH x AS (SELECT FROM y FOR NO KEY UPDATE OF y) DELETE FROM people USING x', 'DELETE people'],
    [`SELECT 'delete from ada' AS said`, 'SELECT'],
    [`SELECT E'\\'', 'delete from ada'`, 'SELECT'],
    [`SELECT 1 /* update ada set */`, 'SELECT'],
    [`SELECT $$ delete from ada $$`, 'SELECT'],
    ['', 'QUERY'],
  ])('%s is told as %s', async (text, name) => {
    await app.transactions.run({}, (unit) => unit.query({ text })).catch(() => undefined);
    expect(spans.getFinishedSpans().find(({ kind }) => kind === SpanKind.CLIENT)?.name).toBe(name);
  });

  it('where pg is instrumented statements have the spans of that, and no second ones', async () => {
    const prototype = pg.Client.prototype as unknown as Record<string, unknown>;
    const { query } = prototype;
    const wrapped = function (this: unknown, ...given: unknown[]) {
      return (query as (...all: unknown[]) => unknown).apply(this, given);
    };
    prototype.query = Object.assign(wrapped, { __wrapped: true });
    try {
      await app.transactions.run({}, (unit) => unit.query({ text: 'SELECT 1' }));
    } finally {
      prototype.query = query;
    }
    expect(spans.getFinishedSpans().map(({ name }) => name)).toEqual(['transaction attempt', 'transaction']);
  });

  it('where HTTP is instrumented a request has the span of that, and no second one', async () => {
    const other = trace.getTracer('http').startSpan('of an instrumentation');
    const server = app.app.getHttpServer() as EventEmitter;
    const emit = server.emit.bind(server);
    server.emit = (...event) => context.with(trace.setSpan(context.active(), other), () => emit(...event));
    try {
      await app.request('/people?name=x', { headers: { connection: 'close' } });
    } finally {
      server.emit = emit;
    }
    await eventually(() => named('transaction').length > 0);
    expect(spans.getFinishedSpans().filter(({ kind }) => kind === SpanKind.SERVER)).toEqual([]);
    expect(named('transaction').map(parentOf)).toContain(other.spanContext().spanId);
  });
});
