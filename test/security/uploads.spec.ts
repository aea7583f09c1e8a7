import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { DataSource } from 'typeorm';
import { ByteBudget } from '../../src/people/byte-budget.js';
import { PeopleModule } from '../../src/people/people.module.js';
import { PeopleService } from '../../src/people/people.service.js';
import { type PeopleApp, poolOf, startPeopleApp } from '../support/people-app.js';
import { eventually } from '../support/barrier.js';
import { RawClient } from '../support/raw-http.js';
import { createDatabase } from '../support/test-database.js';
import { SlowUpload } from './slow-upload.js';

const LINE = '{"name":"x"}\n';
/** More than is gathered before a connection is taken. */
const PIECES = `{"name":"x","data":{"text":"${'x'.repeat(1000)}"}}\n`.repeat(400);
const IDLE_MS = 1000;
const STALLED = {
  status: 408,
  body: expect.objectContaining({
    type: '/problems/request-timeout',
    title: 'Request timeout',
    status: 408,
    detail: `The import has brought nothing for ${IDLE_MS} ms; nothing was changed, send the people again, without such pauses.`,
  }) as unknown,
};
const SLOW = {
  status: 408,
  body: expect.objectContaining({
    type: '/problems/request-timeout',
    detail:
      'The import is slow, and others wait for what it takes; nothing was changed, send the people again, without such pauses.',
  }) as unknown,
};

let app: PeopleApp;
const open: SlowUpload[] = [];
const upload = (path?: string) => {
  const started = new SlowUpload(app.url, path);
  open.push(started);
  return started;
};
const count = async () => (await app.database.query<{ n: number }>('SELECT count(*)::int AS n FROM people'))[0]!.n; // prettier-ignore
const start = async (environment: Record<string, string> = {}) => {
  app = await startPeopleApp({
    DB_POOL_SIZE: '3',
    DB_ACQUIRE_TIMEOUT_MS: '1000',
    PEOPLE_IMPORT_IDLE_MS: String(IDLE_MS),
    ...environment,
  });
};
const bystander = async () => (await app.request('/people?name=nobody')).status;
/** Asks beside what is tried, again and again, until that has ended. */
async function beside<T>(trial: Promise<T>): Promise<T> {
  const over = new AbortController();
  const statuses = new Set<number>();
  const asking = (async () => {
    while (!over.signal.aborted) {
      statuses.add(await bystander());
      await sleep(50, undefined, { signal: over.signal }).catch(() => undefined);
    }
  })();
  try {
    return await trial;
  } finally {
    over.abort();
    await asking;
    expect([...statuses]).toEqual([200]);
  }
}

afterEach(async () => {
  for (const { socket } of open.splice(0)) socket.destroy();
  expect(await bystander()).toBe(200);
  await eventually(() => app.app.get(ByteBudget, { strict: false }).used === 0);
  await app.close();
});

describe('an upload that brings nothing for a while ends with 408', () => {
  it.each<[string, (upload: SlowUpload) => unknown]>([
    ['headers and silence', () => undefined],
    ['a line and silence', (upload) => upload.send(LINE)],
    ['half a line and silence', (upload) => upload.send('{"name":')],
    ['blank lines and silence', (upload) => upload.send('\n\n \n')],
    ['several pieces and silence', (upload) => upload.send(PIECES)],
    ['half a byte in two seconds', (upload) => void upload.send('{"name":"').keepSending('x', 1500)],
    ['several pieces, and then a byte now and then', (upload) => void upload.send(PIECES).keepSending(' ', 700)], // prettier-ignore
  ])('%s', async (_, send) => {
    await start();
    const slow = upload();
    send(slow);
    const answer = await beside(slow.answer());
    expect(answer).toMatchObject(STALLED);
    expect(answer.headers).toContain('connection: close');
    expect(await count()).toBe(0);
    expect(poolOf(app.dataSource).borrowed).toBe(0);
  });
});

it('as many silent uploads as the pool has connections, and more, leave it to others', async () => {
  await start({ DB_STATEMENT_TIMEOUT_MS: '3000' });
  const silent = Array.from({ length: 20 }, () => upload().send(LINE));
  const answers = await beside(Promise.all(silent.map((each) => each.answer())));
  for (const answer of answers) expect(answer).toMatchObject(STALLED);
  expect(await count()).toBe(0);
});

