import { JsonText } from '../../src/json/text.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';
import { startLossyProxy } from '../support/lossy-proxy.js';
import { KEPT, REFUSED } from './jsonb.cases.js';

const NDJSON = { 'content-type': 'application/x-ndjson' };
const MERGE = { 'content-type': 'application/merge-patch+json' };

const app = duringTests(() => startPeopleApp({ LOG_LEVEL: 'silent' }));
beforeEach(async () => {
  await app.database.query('TRUNCATE people');
});

interface Body {
  id: string;
  errors: { pointer: string; detail: string }[];
}
const dataOf = (text: string) => text.slice(text.indexOf('"data":') + 7, -1);
const stored = async () =>
  (await app.database.query<{ n: number }>('SELECT count(*)::int AS n FROM people'))[0]!.n;

describe('where data is jsonb', () => {
  beforeAll(async () => {
    await app.database.query('ALTER TABLE people ALTER data TYPE jsonb');
    await app.request('/health/ready');
  });

  it('the service starts and is ready', async () => {
    expect((await app.request('/health/ready')).status).toBe(200);
  });

  it.each(KEPT)(
    '%s is stored and answered as its value, and the same request again is the same',
    async (json, value) => {
      const created = await app.send('POST', '/people', `{"name":"Ada","data":${json}}`);
      const text = await created.text();
      expect([created.status, dataOf(text)]).toEqual([201, value]);
      const { id } = JSON.parse(text) as Body;
      const again = await app.send('POST', '/people', `{"id":"${id}","name":"Ada","data":${json}}`);
      expect([again.status, await again.text()]).toEqual([200, text]);
      const other = await app.send('POST', '/people', `{"id":"${id}","name":"Ada","data":{"other":1.0001}}`);
      expect(other.status).toBe(409);

      const patched = await app.send('PATCH', `/people/${id}`, '{"data":null}');
      expect(dataOf(await patched.text())).toBe('null');
      const replaced = await app.send('PATCH', `/people/${id}`, `{"data":${json}}`);
      expect([replaced.status, dataOf(await replaced.text())]).toEqual([200, value]);
      const renamed = await app.send('PATCH', `/people/${id}`, '{"name":"Bea"}');
      expect([renamed.status, dataOf(await renamed.text())]).toEqual([200, value]);
      const current = renamed.headers.get('etag')!;
      const unchanged = await app.request(`/people/${id}`, { headers: { 'if-none-match': current } });
      expect(unchanged.status).toBe(304);

      expect((await app.send('POST', '/people/bulk', `[{"name":"bulk","data":${json}}]`)).status).toBe(201);
      expect(
        (await app.send('POST', '/people/bulk', `{"name":"bulk","data":${json}}\n`, NDJSON)).status,
      ).toBe(201);
      const { items } = await app.people.findByName('bulk');
      expect(items.map(({ dataJson }) => dataJson)).toEqual([value, value]);
    },
  );

  it('what differs in no more than spelling is the same person', async () => {
    const { id } = await app.people.create({
      name: 'Ada',
      data: JsonText.of('{"n":[1.50,1e2,-0.0],"s":"\\u00e9","k":{"a":1,"b":2}}'),
    });
    for (const same of [
      '{"s":"é","k":{"b":2,"a":1},"n":[1.5,100,0]}',
      '{"k":{},"n":[15e-1,1E+2,0e5],"s":"é","k":{"b":2.0,"a":1}}',
    ])
      expect((await app.send('POST', '/people', `{"id":"${id}","name":"Ada","data":${same}}`)).status).toBe(
        200,
      );
    for (const other of ['{"s":"é","k":{"b":2,"a":1},"n":[1.5,100,1]}', '{"n":[1.5,100,0],"s":"é"}', 'null'])
      expect((await app.send('POST', '/people', `{"id":"${id}","name":"Ada","data":${other}}`)).status).toBe(
        409,
      );
  });

  it('a merge patch is merged, and If-Match lets its own version through', async () => {
    const created = await app.send(
      'POST',
      '/people',
      '{"name":"Ada","data":{"b":18446744073709551615,"a":{"x":1}}}',
    );
    const { id } = (await created.json()) as Body;
    const headers = { ...MERGE, 'if-match': created.headers.get('etag')! };
    const merged = await app.send(
      'PATCH',
      `/people/${id}`,
      '{"data":{"z":1.10,"a":{"x":null,"y":2}}}',
      headers,
    );
    expect([merged.status, dataOf(await merged.text())]).toEqual([
      200,
      '{"a": {"y": 2}, "b": 18446744073709551615, "z": 1.10}',
    ]);
    expect((await app.send('PATCH', `/people/${id}`, '{"data":{"z":2}}', headers)).status).toBe(412);
  });

  it('an Idempotency-Key is answered as the first time', async () => {
    const send = () =>
      app.send('POST', '/people', '{"name":"Ada","data":{"b":1,"a":1e2}}', { 'idempotency-key': 'k1' });
    const [first, second] = [await send(), await send()];
    expect([first.status, second.status]).toEqual([201, 200]);
    expect(await second.text()).toBe(await first.text());
  });

  it.each(REFUSED.map(([json, detail]) => [json.slice(0, 40), json, detail] as const))(
    '%s is refused with 400 at every door, which names data and what is expected',
    async (_short, json, detail) => {
      const { id } = await app.people.create({ name: 'there', data: { a: 1 } });
      const person = `{"name":"Ada","data":${json}}`;
      for (const [answer, pointer] of [
        [await app.send('POST', '/people', person), '#/data'],
        [await app.send('POST', '/people/bulk', `[{"name":"ok"},${person}]`), '#/1/data'],
        [await app.send('POST', '/people/bulk', `{"name":"ok"}\n${person}\n`, NDJSON), '#/data'],
        [await app.send('PATCH', `/people/${id}`, `{"data":${json}}`), '#/data'],
        [await app.send('PATCH', `/people/${id}`, `{"data":${json}}`, MERGE), '#/data'],
      ] as const) {
        const body = (await answer.json()) as Body & { type: string; detail: string };
        expect([answer.status, body.type]).toEqual([400, '/problems/invalid-input']);
        expect(body.errors).toEqual([{ pointer, detail: expect.stringMatching(detail) as string }]);
        expect(body.errors[0]!.detail).toContain('jsonb');
      }
      const call = app.people.create({ name: 'Ada', data: JsonText.of(json) });
      await expect(call).rejects.toMatchObject({ type: 'invalid-input', status: 400 });
      expect(await stored()).toBe(1);
      expect((await app.people.get(id)).dataJson).toBe('{"a": 1}');
    },
  );

  it('what is stored although its answer was lost is told as stored', async () => {
    const proxy = await startLossyProxy(app.database.url);
    const own = await startPeopleApp({}, { ...app.database, url: proxy.url });
    const { id } = await own.people.create({ name: 'Ada', data: { a: 1 } });
    const held = proxy.holdAnswers(/UPDATE people/);
    const update = own.send('PATCH', `/people/${id}`, '{"data":{"b":1e2,"a":1.0}}');
    const [answer] = await held;
    proxy.onRequest = () => 'pass';
    answer!.cut();
    const answered = await update;
    expect([answered.status, dataOf(await answered.text())]).toEqual([200, '{"a": 1.0, "b": 100}']);
    await own.close();
    await proxy.close();
  });
});

