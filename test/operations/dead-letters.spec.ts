import { ValidationPipe } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { SignJWT } from 'jose';
import { managementUrlOf } from '../../src/app/http/operations-access.js';
import { MessagingModule } from '../../src/messaging/messaging.module.js';
import { ConsoleModule } from '../../src/operations/console/console.module.js';
import { MessageOperationsModule } from '../../src/operations/dead-letters/dead-letters.module.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { messagesModule } from '../support/messages-host.js';
import { startPeopleApp } from '../support/people-app.js';
import { RawClient } from '../support/raw-http.js';
import { createDatabase } from '../support/test-database.js';

const SECRET = 'a secret of more than thirty-two characters';
const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const WAITING_FOR_LETTERS = `SELECT FROM pg_locks WHERE relation = 'message_dead_letter'::regclass AND NOT granted`;
const base64 = (text: string) => Buffer.from(text).toString('base64');

const app = duringTests(() => startPeopleApp({ AUTH: 'jwt', AUTH_SECRET: SECRET, MANAGEMENT_PORT: '0' }));
const managementUrl = () => managementUrlOf(app.app.getHttpAdapter().getInstance())!;

const tokenFor = async (scope: string, sub = 'alice') =>
  new SignJWT({ scope, sub, iss: 'https://issuer.test' })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('1h')
    .sign(new TextEncoder().encode(SECRET));

async function call(
  method: string,
  path: string,
  body?: object | string,
  scope = 'people:read people:operate',
) {
  const response = await fetch(`${managementUrl()}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${await tokenFor(scope)}`,
      ...(body !== undefined && { 'content-type': 'application/json' }),
    },
    ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    body: text === '' ? undefined : JSON.parse(text),
  };
}
const see = (path: string) => call('GET', path);
const act = (path: string, body: object = { reason: 'INC-1' }) => call('POST', path, body);
const CAUSES = [
  { type: 'InvalidInputError', message: 'name must be a text', stack: '    at check (person.dto.ts:1:1)' },
  { type: 'TypeError', message: 'the cause of it', code: 'ERR_X' },
];

/** A dead letter, marked as handled, as the transport makes it. @returns its number */
async function deadLetter(letter: Record<string, unknown> = {}): Promise<string> {
  const row = {
    topic: 'people.create',
    key: 'ada',
    value: '{"name":1}',
    headers: '[]',
    code: 'INVALID_INPUT',
    ...letter,
  };
  const [{ seq, message_id }] = (await app.database.query<{ seq: string; message_id: string }>(
    `INSERT INTO message_dead_letter (consumer, message_id, topic, partition, "offset", "timestamp", key, value, headers, code, message, attempts, cause)
     VALUES ('people', gen_random_uuid(), $1, 0, 7, '1700000000000', $2, $3, $4, $5, 'what was wrong', 3, $6) RETURNING seq::text, message_id`,
    [row.topic, row.key === null ? null : Buffer.from(row.key), Buffer.from(row.value), row.headers, row.code, JSON.stringify(CAUSES)],
  )) as [{ seq: string; message_id: string }]; // prettier-ignore
  await app.database.query(`INSERT INTO message_inbox (consumer, message_id, digest) VALUES ('people', $1, '')`, [message_id]); // prettier-ignore
  return seq;
}
const quarantine = (topic: string, key: string) =>
  app.database.query(`INSERT INTO message_quarantine (consumer, topic, key_hash) VALUES ('people', $1, sha256($2))`, [topic, Buffer.from(key)]); // prettier-ignore
const rowOf = async (seq: string) =>
  (await app.database.query(`SELECT message_id, state, value, headers::text, attempts FROM message_dead_letter WHERE seq = $1`, [seq]))[0]!; // prettier-ignore
const audited = async () => (await see('/messages/audit')).body.items;

beforeEach(async () => {
  for (const table of [
    'message_dead_letter',
    'message_inbox',
    'message_outbox',
    'message_quarantine',
    'message_audit',
  ])
    await app.database.query(`DELETE FROM ${table}`);
});

