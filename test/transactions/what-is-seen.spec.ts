import { context, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { type TransactionEvent, transactionChannels } from '../../src/transactions/transaction-events.js';
import { eventually } from '../support/barrier.js';
import { type PeopleApp, poolOf, startPeopleApp } from '../support/people-app.js';

let app: PeopleApp;
let id: string;
const events: ({ event: string } & TransactionEvent)[] = [];
const listeners = Object.entries(transactionChannels).map(([event, channel]) => ({
  channel,
  listener: (told: unknown) => void events.push({ event, ...(told as TransactionEvent) }),
}));
let release!: () => void;
const released = new Promise<void>((resolve) => (release = resolve));
const spans = new InMemorySpanExporter();

beforeAll(async () => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  trace.setGlobalTracerProvider(
    new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] }),
  );
  app = await startPeopleApp({ DB_POOL_SIZE: '10', DB_ACQUIRE_TIMEOUT_MS: '1000' });
  for (const { channel, listener } of listeners) channel.subscribe(listener);
});
beforeEach(async () => {
  ({ id } = await app.people.create({ name: 'Ada' }));
  events.length = 0;
  spans.reset();
});
afterAll(async () => {
  for (const { channel, listener } of listeners) channel.unsubscribe(listener);
  await app.close();
  trace.disable();
  context.disable();
});

/** A unit of work that meets a conflict in its first `conflicts` attempts. */
const collide = (conflicts: number, maxAttempts = 10) =>
  app.transactions.run(
    { isolationLevel: 'REPEATABLE READ', maxAttempts, backoff: () => 1 },
    async (transaction) => {
      await transaction.query({ text: 'SELECT FROM people WHERE id = $1', values: [id] });
      if (transaction.attempt <= conflicts)
        await app.database.query('UPDATE people SET name = name WHERE id = $1', [id]);
      await trace.getTracer('work').startActiveSpan('the work', async (span) => {
        await transaction
          .query({ text: `UPDATE people SET name = 'mine' WHERE id = $1`, values: [id] })
          .finally(() => span.end());
      });
      return transaction.id;
    },
  );

it('a unit of work that is repeated tells of each attempt, what ended it, and the wait', async () => {
  const transactionId = await collide(1);
  expect(events).toEqual([
    { event: 'begin', transactionId, attempt: 1, poolWaitMs: expect.any(Number) },
    { event: 'rollback', transactionId, attempt: 1, code: '40001', phase: 'statement' },
    {
      event: 'retry',
      transactionId,
      attempt: 1,
      code: '40001',
      phase: 'statement',
      delayMs: 1,
      error: expect.objectContaining({ code: '40001' }),
    },
    { event: 'begin', transactionId, attempt: 2, poolWaitMs: expect.any(Number) },
    {
      event: 'commit',
      transactionId,
      attempt: 2,
      durationMs: expect.any(Number),
      queueWaitMs: 0,
    },
  ]);
});

it('one that used up its attempts says so, and tells of no commit', async () => {
  await expect(collide(2, 2)).rejects.toMatchObject({ type: 'transaction-retries-exhausted' });
  expect(events.map(({ event }) => event)).toEqual([
    'begin',
    'rollback',
    'retry',
    'begin',
    'rollback',
    'exhausted',
  ]);
});

it('a failure of the work itself has no SQLSTATE', async () => {
  await expect(app.transactions.run({}, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
  expect(events.find(({ event }) => event === 'rollback')).toMatchObject({ code: '', phase: 'statement' });
  expect(events.map(({ event }) => event)).toEqual(['begin', 'rollback', 'failed']);
  expect(events.at(-1)).toMatchObject({ code: '', phase: 'statement', attempt: 1 });
});

it('a unit of work that could not have a connection, or that took too long, says so in place of an SQLSTATE', async () => {
  const places = Array.from({ length: 10 }, () => app.transactions.run({}, () => released));
  await eventually(() => poolOf(app.dataSource).borrowed === 10);
  await expect(app.transactions.run({}, () => Promise.resolve())).rejects.toThrow(
    'Every database connection',
  );
  expect(events.at(-1)).toMatchObject({ event: 'failed', code: 'POOL_EXHAUSTED', phase: 'begin' });
  release();
  await Promise.all(places);
  await expect(app.transactions.run({ timeoutMs: 10 }, () => new Promise(() => undefined))).rejects.toThrow(
    'took too long',
  );
  expect(events.at(-1)).toMatchObject({ event: 'failed', code: 'TRANSACTION_TIMEOUT', phase: 'statement' });
});

it('one that did not have the turn of its key says so, though it made no attempt', async () => {
  let end!: () => void;
  const first = app.transactions.run(
    { conflictKey: 'a key' },
    () => new Promise<void>((done) => (end = done)),
  );
  const late = app.transactions.run({ conflictKey: 'a key', timeoutMs: 10 }, () => Promise.resolve());
  await expect(late).rejects.toThrow('took too long');
  expect(events.at(-1)).toMatchObject({
    ...{ event: 'failed', attempt: 0, code: 'TRANSACTION_TIMEOUT', phase: 'begin' },
  });
  end();
  await first;
});

it('a single statement is a unit of work like any other', async () => {
  await app.people.get(id);
  expect(events.map(({ event }) => event)).toEqual(['begin', 'commit']);
});

it('each attempt is a span below the span of its unit of work, and the work’s own spans hang below it', async () => {
  const transactionId = await collide(1);
  const finished = spans.getFinishedSpans();
  const [unit] = finished.filter(({ name }) => name === 'transaction');
  const attempts = finished.filter(({ name }) => name === 'transaction attempt');
  const works = finished.filter(({ name }) => name === 'the work');
  expect(unit!.attributes).toMatchObject({
    'nestjs_people.transaction.id': transactionId,
    'nestjs_people.transaction.attempts': 2,
  });
  expect(attempts.map(({ parentSpanContext }) => parentSpanContext?.spanId)).toEqual([
    unit!.spanContext().spanId,
    unit!.spanContext().spanId,
  ]);
  expect(works.map(({ parentSpanContext }) => parentSpanContext?.spanId)).toEqual(
    attempts.map((span) => span.spanContext().spanId),
  );
  const [failed, committed] = attempts;
  expect(failed!.events.map(({ name }) => name)).toEqual(['exception']);
  expect(committed!.events).toEqual([]);
});
