import pg from 'pg';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';

const U64_MAX = '18446744073709551615';
const ABSENT = '01938c5e-7a1b-7c3d-9e2f-ffffffffffff';

const app = duringTests(() => startPeopleApp());

const MERGE = { 'content-type': 'application/merge-patch+json' };
const patch = (id: string, json: string, headers: Record<string, string> = {}) =>
  app.send('PATCH', `/people/${id}`, json, headers);
async function create(json: string): Promise<{ id: string; etag: string }> {
  const response = await app.send('POST', '/people', json);
  return { id: JSON.parse(await response.text()).id, etag: response.headers.get('etag')! };
}

describe('PATCH /people/:id', () => {
  it('changes what is given and keeps the rest; data is replaced whole and cleared by null', async () => {
    const { id } = await create(`{"name":"Ada","data":{"a":${U64_MAX},"b":1}}`);
    const steps = [
      ['{"name":"Eve"}', `"name":"Eve","data":{"a":${U64_MAX},"b":1}`],
      ['{"data":{"c":2.0}}', '"name":"Eve","data":{"c":2.0}'],
      ['{}', '"name":"Eve","data":{"c":2.0}'],
      ['{"name":"Ada","data":null}', '"name":"Ada","data":null'],
      ['{"data":{}}', '"name":"Ada","data":{}'],
    ];
    for (const [body, expected] of steps) {
      const response = await patch(id, body!);
      expect([body, response.status, await response.text()]).toEqual([
        body,
        200,
        `{"id":"${id}",${expected}}`,
      ]);
      const read = await app.request(`/people/${id}`);
      expect(await read.text()).toBe(`{"id":"${id}",${expected}}`);
      expect(read.headers.get('etag')).toBe(response.headers.get('etag'));
    }
  });

  it('answers 404 where nobody is, with and without If-Match, and 400 to a name of null', async () => {
    const { id } = await create('{"name":"Ada"}');
    expect((await patch(ABSENT, '{"name":"x"}')).status).toBe(404);
    expect((await patch(ABSENT, '{"name":"x"}', { 'if-match': '"1.2.3"' })).status).toBe(404);
    expect((await patch(ABSENT, '{"data":{"a":1}}', MERGE)).status).toBe(404);
    expect((await patch(id, '{"name":null}')).status).toBe(400);
  });
});

describe('a merge patch', () => {
  // RFC 7396, appendix A, one level down, as a person's data is always an object.
  it.each([
    ['{"a":"b"}', '{"a":"c"}', '{"a":"c"}'],
    ['{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'],
    ['{"a":"b"}', '{"a":null}', '{}'],
    ['{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'],
    ['{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'],
    ['{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'],
    ['{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'],
    ['{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'],
    ['{"x":["a","b"]}', '{"x":["c","d"]}', '{"x":["c","d"]}'],
    ['{"x":{"a":"b"}}', '{"x":["c"]}', '{"x":["c"]}'],
    ['{"x":{"a":"foo"}}', '{"x":null}', '{}'],
    ['{"x":{"a":"foo"}}', '{"x":"bar"}', '{"x":"bar"}'],
    ['{"e":null}', '{"a":1}', '{"e":null,"a":1}'],
    ['{"x":[1,2]}', '{"x":{"a":"b","c":null}}', '{"x":{"a":"b"}}'],
    ['{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'],
    ['null', '{"a":{"b":null},"c":1}', '{"a":{},"c":1}'],
    ['{"a":1}', 'null', 'null'],
    // Digits, key order (numbers among the keys too) and __proto__.
    [
      `{"z":${U64_MAX},"2":1.10,"1":1e400}`,
      '{"2":0.10,"y":-0}',
      `{"z":${U64_MAX},"2":0.10,"1":1e400,"y":-0}`,
    ],
    ['{"__proto__":{"a":1},"b":1}', '{"__proto__":{"c":2}}', '{"__proto__":{"a":1,"c":2},"b":1}'],
  ])('of %s with %s gives %s', async (data, patchData, merged) => {
    const { id } = await create(`{"name":"Ada","data":${data}}`);
    const response = await patch(id, `{"data":${patchData}}`, MERGE);
    expect([response.status, await response.text()]).toEqual([
      200,
      `{"id":"${id}","name":"Ada","data":${merged}}`,
    ]);
    expect((await app.people.get(id)).dataJson ?? 'null').toBe(merged);
  });

  it('of ten members at once by ten clients keeps them all', async () => {
    const { id } = await create('{"name":"Ada","data":{}}');
    const members = Array.from({ length: 10 }, (_, i) => `m${i}`);
    await Promise.all(members.map((member) => patch(id, `{"data":{"${member}":1}}`, MERGE)));
    expect(Object.keys((await app.people.get(id)).data!).sort()).toEqual(members);
  });

  it('changes the name alone or with the data, and only the version that If-Match names', async () => {
    const { id, etag } = await create('{"name":"Ada","data":{"a":1}}');
    const refused = await patch(id, '{"name":"Eve","data":{"b":2}}', { ...MERGE, 'if-match': '"1.2.3"' });
    expect(refused.status).toBe(412);
    const response = await patch(id, '{"name":"Eve","data":{"b":2}}', { ...MERGE, 'if-match': etag });
    expect(await response.text()).toBe(`{"id":"${id}","name":"Eve","data":{"a":1,"b":2}}`);
    expect(await (await patch(id, '{"name":"Ada"}', MERGE)).text()).toContain('"data":{"a":1,"b":2}');
  });
});