describe('a dead letter over HTTP', () => {
  it('is listed in pages, by topic, code, key and state', async () => {
    const first = await deadLetter();
    const second = await deadLetter({ topic: 'people.update', code: 'INTERNAL_ERROR', key: 'grace' });
    const third = await deadLetter({ key: 'grace' });
    await app.database.query(`UPDATE message_dead_letter SET state = 'discarded', settled_at = now() WHERE seq = $1`, [third]); // prettier-ignore
    const seqs = async (query: string) => {
      const { body } = await see(`/messages/dead-letters${query}`);
      return [body.items.map(({ seq }: { seq: string }) => seq), body.next];
    };
    expect(await seqs('')).toEqual([[first, second], null]);
    expect(await seqs('?limit=1')).toEqual([[first], first]);
    expect(await seqs(`?limit=1&after=${first}`)).toEqual([[second], second]);
    expect(await seqs('?topic=people.update')).toEqual([[second], null]);
    expect(await seqs('?code=INVALID_INPUT')).toEqual([[first], null]);
    expect(await seqs('?key=grace')).toEqual([[second], null]);
    expect(await seqs('?state=discarded')).toEqual([[third], null]);
  });

  it.each([
    ['?limit=0', '#/limit'],
    ['?limit=many', '#/limit'],
    ['?state=lost', '#/state'],
    ['?after=x', '#/after'],
    ['?color=red', '#/color'],
  ])('is not looked for by %s', async (query, pointer) => {
    const { status, body } = await see(`/messages/dead-letters${query}`);
    expect([status, body.errors.map((error: { pointer: string }) => error.pointer)]).toEqual([
      400,
      [pointer],
    ]);
  });

  it('is shown with its bytes, headers, causes and trace', async () => {
    const headers = JSON.stringify([
      ['traceparent', base64(`00-${TRACE}-00f067aa0ba902b7-01`)],
      ['twice', [base64('1'), base64('2')]],
      ['none', null],
      ['bytes', Buffer.of(0xff, 0).toString('base64')],
    ]);
    const seq = await deadLetter({ value: '{"name":18446744073709551615}', headers });
    const { status, body } = await see(`/messages/dead-letters/${seq}`);
    expect(status).toBe(200);
    expect(body).toMatchObject({
      ...{
        seq,
        state: 'dead',
        topic: 'people.create',
        partition: 0,
        offset: '7',
        attempts: 3,
        consumer: 'people',
      },
      ...{
        timestamp: '1700000000000',
        key: 'ada',
        keyBytes: { text: 'ada' },
        traceId: TRACE,
        causes: CAUSES,
      },
      value: { text: '{"name":18446744073709551615}' },
      ...{ valueLength: 29, hasAllHeaders: true, isQuarantined: false },
      headers: [
        { name: 'traceparent', value: { text: `00-${TRACE}-00f067aa0ba902b7-01` } },
        { name: 'twice', value: { text: '1' } },
        { name: 'twice', value: { text: '2' } },
        { name: 'none', value: null },
        { name: 'bytes', value: { base64: '/wA=' } },
      ],
    });
  });

  it('whose value has more than 1 MiB is shown without it', async () => {
    const seq = await deadLetter({ value: 'x'.repeat(1024 * 1024 + 1) });
    const { body } = await see(`/messages/dead-letters/${seq}`);
    expect([body.value, body.valueLength]).toEqual([null, 1024 * 1024 + 1]);
  });

  it('is shown to so many at once as there is room for', async () => {
    const seq = await deadLetter();
    await app.database.query('BEGIN');
    await app.database.query('LOCK TABLE message_dead_letter');
    const shown = Array.from({ length: 8 }, () => see(`/messages/dead-letters/${seq}`));
    await eventually(async () => (await app.database.query(WAITING_FOR_LETTERS)).length === 8);
    expect((await see(`/messages/dead-letters/${seq}`)).status).toBe(503);
    await app.database.query('COMMIT');
    expect((await Promise.all(shown)).map(({ status }) => status)).toEqual(Array(8).fill(200));
    expect((await see(`/messages/dead-letters/${seq}`)).status).toBe(200);
  });

  it('is replayed once, and it is kept who did it and why', async () => {
    const seq = await deadLetter();
    const answers = await Promise.all([1, 2].map(() => act(`/messages/dead-letters/${seq}/replay`)));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409]);
    expect(answers.find(({ status }) => status === 409)!.body).toMatchObject({
      type: '/problems/dead-letter-settled',
    });
    expect(await app.database.query('SELECT type, dead_letter FROM message_outbox')).toEqual([{ type: 'replay', dead_letter: seq }]); // prettier-ignore
    expect(await app.database.query('SELECT FROM message_inbox')).toEqual([]);
    expect(await audited()).toEqual([
      {
        ...{ seq: expect.any(String), at: expect.any(String), actor: 'alice (https://issuer.test)' },
        ...{ action: 'replay', reason: 'INC-1', deadLetter: seq, topic: null, details: null },
      },
    ]);
  });

  it('is discarded with a reason, and stays handled', async () => {
    const seq = await deadLetter();
    expect((await act(`/messages/dead-letters/${seq}/discard`, { reason: 'twice' })).status).toBe(200);
    expect((await rowOf(seq)).state).toBe('discarded');
    expect(await app.database.query('SELECT FROM message_inbox')).toHaveLength(1);
    expect(await audited()).toMatchObject([{ action: 'discard', reason: 'twice', deadLetter: seq }]);
  });

  it('is corrected: a copy is handled under an id of its own, what came is kept, and stays handled', async () => {
    const headers = JSON.stringify([['message-id', base64('theirs')], ['own', base64('1')]]); // prettier-ignore
    const seq = await deadLetter({ headers });
    const before = await rowOf(seq);
    // Not on its way to the dead letter topic yet: what goes there is what came.
    await app.database.query(
      `INSERT INTO message_outbox (aggregatetype, aggregateid, type, topic, dead_letter) VALUES ('dead-letter', 'a', 'dead-letter', 'people.create-dlt', $1)`,
      [seq],
    );
    const { status, body } = await act(`/messages/dead-letters/${seq}/correct`, {
      reason: 'the name was a number',
      value: { text: '{"name":"Ada"}' },
    });
    expect([status, body]).toEqual([200, { seq, original: expect.stringMatching(/^\d+$/) }]);
    expect(await rowOf(body.original)).toEqual({ ...before, state: 'discarded' });
    const after = await rowOf(seq);
    expect([after.state, String(after.value)]).toEqual(['replayed', '{"name":"Ada"}']);
    expect(after.message_id).not.toBe(before.message_id);
    expect(JSON.parse(after.headers as string)).toEqual([
      ['own', base64('1')],
      ['message-id', base64(after.message_id as string)],
    ]);
    expect(await app.database.query('SELECT type, dead_letter FROM message_outbox ORDER BY type')).toEqual([
      { type: 'dead-letter', dead_letter: body.original },
      { type: 'replay', dead_letter: seq },
    ]);
    expect(await app.database.query('SELECT message_id FROM message_inbox')).toEqual([{ message_id: before.message_id }]); // prettier-ignore
    expect(await audited()).toMatchObject([
      { action: 'correct', deadLetter: seq, details: { original: body.original } },
    ]);
    const again = await act(`/messages/dead-letters/${seq}/correct`, { reason: 'again', value: null });
    expect(again.status).toBe(409);
  });

  it('of a quarantined key is corrected in its place', async () => {
    const seq = await deadLetter();
    const behind = await deadLetter();
    await app.database.query(`UPDATE message_dead_letter SET state = 'parked' WHERE seq = $1`, [behind]);
    await quarantine('people.create', 'ada');
    const corrected = { reason: 'x', value: { base64: base64('{"name":"Ada"}') }, headers: [{ name: 'new', value: { text: '1' } }] }; // prettier-ignore
    expect((await see(`/messages/dead-letters/${seq}`)).body.isQuarantined).toBe(true);
    expect((await act(`/messages/dead-letters/${seq}/correct`, corrected)).status).toBe(200);
    const { state, value, attempts } = await rowOf(seq);
    expect([state, String(value), attempts]).toEqual(['parked', '{"name":"Ada"}', 0]);
    expect(
      await app.database.query('SELECT FROM message_quarantine WHERE released_at IS NOT NULL'),
    ).toHaveLength(1);
    expect(await app.database.query('SELECT FROM message_outbox')).toEqual([]);
  });

  it.each([
    ['without a reason', '{}', 400],
    ['with an empty reason', '{"reason":""}', 400],
    ['with a reason that PostgreSQL can not store', '{"reason":"\\u0000"}', 400],
    ['with a field that nobody knows', '{"reason":"x","force":true}', 400],
    ['with half a body', '{"reason":', 400],
    ['with more than 4 MiB', `{"reason":"${'x'.repeat(4 * 1024 * 1024)}"}`, 413],
  ])('is not discarded %s', async (_title, body, status) => {
    const seq = await deadLetter();
    expect((await call('POST', `/messages/dead-letters/${seq}/discard`, body)).status).toBe(status);
    expect((await rowOf(seq)).state).toBe('dead');
    expect(await audited()).toEqual([]);
  });

  it.each([
    ['no value', { reason: 'x' }, '#/value'],
    ['a value of both kinds', { reason: 'x', value: { text: 'a', base64: 'YQ==' } }, '#/value'],
    ['a value that is no base64', { reason: 'x', value: { base64: '?' } }, '#/value'],
    ['a header without a name', { reason: 'x', value: null, headers: [{ value: null }] }, '#/headers'],
  ])('is not corrected with %s', async (_title, body, pointer) => {
    const seq = await deadLetter();
    const answer = await act(`/messages/dead-letters/${seq}/correct`, body);
    expect([answer.status, answer.body.errors[0].pointer]).toEqual([400, pointer]);
    expect((await rowOf(seq)).state).toBe('dead');
  });

  it('that is not there is a problem that says so', async () => {
    for (const { status, body } of [
      await see('/messages/dead-letters/4711'),
      await act('/messages/dead-letters/4711/replay'),
      await act('/messages/dead-letters/4711/correct', { reason: 'x', value: null }),
    ])
      expect([status, body.type]).toEqual([404, '/problems/dead-letter-not-found']);
    expect((await see('/messages/dead-letters/x')).status).toBe(400);
  });
});

