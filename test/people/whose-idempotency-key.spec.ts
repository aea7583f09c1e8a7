import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { APP_GUARD, NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { type JWTPayload, SignJWT } from 'jose';
import { digestOf } from '../../src/messaging/message-identity.js';
import { PeopleModule } from '../../src/people/people.module.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { messagesModule } from '../support/messages-host.js';
import { startPeopleApp } from '../support/people-app.js';
import { createDatabase, openDatabase } from '../support/test-database.js';

const SECRET = 'a secret of more than thirty-two characters';
const ISSUER = 'https://issuer.test';
const KEY = { 'idempotency-key': 'order 7' };

const bearer = async (claims: JWTPayload, expires = '1h') => {
  const token = await new SignJWT({ scope: 'people:write', ...claims })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime(expires)
    .sign(new TextEncoder().encode(SECRET));
  return { authorization: `Bearer ${token}` };
};

describe('with AUTH=jwt', () => {
  const app = duringTests(() => startPeopleApp({ AUTH: 'jwt', AUTH_SECRET: SECRET }));
  beforeEach(() => app.database.query('TRUNCATE people, message_inbox'));

  const post = async (claims: JWTPayload, name: string, expires?: string) =>
    app.send('POST', '/people', `{"name":"${name}"}`, { ...KEY, ...(await bearer(claims, expires)) });

  it('a caller that repeats its request with another token is answered as the first time', async () => {
    const first = await post({ iss: ISSUER, sub: 'ada', jti: '1' }, 'Ada');
    const again = await post({ iss: ISSUER, sub: 'ada', jti: '2', client_id: 'web' }, 'Ada', '2h');
    expect([first.status, again.status]).toEqual([201, 200]);
    expect(await again.text()).toBe(await first.text());
    expect((await post({ iss: ISSUER, sub: 'ada' }, 'Bob')).status).toBe(409);
  });

  it.each<[string, JWTPayload, JWTPayload]>([
    ['another sub', { iss: ISSUER, sub: 'ada' }, { iss: ISSUER, sub: 'bob' }],
    [
      'the same sub of another issuer',
      { iss: ISSUER, sub: 'ada' },
      { iss: 'https://other.test', sub: 'ada' },
    ],
    ['the same sub of no issuer', { iss: ISSUER, sub: 'ada' }, { sub: 'ada' }],
    ['a client of that name', { iss: ISSUER, sub: 'ada' }, { iss: ISSUER, client_id: 'ada' }],
    ['another client', { iss: ISSUER, client_id: 'shop' }, { iss: ISSUER, client_id: 'till' }],
    ['another authorized party', { iss: ISSUER, azp: 'shop' }, { iss: ISSUER, azp: 'till' }],
    ['a token that names nobody', { iss: ISSUER, sub: 'ada' }, { iss: ISSUER }],
    ['a name that continues the issuer’s', { iss: 'a', sub: 'b c' }, { iss: 'a b', sub: 'c' }],
    ['a name with what separates names', { iss: 'a","sub","b', sub: 'c' }, { iss: 'a', sub: 'b","sub","c' }],
    ['a long name', { sub: 'x'.repeat(3000) }, { sub: `${'x'.repeat(2999)}y` }],
  ])('the same key of %s is another key: it tells nothing and blocks nothing', async (_, one, other) => {
    const first = await post(one, 'Ada');
    const others = await post(other, 'Ada');
    expect([first.status, others.status]).toEqual([201, 201]);
    expect(await others.json()).not.toEqual(await first.json());
    // Each keeps its own.
    expect((await post(one, 'Ada')).status).toBe(200);
    expect((await post(other, 'Bob')).status).toBe(409);
    expect(await app.database.query('SELECT count(*)::int AS n FROM people')).toEqual([{ n: 2 }]);
  });

  it('holds for many people at once as well', async () => {
    const bulk = async (sub: string, name: string) =>
      app.send('POST', '/people/bulk', `[{"name":"${name}"}]`, { ...KEY, ...(await bearer({ sub })) });
    expect((await bulk('ada', 'Ada')).status).toBe(201);
    expect((await bulk('bob', 'Bob')).status).toBe(201);
    expect((await bulk('bob', 'Bob')).status).toBe(200);
  });

  it('does not wait for a request of another caller that is under way', async () => {
    const id = '01938c5e-7a1b-7c3d-9e2f-000000000001';
    const holder = await openDatabase(app.database.url);
    await holder.query('BEGIN');
    await holder.query(`INSERT INTO people (id, name) VALUES ('${id}', 'held')`);
    const held = app.send('POST', '/people', `{"id":"${id}","name":"Ada"}`, { ...KEY, ...(await bearer({ sub: 'ada' })) }); // prettier-ignore
    const waiting = `SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`;
    await eventually(async () => (await app.database.query(waiting)).length === 1);
    expect((await post({ sub: 'bob' }, 'Bob')).status).toBe(201);
    await holder.query('ROLLBACK');
    await holder.drop();
    expect((await held).status).toBe(201);
  });
});

it('without authentication a key that was kept before callers were told apart is still known', async () => {
  const app = await startPeopleApp();
  try {
    const body = '{"name":"Ada"}';
    const value = {
      created: true,
      id: '01938c5e-7a1b-7c3d-9e2f-000000000001',
      etag: '"1"',
      json: '{"kept":1}',
    };
    const reply = JSON.stringify({ values: [value] });
    await app.database.query(
      `INSERT INTO message_inbox (consumer, message_id, digest, reply) VALUES ('http POST /people', $1, $2, $3)`,
      [KEY['idempotency-key'], digestOf(Buffer.from(body)), reply],
    );
    const again = await app.send('POST', '/people', body, KEY);
    expect([again.status, await again.text()]).toEqual([200, '{"kept":1}']);
  } finally {
    await app.close();
  }
});

describe('in a host with a guard of its own', () => {
  const database = duringTests(() => createDatabase());
  beforeEach(() => database.query('TRUNCATE people, message_inbox'));

  /** Takes the user, or the account, as JSON from a header. */
  @Injectable()
  class HostGuard implements CanActivate {
    canActivate(context: ExecutionContext): boolean {
      const request = context
        .switchToHttp()
        .getRequest<{ headers: Record<string, string>; user?: unknown }>();
      const { user } = request.headers;
      if (user !== undefined) request.user = JSON.parse(user);
      return true;
    }
  }

  async function withHost(
    options: Parameters<typeof PeopleModule.forRoot>[0],
    use: (post: (name: string, headers?: object) => Promise<Response>) => Promise<void>,
  ) {
    const people = PeopleModule.forRoot({ controllers: { messages: false }, ...options });
    const module = messagesModule(database, [], [people]);
    module.providers = [{ provide: APP_GUARD, useClass: HostGuard }];
    const app = await NestFactory.create(module, new ExpressAdapter(), {
      ...{ logger: false, abortOnError: false, rawBody: true },
    });
    try {
      await app.listen(0, '127.0.0.1');
      const url = await app.getUrl();
      await use((name, headers) =>
        fetch(`${url}/people`, {
          method: 'POST',
          body: `{"name":"${name}"}`,
          headers: { 'content-type': 'application/json', ...KEY, ...headers },
        }),
      );
    } finally {
      await app.close();
    }
  }

  it.each([
    ['sub', { sub: 'ada', email: 'a@b.test' }, { sub: 'bob' }],
    ['id', { id: 1 }, { id: 2 }],
    ['userId', { userId: 'ada' }, { userId: 'bob' }],
  ])('the caller is what request.user names by %s', (_, one, other) =>
    withHost({}, async (post) => {
      const as = (user: object) => ({ user: JSON.stringify(user) });
      expect((await post('Ada', as(one))).status).toBe(201);
      expect((await post('Ada', as({ ...one, role: 'admin' }))).status).toBe(200);
      expect((await post('Bob', as(other))).status).toBe(201);
      expect((await post('Cyd')).status).toBe(201);
    }),
  );

  it('a user whom nothing names is asked about by the option caller, and not taken for everybody', () =>
    withHost({}, async (post) => {
      expect((await post('Ada', { user: '{"email":"a@b.test"}' })).status).toBe(500);
      expect(await database.query('SELECT FROM people')).toEqual([]);
    }));

  it('the caller is whom the option caller names', () =>
    withHost(
      { caller: ({ headers }: { headers: Record<string, string> }) => headers['x-account'] },
      async (post) => {
        expect((await post('Ada', { 'x-account': 'a' })).status).toBe(201);
        expect((await post('Bob', { 'x-account': 'b' })).status).toBe(201);
        expect((await post('Bob', { 'x-account': 'b', user: '{"id":1}' })).status).toBe(200);
        expect((await post('Cyd')).status).toBe(201);
      },
    ));
});
