import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { SignJWT } from 'jose';
import type { ServiceSettings } from '../../src/app/app.module.js';
import { createApp } from '../../src/app/create-app.js';
import { readEnvironment } from '../../src/app/environment.js';
import { JsonLogger } from '../../src/operations/json-logger.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { RawClient } from '../support/raw-http.js';
import { createDatabase } from '../support/test-database.js';

const SECRET = 'hunter2-hunter2-hunter2-hunter2-hunter2';
const ID = '01938c5e-7a1b-7c3d-9e2f-000000000001';

const tokenFor = (scope: string, sub?: string) =>
  new SignJWT({ scope, ...(sub && { sub }) })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('1h')
    .sign(new TextEncoder().encode(SECRET));

type Line = Partial<Record<string, unknown>>;

let url: string;
let token: string;
let log: string[] = [];

/** The service, its log kept in `log`. */
async function start(level: string, databaseUrl = database.url) {
  const settings = readEnvironment({
    DATABASE_URL: databaseUrl,
    KAFKA: 'off',
    PORT: '0',
    AUTH: 'jwt',
    AUTH_SECRET: SECRET,
    LOG_LEVEL: level,
  }) as ServiceSettings;
  const started = await createApp(settings, new JsonLogger(level, { write: (line) => void log.push(line) }));
  await started.listen({ port: 0, host: '127.0.0.1' });
  return started;
}

const database = duringTests(() => createDatabase());
const app = duringTests(() => start('trace'));
beforeAll(async () => {
  url = await app.getUrl();
  token = await tokenFor('people:read people:write');
});
beforeEach(() => (log = []));

const lines = () => log.map((line) => JSON.parse(line) as Line);
async function send(method: string, path: string, body?: string, headers: Record<string, string> = {}) {
  const response = await fetch(`${url}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${token}`,
      ...(body && { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body && { body }),
  });
  await response.text();
  const requestId = response.headers.get('x-request-id');
  // Its line is written once the answer is sent.
  const line = await eventually(() =>
    lines().find((each) => each.msg === 'request' && each.requestId === requestId),
  );
  return { status: response.status, line };
}

/** Renames the table while `work` runs, so that every statement of the service fails. */
async function withoutTable<T>(work: () => Promise<T>): Promise<T> {
  await database.query('ALTER TABLE people RENAME TO away');
  try {
    return await work();
  } finally {
    await database.query('ALTER TABLE away RENAME TO people');
  }
}

/** Puts a view in the table's place while `work` runs, whose rows can't be read. */
const withBrokenTable = <T>(work: () => Promise<T>) =>
  withoutTable(async () => {
    await database.query('CREATE VIEW people AS SELECT id, name, (1 / (xmin::text::bigint * 0))::text::json AS data, xmin, ctid FROM away'); // prettier-ignore
    try {
      return await work();
    } finally {
      await database.query('DROP VIEW people');
    }
  });