describe('keys that wait', () => {
  it('are listed with what waits, and released though their dead letter is left', async () => {
    await deadLetter();
    const waiting = await deadLetter();
    await app.database.query(`UPDATE message_dead_letter SET state = 'parked' WHERE seq = $1`, [waiting]);
    await quarantine('people.create', 'ada');
    await quarantine('people.update', 'gone');
    const { body } = await see('/messages/waiting-keys');
    expect(body).toMatchObject({
      items: [
        { topic: 'people.create', key: 'ada', dead: 1, parked: 1, releasedAt: null },
        { topic: 'people.update', key: null, dead: 0, parked: 0 },
      ],
      next: null,
    });
    const page = (await see('/messages/waiting-keys?limit=1')).body;
    const next = await see(`/messages/waiting-keys?limit=1&after=${encodeURIComponent(page.next)}`);
    expect(next.body.items).toMatchObject([{ topic: 'people.update' }]);
    const { topic, hash } = body.items[0];
    const released = await act('/messages/waiting-keys/release', { topic, hash, reason: 'goes on' });
    expect([released.status, released.body]).toEqual([200, { topic, hash }]);
    expect((await see('/messages/waiting-keys?topic=people.create')).body.items[0].releasedAt).toEqual(expect.any(String)); // prettier-ignore
    expect((await act('/messages/waiting-keys/release', { topic, hash, reason: 'again' })).status).toBe(404);
    expect(await audited()).toMatchObject([{ action: 'release-key', topic, details: { hash } }]);
  });
});

