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
  it.each([
    ['a megabyte', MEGABYTE, 60],
    ['four kilobytes', 4096, 4000],
  ])('that are long for what is in them, %s, are not kept', async (_, length, lines) => {
    const person = { name: 'somebody with a longer name', data: { text: 'not so long' } };
    const line = `${JSON.stringify(person).padEnd(length - 1)}\n`;
    const linesAtOnce = Math.ceil(MEGABYTE / length);
    const collected = () => {
      collectGarbage();
      return process.memoryUsage().heapUsed;
    };
    const before = collected();
    let most = before;
    async function* body() {
      for (let sent = 0, piece = 1, some; sent < lines; sent += some, piece++) {
        some = Math.min(lines - sent, linesAtOnce);
        yield Buffer.from(line.repeat(some));
        // The server is in this process, and stands still meanwhile.
        if (piece % 4 === 0) most = Math.max(most, collected());
      }
    }
    const request = { method: 'POST', body: body(), headers: NDJSON, duplex: 'half' };
    const response = await app.request('/people/bulk', request as unknown as RequestInit);
    expect([response.status, await response.json()]).toEqual([201, { inserted: lines }]);
    expect(most - before).toBeLessThan(5 * MEGABYTE);
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
  await expect(importing()).rejects.toMatchObject({ cause: { code: '42P01' } });
  await app.database.query('ALTER TABLE others RENAME TO people');
  expect(await importing()).toEqual({ inserted: 5000 });
  expect(await count()).toBe(5000);
  await eventually(() => poolOf(app.dataSource).borrowed === 0);
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
