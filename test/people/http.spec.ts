import { Readable } from 'node:stream';
import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';

const ID = '01938c5e-7a1b-7c3d-9e2f-000000000001';
const ABSENT = '01938c5e-7a1b-7c3d-9e2f-ffffffffffff';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/;

const app = duringTests(() => startPeopleApp());
beforeEach(() => app.database.query('TRUNCATE people'));

const post = (json: string, headers?: Record<string, string>) => app.send('POST', '/people', json, headers);
const bulk = (body: string | ReadableStream, type: string) => {
  const init = { method: 'POST', headers: { 'content-type': type }, body, duplex: 'half' } as const;
  return app.request('/people/bulk', init);
};
const count = async () =>
  (await app.database.query<{ count: string }>('SELECT count(*) FROM people'))[0]?.count;

describe('POST /people', () => {
  it('answers 201 with the person, its Location and its ETag', async () => {
    const response = await post('{"name":"Ada","data":{"n":1.0}}');
    expect(response.status).toBe(201);
    expect(response.headers.get('content-type')).toBe('application/json; charset=utf-8');
    expect(response.headers.get('etag')).toMatch(/^"[\d.]+"$/);
    const text = await response.text();
    const { id } = JSON.parse(text);
    expect(id).toMatch(UUID_V7);
    expect(text).toBe(`{"id":"${id}","name":"Ada","data":{"n":1.0}}`);
    expect(response.headers.get('location')).toBe(`/people/${id}`);
    expect(await (await app.request(response.headers.get('location')!)).text()).toBe(text);
  });

  it('answers 200 to the same id and person again, however it is spaced, and 409 to another person', async () => {
    const first = await post(`{"id":"${ID}","name":"Ada","data":{"a":[1,2],"b":"x y"}}`);
    const again = await post(
      `{ "data": {"a" : [1, 2],\n "b":"x y"},"name":"Ada","id":"${ID.toUpperCase()}" }`,
    );
    expect([first.status, again.status]).toEqual([201, 200]);
    expect(await again.text()).toBe(await first.text());
    expect(again.headers.get('etag')).toBe(first.headers.get('etag'));
    for (const other of ['"name":"Bob"', '"name":"Ada","data":{"a":[1,2],"b":"xy"}', '"name":"Ada"']) {
      const refused = await post(`{"id":"${ID}",${other}}`);
      expect(refused.status).toBe(409);
      expect(await refused.json()).toMatchObject({ type: '/problems/person-conflict', instance: '/people' });
    }
    expect(await count()).toBe('1');
  });

  it('answers a request that is repeated with its Idempotency-Key as the first time, and refuses another with it', async () => {
    const key = { 'idempotency-key': 'order 7' };
    const first = await post('{"name":"Ada"}', key);
    const again = await post('{"name":"Ada"}', key);
    const other = await post('{"name":"Bob"}', key);
    expect([first.status, again.status, other.status]).toEqual([201, 200, 409]);
    expect(await other.json()).toMatchObject({ type: '/problems/message-id-conflict' });
    expect(again.headers.get('etag')).toBe(first.headers.get('etag'));
    expect(await again.text()).toBe(await first.text());
    expect((await post('{"name":"Ada"}', { 'idempotency-key': 'order 8' })).status).toBe(201);
    expect((await post('{"name":"Ada"}', { 'idempotency-key': 'x'.repeat(256) })).status).toBe(400);
  });

  it('stores one person when the same request arrives ten times at once', async () => {
    const responses = await Promise.all(
      Array.from({ length: 10 }, () => post('{"name":"Ada"}', { 'idempotency-key': 'k' })),
    );
    expect(responses.map(({ status }) => status).sort()).toEqual([...Array(9).fill(200), 201]);
    expect(await count()).toBe('1');
  });
});

describe('GET /people/:id', () => {
  it('answers with the ETag, and with 304 and no body to whoever has that version', async () => {
    const etag = (await post(`{"id":"${ID}","name":"Ada"}`)).headers.get('etag')!;
    const get = (ifNoneMatch?: string) =>
      app.request(`/people/${ID}`, ifNoneMatch ? { headers: { 'if-none-match': ifNoneMatch } } : {});
    const response = await get();
    expect([response.status, response.headers.get('etag')]).toEqual([200, etag]);
    for (const known of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      const unchanged = await get(known);
      expect([known, unchanged.status, await unchanged.text()]).toEqual([known, 304, '']);
      expect(unchanged.headers.get('etag')).toBe(etag);
    }
    expect((await get('"other", W/"another"')).status).toBe(200);
  });

  it('answers HEAD as GET, without the body', async () => {
    await post(`{"id":"${ID}","name":"Ada"}`);
    const [get, head] = [
      await app.request(`/people/${ID}`),
      await app.request(`/people/${ID}`, { method: 'HEAD' }),
    ];
    expect([head.status, await head.text()]).toEqual([200, '']);
    for (const name of ['etag', 'content-type', 'content-length']) {
      expect([name, head.headers.get(name)]).toEqual([name, get.headers.get(name)]);
    }
    await get.text();
    expect((await app.request(`/people/${ABSENT}`, { method: 'HEAD' })).status).toBe(404);
  });
});