it('200 of them too', async () => {
  await start();
  const silent = Array.from({ length: 200 }, () => upload().send(LINE));
  const answers = await beside(Promise.all(silent.map((each) => each.answer())));
  expect(answers.filter(({ status }) => status === 408)).toHaveLength(200);
  expect(await count()).toBe(0);
});

it('the time in which an upload pauses is not the statement’s', async () => {
  await start({ DB_STATEMENT_TIMEOUT_MS: '300' });
  const honest = upload().send(PIECES);
  const answer = honest.keepSending(LINE, 250, 8).then((each) => each.end().answer());
  expect(await beside(answer)).toMatchObject({ status: 201, body: { inserted: 408 } });
  expect(await count()).toBe(408);
});

it('a line that is longer than its time comes, if it comes steadily', async () => {
  await start();
  const honest = upload().send('{"name":"');
  const answer = honest.keepSending('xxxx', 200, 12).then((each) => each.send('"}\n').end().answer());
  expect(await beside(answer)).toMatchObject({ status: 201, body: { inserted: 1 } });
});

it('a sender that dies gives back its connection, and nothing is stored', async () => {
  await start();
  const dying = upload().send(PIECES);
  await eventually(() => poolOf(app.dataSource).borrowed === 1);
  dying.die();
  await beside(eventually(() => poolOf(app.dataSource).borrowed === 0));
  expect(await count()).toBe(0);
});

it('a share of the pool is importing at most; others wait for a place, and are told so', async () => {
  await start({ DB_POOL_SIZE: '4', PEOPLE_IMPORT_IDLE_MS: '60000' });
  const holders = [upload().send(PIECES), upload().send(PIECES)];
  await eventually(() => poolOf(app.dataSource).borrowed === 2);
  const third = await beside(upload().send(LINE).end().answer());
  expect(third).toMatchObject({
    status: 503,
    body: {
      type: '/problems/import-places-taken',
      detail: 'Other imports take all the connections that imports may have; nothing was changed, try again.',
    },
  });
  expect(third.headers).toContain('retry-after: 1');
  expect(await count()).toBe(0);
  // Whoever waits has the place of the next that ends.
  const waiting = upload().send(LINE).end();
  const [first, last] = await Promise.all([holders[0]!.end().answer(), waiting.answer()]);
  expect([first.status, last.status]).toEqual([201, 201]);
  expect(await holders[1]!.end().answer()).toMatchObject({ status: 201 });
  expect(await count()).toBe(801);
});

it.each([
  ['5', '1', 1],
  ['5', '5', 4],
  ['2', '2', 1],
  ['5', undefined, 2],
  ['1', undefined, 1],
] as const)('a pool of %s with %s places has %s imports at most', async (poolSize, places, expected) => {
  await start({
    DB_POOL_SIZE: poolSize,
    PEOPLE_IMPORT_IDLE_MS: '60000',
    DB_ACQUIRE_TIMEOUT_MS: '10000',
    ...(places && { PEOPLE_IMPORT_PLACES: places }),
  });
  const uploads = Array.from({ length: 6 }, () => upload().send(PIECES));
  await eventually(() => poolOf(app.dataSource).borrowed === expected);
  if (poolSize !== '1') await beside(sleep(200));
  expect(poolOf(app.dataSource).borrowed).toBe(expected);
  for (const each of uploads) each.end();
  for (const each of uploads) expect(await each.answer()).toMatchObject({ status: 201 });
});

it('a slow upload that holds a place others wait for is ended', async () => {
  await start({ DB_POOL_SIZE: '2', PEOPLE_IMPORT_PIECE_MS: '1500', DB_ACQUIRE_TIMEOUT_MS: '10000' });
  const slow = upload().send(PIECES);
  const ended = slow.keepSending(LINE, 200).then((each) => each.answer());
  await eventually(() => poolOf(app.dataSource).borrowed === 1);
  const other = upload().send(LINE).end();
  expect(await beside(ended)).toMatchObject(SLOW);
  expect(await other.answer()).toMatchObject({ status: 201, body: { inserted: 1 } });
  expect(await count()).toBe(1);
});