describe('who may do what', () => {
  it('sees with people:read, acts with people:operate, and is told which scope is missing', async () => {
    const seq = await deadLetter();
    const refusals = [
      ['GET', '/messages/dead-letters', 'people:operate people:write', 'people:read'],
      ['GET', `/messages/dead-letters/${seq}`, 'people:write', 'people:read'],
      ['GET', '/messages/audit', '', 'people:read'],
      ['GET', '/messages/waiting-keys', '', 'people:read'],
      ['POST', `/messages/dead-letters/${seq}/replay`, 'people:read people:write', 'people:operate'],
      ['POST', `/messages/dead-letters/${seq}/discard`, 'people:read people:write', 'people:operate'],
      ['POST', `/messages/dead-letters/${seq}/correct`, 'people:read people:write', 'people:operate'],
      ['POST', '/messages/waiting-keys/release', 'people:read people:write', 'people:operate'],
    ] as const;
    for (const [method, path, scope, missing] of refusals) {
      const { status, headers, body } = await call(
        method,
        path,
        method === 'GET' ? undefined : { reason: 'x' },
        scope,
      );
      expect([path, status, body.detail]).toEqual([
        path,
        403,
        `The bearer token lacks the scope ${missing}.`,
      ]);
      expect(headers.get('www-authenticate')).toBe(`Bearer error="insufficient_scope", scope="${missing}"`);
    }
    expect((await rowOf(seq)).state).toBe('dead');
  });

  it('brings a token to the management port too, and is not answered on the other', async () => {
    for (const path of ['/messages/dead-letters', '/messages/audit', '/messages/waiting-keys']) {
      expect((await fetch(`${managementUrl()}${path}`)).status).toBe(401);
      const headers = { authorization: `Bearer ${await tokenFor('people:read people:operate')}` };
      expect((await app.request(path, { headers })).status).toBe(404);
    }
  });

  it('finds people on the management port with a token alone, and changes none there', async () => {
    const person = await app.people.create({ name: 'Ada' });
    expect((await see('/people?name=Ada')).body.items).toMatchObject([{ id: person.id }]);
    expect((await call('GET', '/people?name=Ada', undefined, 'people:operate')).status).toBe(403);
    expect((await fetch(`${managementUrl()}/people?name=Ada`)).status).toBe(404);
    expect((await call('POST', '/people', { name: 'Eve' }, 'people:write')).status).toBe(404);
  });
});