describe('the log', () => {
  beforeEach(() => database.query('ALTER TABLE people DROP CONSTRAINT IF EXISTS nobody; DELETE FROM people'));

  it('has one JSON object a line with time and level, from the first line on', async () => {
    const other = await start('debug');
    await other.close();
    expect(log.length).toBeGreaterThan(10);
    for (const line of log) {
      expect(line).toMatch(/^\{.*\}\n$/);
      expect(JSON.parse(line)).toMatchObject({
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
        level: expect.stringMatching(/^(trace|debug|info|warn|error|fatal)$/),
      });
    }
  });

  it("tells of each request its id, method, route and status, and of the path only the route's pattern", async () => {
    await send('POST', '/people', `{"id":"${ID}","name":"Ada"}`, { 'x-request-id': 'trace-7' });
    await send('GET', `/people/${ID}`);
    await send('GET', '/people?name=Ada');
    await send('GET', '/nowhere/Ada');
    await send('PUT', '/people');
    const told = lines().map(({ method, route, status, level }) => [level, method, route, status]);
    expect(told).toEqual([
      ['info', 'POST', '/people', 201],
      ['info', 'GET', '/people/:id', 200],
      ['info', 'GET', '/people', 200],
      ['info', 'GET', 'none', 404],
      ['info', 'PUT', 'none', 405],
    ]);
    expect(lines()[0]).toMatchObject({ requestId: 'trace-7', ms: expect.any(Number) });
  });

  it('has the error of a request that failed, with its cause and under the same request id', async () => {
    await send('POST', '/people', `{"id":"${ID}","name":"Ada"}`);
    const { status, line } = await withBrokenTable(() => send('GET', `/people/${ID}`));
    expect(status).toBe(500);
    const failure = lines().find(({ level }) => level === 'error');
    expect(failure).toMatchObject({
      requestId: line.requestId,
      type: 'internal-error',
      err: {
        message: 'division by zero',
        code: '22012',
        stack: expect.stringContaining('.ts:'),
      },
    });
  });

  it('has the chain of causes of what the service says in its own words', async () => {
    await database.query(
      `CREATE FUNCTION cancel() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN RAISE EXCEPTION 'too slow' USING ERRCODE = '57014'; END $$`,
    );
    await database.query('CREATE TRIGGER cancel BEFORE INSERT ON people EXECUTE FUNCTION cancel()');
    const { status } = await send('POST', '/people', '{"name":"Ada"}');
    await database.query('DROP TRIGGER cancel ON people');
    expect(status).toBe(503);
    expect(lines().find(({ level }) => level === 'warn')).toMatchObject({
      type: 'statement-timeout',
      err: { type: 'StatementTimeoutError', cause: { message: 'too slow', code: '57014' } },
    });
  });

  // @trap each request fails while the database is away
  it('has a state that every request meets once, with the number of the others, and says when it is over', async () => {
    const failures = () => lines().filter(({ type }) => type === 'database-unavailable');
    const again = () =>
      lines().filter(
        ({ msg, operation }) =>
          msg === 'requests that failed are answered again' && operation === 'DELETE /people/:id',
      );
    const answers = await withoutTable(() =>
      Promise.all(Array.from({ length: 30 }, () => send('DELETE', `/people/${ID}`))),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(30).fill(503));
    expect(failures().filter(({ level }) => level === 'warn')).toHaveLength(1);
    // Whoever needs each of them asks for more.
    expect(failures().filter(({ level }) => level === 'debug')).toHaveLength(29);
    await eventually(async () => {
      await send('POST', '/people', `{"id":"${ID}","name":"Ada"}`);
      expect((await send('DELETE', `/people/${ID}`)).status).toBe(204);
      return again().length > 0;
    }, 20_000);
    expect(again()).toEqual([expect.objectContaining({ level: 'info' })]);
  });

  it("says nothing of errors that are the caller's", async () => {
    await send('POST', '/people', '{"name":""}');
    await send('GET', '/people/x');
    expect(lines().map(({ level, msg }) => [level, msg])).toEqual(Array(2).fill(['info', 'request']));
  });

  it('never has a password, a token, people, or the values of a statement', async () => {
    const person = `{"id":"${ID}","name":"Zaphod-Name","data":{"zaphod_key":"zaphod value","n":4711471147114711}}`;
    const everything = async () => {
      await send('POST', '/people', person);
      await send('POST', '/people', person.replace('4711', '4712'));
      await send('POST', '/people/bulk', `[${person},${person}]`);
      await send('POST', '/people/bulk', `${person}\n${person}\n`, {
        'content-type': 'application/x-ndjson',
      });
      await send('POST', '/people', person.replace('{"zaphod', '{zaphod'));
      await send('PATCH', `/people/${ID}`, '{"name":"Zaphod-Name"}', { 'if-match': '"1.2.3"' });
      await send('GET', '/people?name=Zaphod-Name');
      await send('GET', '/people/Zaphod-Name');
      await send('GET', `/people/${ID}`, undefined, { authorization: `Bearer ${token}x` });
      await send('DELETE', `/people/${ID}`);
    };
    await everything();
    await withoutTable(everything);
    await send('POST', '/people', person);
    await withBrokenTable(everything);
    await database.query(`ALTER TABLE people ADD CONSTRAINT nobody CHECK (name = 'Nobody') NOT VALID`);
    await everything();
    const text = log.join('');
    expect(lines().filter(({ level }) => level !== 'info').length).toBeGreaterThan(5);
    const secrets = [
      // Alone it is a word of the stacks' files as well.
      `:${new URL(database.url).password}@`,
      'hunter2',
      token,
      'Zaphod',
      'zaphod',
      '4711471147114711',
      '4712471147114711',
      ID,
      '$1',
    ];
    expect(secrets.filter((secret) => text.includes(secret))).toEqual([]);
  });

  it('has the level that people on call set, and says at any level who did it and why', async () => {
    const operator = await tokenFor('people:read people:operate', 'alice');
    const set = (level: string, reason: string, by = operator) =>
      fetch(`${url}/logs/level`, {
        method: 'POST',
        headers: { authorization: `Bearer ${by}`, 'content-type': 'application/json' },
        body: JSON.stringify({ level, reason }),
      });
    const level = async () => {
      const shown = await fetch(`${url}/logs/level`, { headers: { authorization: `Bearer ${token}` } });
      return ((await shown.json()) as { level: string }).level;
    };
    expect((await set('silent', 'x', token)).status).toBe(403);
    expect((await set('loud', 'x')).status).toBe(400);
    expect(await level()).toBe('trace');
    expect((await set('silent', 'INC-1')).status).toBe(200);
    expect(await level()).toBe('silent');
    log = [];
    await fetch(`${url}/nowhere`);
    expect((await set('error', 'INC-2')).status).toBe(200);
    expect((await set('trace', 'INC-3')).status).toBe(200);
    const msg = 'the level of the log is another';
    const isOfLevel = (line: Line) => line.msg === msg || line.route === 'none';
    await eventually(() => lines().some(({ route }) => route === '/logs/level'));
    expect(lines().filter(isOfLevel)).toMatchObject([
      { msg, from: 'silent', to: 'error', actor: 'alice', reason: 'INC-2' },
      { msg, from: 'error', to: 'trace', actor: 'alice', reason: 'INC-3' },
    ]);
  });

  it('does not have the password of a database that refuses it', async () => {
    const wrong = new URL(database.url);
    wrong.password = 'wrong-horse';
    await expect(start('trace', wrong.href)).rejects.toThrow(/password authentication failed/);
    expect(log.join('')).toContain('password authentication failed');
    expect(log.join('')).not.toContain('wrong-horse');
  });
});

it.each([
  ['its body', 'POST /people HTTP/1.1', 'Content-Type: application/json\r\nContent-Length: 100', '{'],
  [
    'an import',
    'POST /people/bulk HTTP/1.1',
    'Content-Type: application/x-ndjson\r\nContent-Length: 100',
    '{',
  ],
])('a client that leaves in the midst of %s is no error', async (_title, line, headers, body) => {
  const client = await RawClient.connect(url);
  client.send(`${line}\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n${headers}\r\n\r\n${body}`);
  // Its headers are read, as those of a later one are.
  await fetch(`${url}/health/live`);
  client.socket.resetAndDestroy();
  await client.ended;
  await eventually(async () => {
    await fetch(`${url}/health/live`, { headers: { connection: 'close' } });
    return (await connectionsOf(app)) <= 1;
  });
  expect(lines().filter(({ level }) => level === 'error' || level === 'warn')).toEqual([]);
});

const connectionsOf = (service: NestFastifyApplication) =>
  new Promise<number>((resolve) => {
    service.getHttpServer().getConnections((_: unknown, count: number) => resolve(count));
  });