describe('data that becomes jsonb under a running service, or json again', () => {
  const alter = (type: string) => app.database.query(`ALTER TABLE people ALTER data TYPE ${type}`);

  it('is written and read without a failure, whatever its statements were prepared for', async () => {
    await alter('json');
    const { id } = await app.people.create({ name: 'Ada', data: { b: 1, a: 2 } });
    const doAll = async () => {
      expect((await app.send('PATCH', `/people/${id}`, '{"data":{"b":1,"a":3}}')).status).toBe(200);
      expect((await app.send('PATCH', `/people/${id}`, '{"name":"Ada"}')).status).toBe(200);
      expect((await app.send('POST', '/people', '{"name":"Bea","data":{"x":1}}')).status).toBe(201);
      expect((await app.send('POST', '/people/bulk', '[{"name":"Bea","data":{"x":1}}]')).status).toBe(201);
      expect((await app.request('/people?name=Bea')).status).toBe(200);
    };
    await doAll();
    for (const type of ['jsonb', 'json', 'jsonb']) {
      await alter(type);
      await doAll();
    }
  });

  it('refuses what it can not hold with 400, before and after that is known', async () => {
    await alter('json');
    await app.people.create({ name: 'Ada', data: { a: 1 } });
    const withNul = '{"name":"Ada","data":{"a":"\\u0000"}}';
    await eventually(async () => (await app.send('POST', '/people', withNul)).status === 201);
    await app.database.query('TRUNCATE people');
    await alter('jsonb');
    for (const [json] of REFUSED.slice(0, 12)) {
      const answer = await app.send('POST', '/people', `{"name":"Ada","data":${json}}`);
      expect([json, answer.status]).toEqual([json, 400]);
    }
  });
});