describe('POST /people/bulk', () => {
  it('stores an array, and names the ids in its order where they are asked for', async () => {
    const people = (last: string) => `[{"name":"a"},{"name":"b","id":"${ID}"},{"name":"${last}"}]`;
    const response = await app.send('POST', '/people/bulk?ids=true', people('c'));
    expect(response.status).toBe(201);
    const { inserted, ids } = (await response.json()) as { inserted: number; ids: string[] };
    expect(inserted).toBe(3);
    expect(ids[1]).toBe(ID);
    const rows = await app.database.query('SELECT id FROM people ORDER BY name');
    expect(rows.map(({ id }) => id)).toEqual(ids);
  });

  it('says how many were stored, and no more, where the ids are not asked for', async () => {
    for (const query of ['', '?ids=false']) {
      const response = await app.send('POST', `/people/bulk${query}`, '[{"name":"a"},{"name":"b"}]');
      expect([response.status, await response.text()]).toEqual([201, '{"inserted":2}']);
    }
  });

  it('repeats for an Idempotency-Key what was told the first time, with ids or without', async () => {
    for (const [query, told] of [
      ['', /^\{"inserted":1\}$/],
      ['?ids=true', /^\{"inserted":1,"ids":\["[0-9a-f-]{36}"\]\}$/],
    ] as const) {
      // prettier-ignore
      const send = () =>
        app.send('POST', `/people/bulk${query}`, '[{"name":"once"}]', { 'idempotency-key': `ids ${query}` });
      const [first, second] = [await send(), await send()];
      const text = await first.text();
      expect([first.status, text]).toEqual([201, expect.stringMatching(told)]);
      expect([second.status, await second.text()]).toEqual([200, text]);
    }
  });

  it('streams NDJSON of any size, with blank lines and without a last newline', async () => {
    const padding = 'x'.repeat(1000);
    function* lines() {
      for (let i = 0; i < 3000; i++)
        yield `{"name":"n${i}","data":{"padding":"${padding}"}}\n${i % 100 ? '' : ' \r\n\n'}`;
      yield `{"name":"last","data":{"n":18446744073709551615}}`;
    }
    const body = Readable.toWeb(Readable.from(lines())) as unknown as ReadableStream;
    const response = await bulk(body, 'application/x-ndjson');
    expect([response.status, await response.json()]).toEqual([201, { inserted: 3001 }]);
    expect(await app.database.query(`SELECT data::text FROM people WHERE name = 'last'`)).toEqual([
      { data: '{"n":18446744073709551615}' },
    ]);
  });

  it('stores nothing when one line is bad, and names its number', async () => {
    const response = await bulk('{"name":"a"}\n\n{"name":""}\n{"name":"c"}\n', 'application/x-ndjson');
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ detail: expect.stringMatching(/^Line 3: .*name/) });
    expect(await count()).toBe('0');
  });

  it('takes an empty array and an empty stream for nothing to do', async () => {
    const array = await bulk('[]', 'application/json');
    expect([array.status, await array.json()]).toEqual([201, { inserted: 0 }]);
    const stream = await bulk('\n', 'application/x-ndjson');
    expect([stream.status, await stream.json()]).toEqual([201, { inserted: 0 }]);
  });
});

describe('DELETE /people/:id', () => {
  it('answers 204 once, then 404, and with If-Match only for the current version', async () => {
    const etag = (await post(`{"id":"${ID}","name":"Ada"}`)).headers.get('etag')!;
    const remove = (headers?: Record<string, string>) =>
      app.request(`/people/${ID}`, { method: 'DELETE', ...(headers && { headers }) });
    expect((await remove({ 'if-match': '"1.2.3"' })).status).toBe(412);
    const removed = await remove({ 'if-match': etag });
    expect([removed.status, await removed.text()]).toEqual([204, '']);
    expect((await remove()).status).toBe(404);
    expect((await remove({ 'if-match': etag })).status).toBe(404);
  });
});

describe('every answer', () => {
  it('is a problem that names its instance when it is an error', async () => {
    const errors: [number, Promise<Response>][] = [
      [400, app.request('/people/no-uuid?x=1')],
      [404, app.request(`/people/${ABSENT}`)],
      [404, app.request('/nowhere?x=1')],
      [405, app.request('/people', { method: 'PUT' })],
      [413, post(`{"name":"${'x'.repeat(1_100_000)}"}`)],
      [415, post('name=Ada', { 'content-type': 'application/x-www-form-urlencoded' })],
    ];
    for (const [status, answer] of errors) {
      const response = await answer;
      expect(response.headers.get('content-type')).toBe('application/problem+json; charset=utf-8');
      const { pathname, search } = new URL(response.url);
      expect(await response.json()).toEqual({
        type: expect.stringMatching(/^\/problems\/[a-z-]+$/),
        title: expect.any(String),
        status,
        detail: expect.any(String),
        instance: pathname + search,
        ...(status === 400 && { errors: [{ pointer: '#/id', detail: 'must be a uuid' }] }),
      });
      expect(response.status).toBe(status);
    }
  });

  it('names the methods there are when it is 405', async () => {
    const allow = async (method: string, path: string) =>
      (await app.request(path, { method })).headers.get('allow')?.split(', ').sort();
    expect(await allow('PUT', '/people')).toEqual(['GET', 'HEAD', 'POST']);
    expect(await allow('POST', `/people/${ID}?a=b`)).toEqual(['DELETE', 'GET', 'HEAD', 'PATCH']);
    expect(await allow('DELETE', '/health/live')).toEqual(['GET', 'HEAD']);
  });

  it('carries the request id that came, or a new one where it is missing or no id', async () => {
    const idOf = async (headers: Record<string, string>) =>
      (await app.request(`/people/${ABSENT}`, { headers })).headers.get('x-request-id');
    expect(await idOf({ 'x-request-id': 'trace-1:a.b' })).toBe('trace-1:a.b');
    expect(await idOf({})).toMatch(UUID);
    expect(await idOf({ 'x-request-id': 'two words' })).toMatch(UUID);
  });
});