it('on a pool of one it is ended where anybody waits for the connection', async () => {
  await start({ DB_POOL_SIZE: '1', DB_ACQUIRE_TIMEOUT_MS: '5000' });
  const slow = upload().send(PIECES);
  const ended = slow.keepSending(LINE, 200).then((each) => each.answer());
  await eventually(() => poolOf(app.dataSource).borrowed === 1);
  expect(await beside(ended)).toMatchObject(SLOW);
  expect(await count()).toBe(0);
});

it('what is gathered of slow uploads counts in the budget of memory', async () => {
  await start({ HTTP_MEMORY_BUDGET_BYTES: '1048576', PEOPLE_IMPORT_IDLE_MS: '60000' });
  const text = `{"name":"x","data":{"text":"${'x'.repeat(1000)}"}}\n`.repeat(200);
  const uploads = Array.from({ length: 8 }, () => upload().send(text));
  const answers = Promise.all(uploads.map((each) => each.answer()));
  const budget = app.app.get(ByteBudget, { strict: false });
  await eventually(() => budget.used > 1_000_000);
  expect(budget.used).toBeLessThanOrEqual(1_048_576);
  await eventually(() => uploads.some(({ socket }) => socket.bytesRead > 0), 20_000);
  for (const each of uploads) each.end();
  const statuses = (await answers).map(({ status }) => status);
  expect(new Set(statuses)).toEqual(new Set([201, 503]));
});

it('slow uploads that take half of the memory are ended after a while', async () => {
  await start({ HTTP_MEMORY_BUDGET_BYTES: '1048576', PEOPLE_IMPORT_PIECE_MS: '1500' });
  const text = `{"name":"x","data":{"text":"${'x'.repeat(1000)}"}}\n`.repeat(200);
  const uploads = Array.from({ length: 4 }, () => upload().send(text));
  const answers = uploads.map(async (each) => (await each.keepSending(LINE, 200)).answer());
  expect(await beside(Promise.race(answers))).toMatchObject(SLOW);
  for (const each of uploads) each.die();
  expect(await count()).toBe(0);
});

it('whoever sends on behind a person that is refused reads why, and is read away', async () => {
  await start();
  const going = upload().send(`${LINE}{"name":""}\n`);
  const answer = await going.answer();
  expect(answer).toMatchObject({ status: 400, body: { detail: expect.stringMatching(/^Line 2: /) } });
  // More than buffers on the way hold.
  going.send(PIECES.repeat(40));
  await eventually(() => going.socket.writableLength === 0, 5000);
  expect(await count()).toBe(0);
});

it('of a host on Express an upload that stalls ends with 408 as well', async () => {
  await start();
  const database = await createDatabase();
  const module = {
    module: class HostModule {},
    imports: [
      TypeOrmModule.forRoot({ type: 'postgres', url: database.url, autoLoadEntities: true, installExtensions: false, poolSize: 3 }),
      PeopleModule.forRoot({ controllers: { messages: false }, importIdleMs: IDLE_MS }),
    ],
  }; // prettier-ignore
  const host = await NestFactory.create(module, { logger: false, rawBody: true, abortOnError: false });
  await host.listen(0, '127.0.0.1');
  try {
    const slow = new SlowUpload(await host.getUrl());
    open.push(slow);
    expect(await slow.send(PIECES).answer()).toMatchObject(STALLED);
    const honest = new SlowUpload(await host.getUrl());
    open.push(honest);
    expect(await honest.send(PIECES).end().answer()).toMatchObject({ status: 201 });
    expect(poolOf(host.get(DataSource)).borrowed).toBe(0);
    expect((await host.get(PeopleService).findByName('x')).items).toHaveLength(100);
    // A body whose answer waits behind another of a connection that ends is given back, too.
    const budget = host.get(ByteBudget, { strict: false });
    await database.query('BEGIN');
    await database.query('LOCK TABLE people');
    const client = await RawClient.connect(await host.getUrl());
    const body = `{"name":"${'x'.repeat(100_000)}"}`;
    client.send('GET /people?name=x HTTP/1.1\r\nHost: x\r\n\r\n');
    client.send(
      `PATCH /people/${randomUUID()} HTTP/1.1\r\nHost: x\r\nContent-Type: application/merge-patch+json\r\n`,
    );
    client.send(`Content-Length: ${body.length}\r\n\r\n${body}`);
    await eventually(() => budget.used > 0);
    client.socket.destroy();
    await eventually(() => budget.used === 0);
    await database.query('COMMIT');
  } finally {
    await host.close();
    await database.drop();
  }
});