it('where nobody is asked for a token, messages are not shown to other machines than those that see people', async () => {
  const open = await startPeopleApp({ MANAGEMENT_PORT: '0', MANAGEMENT_HOST: '0.0.0.0' });
  try {
    const url = managementUrlOf(open.app.getHttpAdapter().getInstance())!.replace('0.0.0.0', '127.0.0.1');
    expect((await fetch(`${url}/metrics`)).status).toBe(200);
    expect((await fetch(`${url}/messages/dead-letters`)).status).toBe(404);
  } finally {
    await open.close();
  }
});

it('without a management port they are on the other, and need a token there', async () => {
  const alone = await startPeopleApp({ AUTH: 'jwt', AUTH_SECRET: SECRET });
  try {
    for (const path of ['/messages/dead-letters', '/messages/audit', '/console'])
      expect([path, (await alone.request(path)).status]).toEqual([path, 401]);
    const headers = { authorization: `Bearer ${await tokenFor('people:read')}` };
    expect((await alone.request('/messages/dead-letters', { headers })).status).toBe(200);
  } finally {
    await alone.close();
  }
});

it.each([
  ['Express', () => new ExpressAdapter()],
  ['Fastify', () => new FastifyAdapter()],
])('a host on %s has the routes and the page, and says who it is that asks', async (_, adapter) => {
  const database = await createDatabase();
  const operatorOf = ({ headers }: { headers: Record<string, string> }) => headers['x-user'];
  const imports = [MessagingModule.forRoot(), MessageOperationsModule.forRoot({ operatorOf }), { module: ConsoleModule }]; // prettier-ignore
  const host = await NestFactory.create(messagesModule(database, [], imports), adapter(), {
    logger: false,
    abortOnError: false,
  });
  host.setGlobalPrefix('admin');
  host.useGlobalPipes(new ValidationPipe({ transform: true, whitelist: true, forbidNonWhitelisted: true }));
  try {
    await host.listen(0, '127.0.0.1');
    const url = `${await host.getUrl()}/admin`;
    await database.query(
      `INSERT INTO message_dead_letter (seq, consumer, message_id, topic, partition, "offset", "timestamp", headers, code, message, attempts)
       OVERRIDING SYSTEM VALUE VALUES (7, 'host', 'm', 'orders', 0, 1, '0', '[]', 'BAD', '', 1)`,
    );
    const discard = (user?: string) =>
      fetch(`${url}/messages/dead-letters/7/discard`, {
        method: 'POST',
        body: '{"reason":"x"}',
        headers: { 'content-type': 'application/json', ...(user && { 'x-user': user }) },
      });
    expect((await fetch(`${url}/messages/dead-letters`)).status).toBe(403);
    expect((await discard()).status).toBe(403);
    const listed = await fetch(`${url}/messages/dead-letters?limit=5`, { headers: { 'x-user': 'bob' } });
    expect(((await listed.json()) as { items: object[] }).items).toMatchObject([{ seq: '7', code: 'BAD' }]);
    expect((await discard('bob')).status).toBe(200);
    expect(await database.query('SELECT actor, action FROM message_audit')).toEqual([{ actor: 'bob', action: 'discard' }]); // prettier-ignore
    for (const path of ['/console', '/console/console.js', '/console/console.css'])
      expect([path, (await fetch(url + path)).status]).toEqual([path, 200]);
    // Answers that wait behind another of a connection that ends give their places back.
    const show = async () =>
      (await fetch(`${url}/messages/dead-letters/7`, { headers: { 'x-user': 'bob' } })).status;
    await database.query('BEGIN');
    await database.query('LOCK TABLE message_dead_letter');
    const client = await RawClient.connect(url);
    const ask = (path: string) =>
      `GET /admin/messages/dead-letters${path} HTTP/1.1\r\nHost: x\r\nX-User: bob\r\n\r\n`;
    client.send(ask('') + ask('/7').repeat(8));
    // As many as the pool has connections; the others wait for one.
    await eventually(async () => (await database.query(WAITING_FOR_LETTERS)).length === 6);
    expect(await show()).toBe(503);
    client.socket.destroy();
    await database.query('COMMIT');
    await eventually(async () => (await show()) === 200);
  } finally {
    await host.close();
    await database.drop();
  }
});
