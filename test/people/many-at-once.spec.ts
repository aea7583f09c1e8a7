import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { poolOf, startPeopleApp } from '../support/people-app.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
const MEGABYTE = 1024 * 1024;
const NDJSON = { 'content-type': 'application/x-ndjson' };

const app = duringTests(() => startPeopleApp({ DB_POOL_SIZE: '1' }));
beforeEach(() => app.database.query('TRUNCATE people'));
const count = async () => (await app.database.query<{ n: number }>('SELECT count(*)::int AS n FROM people'))[0]!.n; // prettier-ignore

describe('lines', () => {
  it('that are long for what is in them are not kept', async () => {
    const line = `{"name":"somebody with a longer name",${' '.repeat(MEGABYTE - 200)}"data":{"text":"not so long"}}\n`;
    const lines = 300;
    collectGarbage();
    const before = process.memoryUsage().heapUsed;
    let most = 0;
    async function* body() {
      for (let i = 0; i < lines; i++) {
        yield Buffer.from(line);
        if (i % 50 !== 0) continue;
        collectGarbage();
        most = Math.max(most, process.memoryUsage().heapUsed - before);
      }
    }
    const request = { method: 'POST', body: body(), headers: NDJSON, duplex: 'half' };
    const response = await app.request('/people/bulk', request as unknown as RequestInit);
    expect([response.status, await response.json()]).toEqual([201, { inserted: lines }]);
    expect(most).toBeLessThan(50 * MEGABYTE);
  });

  it.each([
    ['a person that is refused', '{"name":""}', 'name must be a non-empty string'],
    ['no JSON', '{"name":', 'The line: malformed JSON.'],
  ])('among thousands of which one is %s: that one is named', async (_, bad, told) => {
    const good = '{"name":"a","data":{"n":1}}\n';
    const body = `${good.repeat(2999)}\n \n${good}${bad}\n${good.repeat(2000)}`;
    const response = await app.send('POST', '/people/bulk', body, NDJSON);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ detail: expect.stringContaining(`Line 3003: ${told}`) });
    expect(await count()).toBe(0);
  });
});

it('an import that the server refuses leaves the pool fit for the next', async () => {
  const people = Array.from({ length: 5000 }, () => ({ name: 'n', data: { text: 'x'.repeat(500) } }));
  const source = { [Symbol.asyncIterator]: () => people.values() as unknown as AsyncIterator<object> };
  const importing = () => app.people.importMany(source as never);
  await app.database.query('ALTER TABLE people ADD CONSTRAINT nobody CHECK (name <> $$n$$)');
  await expect(importing()).rejects.toMatchObject({ type: 'person-refused' });
  await app.database.query('ALTER TABLE people DROP CONSTRAINT nobody; ALTER TABLE people RENAME TO others');
  await expect(importing()).rejects.toThrow();
  await app.database.query('ALTER TABLE others RENAME TO people');
  expect(await importing()).toEqual({ inserted: 5000 });
  expect(await count()).toBe(5000);
  await eventually(() => poolOf(app.dataSource).borrowed === 0);
});

it('people that are stored together are given ids in their order, of version 7, and each its own', async () => {
  const people = Array.from({ length: 50_000 }, () => ({ name: 'n' }));
  const { ids } = await app.people.createMany(people);
  expect(ids).toEqual([...new Set(ids)].sort());
  const V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
  expect(ids.filter((id) => !V7.test(id))).toEqual([]);
  const times = ids.map((id) => parseInt(id.replace('-', '').slice(0, 12), 16));
  expect(Math.abs(Date.now() - times[0]!)).toBeLessThan(60_000);
});

it.each([
  ['ends by itself is not told to end', [{ name: 'n' }], []],
  ['is not read on is told to end, once', [{ name: 'n' }, { name: '' }, { name: 'n' }], ['told to end']],
])('an iterable that %s', async (_, people, expected) => {
  const ended: string[] = [];
  const values = people.values();
  const iterator = {
    next: () => Promise.resolve(values.next()),
    return: () => {
      ended.push('told to end');
      return Promise.resolve({ done: true, value: undefined } as const);
    },
  };
  await app.people.importMany({ [Symbol.asyncIterator]: () => iterator }).catch(() => undefined);
  expect(ended).toEqual(expected);
});
