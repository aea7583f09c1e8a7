import { barrier, eventually } from '../support/barrier.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';
import { RawClient } from '../support/raw-http.js';

const ADA = '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f';
const HOST = 'Host: localhost\r\n';
const HEAD = `POST /people HTTP/1.1\r\n${HOST}Content-Type: application/json\r\n`;
const MEBIBYTE = 1024 * 1024;

let app: PeopleApp;
const start = async (environment: Record<string, string>) => {
  app = await startPeopleApp({
    HTTP_HEADERS_TIMEOUT_MS: '500',
    HTTP_KEEP_ALIVE_TIMEOUT_MS: '60000',
    HTTP_LINGER_MS: '500',
    ...environment,
  });
  await app.people.create({ id: ADA, name: 'Ada' });
};
afterEach(() => app.close());

const client = () => RawClient.connect(app.url);
const isServed = async () => expect((await app.request(`/people/${ADA}`)).status).toBe(200);

/** Sends `pieces` of `text`, one each `everyMs`, until it is whole or the connection has ended. */
async function trickle({ socket }: RawClient, pieces: string[], everyMs: number) {
  for (const piece of pieces) {
    if (socket.destroyed || !socket.writable) return;
    socket.write(piece);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

describe('a client is not waited for without end', () => {
  it('that says nothing', async () => {
    await start({});
    const silent = await client();
    expect(await silent.ended).toBe('end');
    expect(silent.statuses).toEqual([408]);
    await isServed();
  });

  it('whose headers come a byte at a time', async () => {
    await start({});
    const slow = await client();
    await trickle(slow, [...`GET /people/${ADA} HTTP/1.1\r\n${HOST}X-A: ${'a'.repeat(500)}`], 50);
    await slow.ended;
    expect(slow.statuses).toEqual([408]);
    expect(slow.received).toMatch(/^connection: close\r$/im);
    await isServed();
  });

  it('that asks nothing more on a connection that was kept', async () => {
    await start({ HTTP_KEEP_ALIVE_TIMEOUT_MS: '300' });
    const idle = await client();
    idle.send(`GET /people/${ADA} HTTP/1.1\r\n${HOST}\r\n`);
    expect(await idle.ended).toBe('end');
    expect(idle.statuses).toEqual([200]);
    // 0.3 s, told in whole seconds.
    expect(idle.received).toMatch(/^keep-alive: timeout=\d+\r$/im);
    await isServed();
  });

  it.each([
    ['stops after a byte', 'Content-Length: 100\r\n\r\n{'],
    ['stops before it', 'Content-Length: 100\r\n\r\n'],
    ['stops after a chunk', 'Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n'],
    ['stops within a chunk', 'Transfer-Encoding: chunked\r\n\r\nff\r\n{'],
  ])('whose body %s', async (_title, body) => {
    await start({ HTTP_BODY_GRACE_MS: '400' });
    const stalled = await client();
    stalled.send(HEAD + body);
    expect(await stalled.ended).toBe('end');
    expect(stalled.statuses).toEqual([408]);
    expect(stalled.received).toMatch(/^connection: close\r$/im);
    expect(stalled.received).toContain(
      'The body came too slowly; nothing was changed, send it again, faster.',
    );
    await isServed();
  });

  it.each([
    ['bytes', 'Content-Length: 1000\r\n\r\n', Array<string>(100).fill(' ')],
    ['chunks', 'Transfer-Encoding: chunked\r\n\r\n', Array<string>(100).fill('1\r\n \r\n')],
    [
      'chunks with extensions',
      'Transfer-Encoding: chunked\r\n\r\n',
      Array<string>(100).fill('1;a=aaaaaaaa\r\n \r\n'),
    ],
  ])('whose body trickles in %s', async (_title, headers, pieces) => {
    // 20 a second come, where 100 are wanted.
    await start({ HTTP_BODY_GRACE_MS: '500', HTTP_MIN_BODY_BYTES_PER_SECOND: '100' });
    const slow = await client();
    slow.send(HEAD + headers);
    await trickle(slow, pieces, 50);
    await slow.ended;
    expect(slow.statuses).toEqual([408]);
    await isServed();
  });

  it('who does not read its answer', async () => {
    await start({ HTTP_ANSWER_GRACE_MS: '1500', HTTP_MIN_ANSWER_BYTES_PER_SECOND: '10000000' });
    for (let i = 0; i < 40; i++)
      await app.people.create({ name: 'large', data: { text: 'x'.repeat(500_000) } });
    const reader = await client();
    reader.socket.pause();
    reader.send(`GET /people?name=large HTTP/1.1\r\n${HOST}Accept: application/x-ndjson\r\n\r\n`);
    const connections = () =>
      new Promise((resolve) => app.app.getHttpServer().getConnections((_: unknown, n: number) => resolve(n)));
    await eventually(async () => (await connections()) === 0, 30_000);
    reader.socket.destroy();
    await isServed();
  }, 60_000);
});

it('a slow body that is fast enough is taken, longer though it takes than it may lag', async () => {
  await start({ HTTP_BODY_GRACE_MS: '500', HTTP_MIN_BODY_BYTES_PER_SECOND: '5' });
  const honest = await client();
  const json = '{"name":"slow","data":{"a":1}}'.padEnd(60);
  honest.send(`${HEAD}Connection: close\r\nContent-Length: ${json.length}\r\n\r\n`);
  await trickle(honest, json.match(/.{4}/g)!, 100);
  await honest.ended;
  expect(honest.statuses).toEqual([201]);
});

describe('connections beyond their number', () => {
  it('take the place of the one that has been idle longest', async () => {
    await start({ HTTP_MAX_CONNECTIONS: '20', HTTP_HEADERS_TIMEOUT_MS: '60000' });
    const silent: RawClient[] = [];
    for (let i = 0; i < 20; i++) silent.push(await client());
    for (let i = 0; i < 5; i++) await isServed();
    await Promise.race(silent.map(({ ended }) => ended));
    expect(silent[0]!.socket.destroyed).toBe(true);
    expect(silent[19]!.socket.destroyed).toBe(false);
    for (const { socket } of silent) socket.destroy();
  });

  it('are ended where all others have a request', async () => {
    await start({ HTTP_MAX_CONNECTIONS: '2', HTTP_BODY_GRACE_MS: '60000' });
    const busy = [await client(), await client()];
    for (const each of busy) each.send(`${HEAD}Expect: 100-continue\r\nContent-Length: 12\r\n\r\n`);
    for (const each of busy) await each.receives('100 Continue');
    const third = await client();
    await third.ended;
    expect(third.received).toBe('');
    for (const each of busy) each.send('{"name":"B"}');
    for (const each of busy) await each.receives('"name":"B"');
    for (const { socket } of busy) socket.destroy();
    await eventually(
      async () => (await app.request(`/people/${ADA}`).catch(() => undefined))?.status === 200,
    );
  });
});

it('bodies under way have a budget together, past which they wait and are answered 503', async () => {
  await start({ HTTP_MEMORY_BUDGET_BYTES: String(MEBIBYTE), HTTP_BODY_GRACE_MS: '60000' });
  const first = await client();
  // All of it but the last byte, so that its place stays taken.
  first.send(`${HEAD}Content-Length: ${MEBIBYTE}\r\n\r\n`).send(Buffer.alloc(MEBIBYTE - 1, ' '));
  const second = await client();
  second.send(`${HEAD}Content-Length: ${MEBIBYTE}\r\n\r\n`).send(Buffer.alloc(MEBIBYTE, ' '));
  await Promise.race([first, second].map((each) => each.receives('memory-budget-exhausted')));
  const refused = [first, second].find(({ received }) => received !== '')!;
  expect(refused.statuses).toEqual([503]);
  expect(refused.received).toMatch(/^retry-after: 1\r$/im);
  // Small ones pass all the while.
  await isServed();
  expect((await app.send('POST', '/people', '{"name":"small"}')).status).toBe(201);
  for (const { socket } of [first, second]) socket.destroy();
  // What is given up is given back.
  await eventually(
    async () => (await app.send('POST', '/people', `{"name":"${'x'.repeat(900_000)}"}`)).status === 201,
  );
}, 30_000);

it('while the service stops, answers tell clients to close their connections, kept ones too', async () => {
  await start({});
  const kept = await client();
  kept.send(`GET /people/${ADA} HTTP/1.1\r\n${HOST}\r\n`);
  await kept.receives('"Ada"');
  expect(kept.received).toMatch(/^connection: keep-alive\r$/im);
  // A unit of work that goes on keeps the application stopping for as long.
  const begun = barrier(2);
  const over = barrier(2);
  const unit = app.transactions.run({}, async ({ manager }) => {
    await manager.query('SELECT 1');
    void begun();
    await over();
  });
  await begun();
  const closing = app.app.close();
  kept.received = '';
  kept.send(`GET /health/live HTTP/1.1\r\n${HOST}\r\n`);
  await kept.ended;
  expect([kept.statuses, /^connection: (.*)\r$/im.exec(kept.received)?.[1]]).toEqual([[200], 'close']);
  void over();
  await unit;
  await closing;
  await app.database.drop();
  await start({});
});