describe('If-Match', () => {
  it('lets the current version, a list with it and * through', async () => {
    const { id, etag } = await create('{"name":"Ada"}');
    let current = etag;
    for (const condition of [(tag: string) => tag, (tag: string) => `"1.2.3", ${tag}`, () => '*']) {
      const response = await patch(id, '{"name":"Eve"}', { 'if-match': condition(current) });
      expect(response.status).toBe(200);
      expect(response.headers.get('etag')).not.toBe(current);
      current = response.headers.get('etag')!;
    }
  });

  it('refuses an old version, a weak one and text that is none with 412, and changes nothing', async () => {
    const { id, etag } = await create('{"name":"Ada"}');
    const current = (await patch(id, '{"name":"Eve"}')).headers.get('etag')!;
    for (const condition of [etag, `W/${current}`, `W/${current}, ${etag}`, '"nonsense"', 'nonsense', '""']) {
      const response = await patch(id, '{"name":"Mallory"}', { 'if-match': condition });
      expect([condition, response.status]).toEqual([condition, 412]);
      expect(await response.json()).toMatchObject({
        type: '/problems/person-changed',
        instance: `/people/${id}`,
      });
    }
    expect((await app.people.get(id)).name).toBe('Eve');
  });

  it('lets exactly one of two through that wait for the row with the same version', async () => {
    const { id, etag } = await create('{"name":"Ada"}');
    const outsider = new pg.Client(app.database.url);
    await outsider.connect();
    await outsider.query('BEGIN');
    await outsider.query('SELECT FROM people WHERE id = $1 FOR UPDATE', [id]);
    // Of two processes: in one they would wait for each other before they come to the database.
    const other = await startPeopleApp({}, app.database);
    const both = [app, other].map((door, index) =>
      door.send('PATCH', `/people/${id}`, `{"name":"${index}"}`, { 'if-match': etag }),
    );
    await eventually(async () => {
      const [waiting] = await app.database.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      );
      return waiting?.n === 2;
    });
    await outsider.query('COMMIT');
    await outsider.end();
    const responses = await Promise.all(both);
    await other.close();
    expect(responses.map(({ status }) => status).sort()).toEqual([200, 412]);
    const winner = responses.find(({ status }) => status === 200)!;
    expect(await winner.json()).toMatchObject({ name: (await app.people.get(id)).name });
  });
});

describe('a version through injection', () => {
  it('is what ifMatch takes, alone or among several, and changes with each update', async () => {
    const first = await app.people.create({ name: 'Ada' });
    const second = await app.people.update(first.id, { name: 'Eve' }, { ifMatch: first.version! });
    expect(second.version).not.toBe(first.version);
    await expect(
      app.people.update(first.id, { name: 'Bob' }, { ifMatch: first.version! }),
    ).rejects.toMatchObject({ type: 'person-changed' });
    await expect(app.people.remove(first.id, { ifMatch: first.version! })).rejects.toMatchObject({
      type: 'person-changed',
    });
    await app.people.remove(first.id, { ifMatch: [first.version!, second.version!] });
    await expect(app.people.get(first.id)).rejects.toMatchObject({ type: 'person-not-found' });
  });

  it('differs between two updates of one unit of work', async () => {
    const { id, version } = await app.people.create({ name: 'Ada' });
    const versions = await app.transactions.run({}, async () => [
      (await app.people.update(id, { name: 'Eve' })).version,
      (await app.people.update(id, { name: 'Bob' })).version,
    ]);
    expect(new Set([version, ...versions]).size).toBe(3);
    await expect(app.people.update(id, { name: 'x' }, { ifMatch: versions[0]! })).rejects.toMatchObject({
      type: 'person-changed',
    });
    await app.people.update(id, { name: 'x' }, { ifMatch: versions[1]! });
  });
});

it('a person that rows of another table refer to stays, and DELETE says why', async () => {
  const { id } = await app.people.create({ name: 'referred to' });
  await app.database.query('CREATE TABLE contracts (person_id uuid REFERENCES people (id))');
  await app.database.query('INSERT INTO contracts VALUES ($1)', [id]);
  const response = await app.request(`/people/${id}`, { method: 'DELETE' });
  expect(response.status).toBe(409);
  expect(await response.json()).toEqual({
    type: '/problems/person-in-use',
    title: 'Person in use',
    status: 409,
    detail: `The person ${id} is in use elsewhere and cannot be deleted; nothing was changed.`,
    instance: `/people/${id}`,
  });
  await app.database.query('DROP TABLE contracts');
  await app.people.remove(id);
});
