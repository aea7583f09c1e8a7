import { Readable } from 'node:stream';
import { JsonText } from '../../src/json/text.js';
import { personLimits } from '../../src/people/person-limits.js';
import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';

const ID = '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f';
const MERGE = { 'content-type': 'application/merge-patch+json' };
const NDJSON = { 'content-type': 'application/x-ndjson' };

/** JSON of exactly so many bytes. */
const dataOf = (bytes: number) => `{"a":"${'x'.repeat(bytes - 8)}"}`;

describe('a person larger than PEOPLE_MAX_DATA_BYTES and PEOPLE_MAX_NAME_BYTES allow', () => {
  let before: unknown;
  const table = () => app.database.query('SELECT id, name, data::text, xmin::text FROM people');

  const app = duringTests(() =>
    startPeopleApp({ PEOPLE_MAX_DATA_BYTES: '1000', PEOPLE_MAX_NAME_BYTES: '100' }),
  );
  beforeAll(async () => {
    await app.people.create({ id: ID, name: 'Ada', data: { b: 'y'.repeat(500) } });
    before = await table();
  });

  const DATA = (would: number) => `must be at most 1000 bytes of JSON, and would be ${would}`;
  const NAME = (would: number) => `must be at most 100 bytes of UTF-8, and would be ${would}`;
  const merged = dataOf(600);
  const mergedBytes = 600 + `"b":"${'y'.repeat(500)}",`.length;

  it.each<[string, string, string, string, Record<string, string>, string, string]>([
    ['its data, created', 'POST', '/people', `{"name":"a","data":${dataOf(1001)}}`, {}, '#/data', DATA(1001)],
    ['its name, created', 'POST', '/people', `{"name":"${'é'.repeat(51)}"}`, {}, '#/name', NAME(102)],
    ['its data, changed', 'PATCH', `/people/${ID}`, `{"data":${dataOf(1001)}}`, {}, '#/data', DATA(1001)],
    ['its name, changed', 'PATCH', `/people/${ID}`, `{"name":"${'x'.repeat(101)}"}`, {}, '#/name', NAME(101)],
    [
      'its data as a merge patch',
      'PATCH',
      `/people/${ID}`,
      `{"data":${dataOf(1001)}}`,
      MERGE,
      '#/data',
      DATA(1001),
    ],
    [
      'its data once it is merged',
      'PATCH',
      `/people/${ID}`,
      `{"data":${merged}}`,
      MERGE,
      '#/data',
      DATA(mergedBytes),
    ],
    [
      'its name in a merge patch',
      'PATCH',
      `/people/${ID}`,
      `{"name":"${'x'.repeat(101)}","data":{}}`,
      MERGE,
      '#/name',
      NAME(101),
    ],
    [
      'its data, one of many',
      'POST',
      '/people/bulk',
      `[{"name":"a"},{"name":"a","data":${dataOf(1001)}}]`,
      {},
      '#/1/data',
      DATA(1001),
    ],
    [
      'its name, one of many',
      'POST',
      '/people/bulk',
      `[{"name":"${'x'.repeat(101)}"}]`,
      {},
      '#/0/name',
      NAME(101),
    ],
    [
      'its data, in a line',
      'POST',
      '/people/bulk',
      `{"name":"a","data":${dataOf(1001)}}\n`,
      NDJSON,
      '#/data',
      DATA(1001),
    ],
    [
      'its name, in a line',
      'POST',
      '/people/bulk',
      `{"name":"${'x'.repeat(101)}"}\n`,
      NDJSON,
      '#/name',
      NAME(101),
    ],
  ])('is refused by %s', async (_title, method, path, body, headers, pointer, detail) => {
    // prettier-ignore
    const [response, bystander] = await Promise.all([
      app.send(method, path, body, headers),
      app.request(`/people/${ID}`),
    ]);
    const line = headers === NDJSON ? 'Line 1: ' : '';
    expect([response.status, bystander.status]).toEqual([400, 200]);
    expect(await response.json()).toEqual({
      type: '/problems/invalid-input',
      title: 'Invalid input',
      status: 400,
      detail: `${line}${pointer.slice(2)} ${detail}.`,
      instance: path,
      errors: [{ pointer, detail }],
    });
    expect(await table()).toEqual(before);
  });

  it('is refused by injection', async () => {
    const data = JsonText.of(dataOf(1001));
    const expected = { type: 'invalid-input', errors: [{ detail: DATA(1001) }] };
    await expect(app.people.create({ name: 'a', data })).rejects.toMatchObject(expected);
    await expect(app.people.createMany([{ name: 'a', data }])).rejects.toMatchObject(expected);
    await expect(app.people.importMany(Readable.from([{ name: 'a', data }]))).rejects.toMatchObject(expected);
    await expect(app.people.update(ID, { data })).rejects.toMatchObject(expected);
    expect(await table()).toEqual(before);
  });

  it('is stored with a byte less', async () => {
    const name = 'é'.repeat(50);
    const created = await app.send('POST', '/people', `{"name":"${name}","data":${dataOf(1000)}}`);
    expect(created.status).toBe(201);
  });
});

describe('thirty merge patches of a million bytes', () => {
  it('make no person of more than a mebibyte', async () => {
    const app = await startPeopleApp();
    await app.people.create({ id: ID, name: 'Ada' });
    const statuses: number[] = [];
    for (let n = 0; n < 30; n++) {
      const body = `{"data":{"k${n}":"${'x'.repeat(1_000_000)}"}}`;
      statuses.push((await app.send('PATCH', `/people/${ID}`, body, MERGE)).status);
    }
    expect(statuses).toEqual([200, ...Array<number>(29).fill(400)]);
    expect(await app.database.query('SELECT octet_length(data::text) AS bytes FROM people')).toEqual([{ bytes: 1_000_009 }]); // prettier-ignore
    await app.close();
  });
});

it('a line and an element may be as long as a person', () => {
  const mebibyte = 1024 * 1024;
  expect(personLimits({})).toMatchObject({ line: mebibyte, element: 2 * mebibyte + 1024 });
  expect(personLimits({ maxDataBytes: 4 * mebibyte }).line).toBeGreaterThan(5 * mebibyte);
  expect(personLimits({ maxNameBytes: 2 * mebibyte }).line).toBeGreaterThan(3 * mebibyte);
});
