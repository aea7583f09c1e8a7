import fc from 'fast-check';
import {
  JsonNumber,
  JsonText,
  type JsonValue,
  MAX_JSON_DEPTH,
  parseJson,
  stringifyJson,
} from '../../src/index.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';
import { dataText, dataValue, RUN, surprises } from './json-survives.arbitraries.js';

const U64_MAX = '18446744073709551615';

describe('the JSON of a person survives', () => {
  let app: PeopleApp;
  beforeAll(async () => (app = await startPeopleApp()));
  afterAll(() => app.close());

  /** Stores over HTTP; the id and the text of `data` in the answer. */
  async function create(data: string) {
    const created = await app.send('POST', '/people', `{"name":"p","data":${data}}`);
    const text = await created.text();
    expect(created.status).toBe(201);
    return { id: text.slice(7, 43), data: dataOf(text) };
  }
  const read = async (id: string) => dataOf(await (await app.request(`/people/${id}`)).text());
  const dataOf = (person: string) => person.slice(person.indexOf('"data":') + 7, -1);

  it.each(surprises)('byte for byte over HTTP, for example %s', async (data) => {
    const created = await create(data);
    expect(created.data).toBe(data);
    expect(await read(created.id)).toBe(data);
  });

  it('byte for byte over HTTP, whatever it is', async () => {
    await fc.assert(
      fc.asyncProperty(dataText, async (data) => {
        const created = await create(data);
        expect(created.data).toBe(data);
        expect(await read(created.id)).toBe(data);
      }),
      { ...RUN, numRuns: 150 },
    );
  });

  it('byte for byte through a bulk array, NDJSON in, NDJSON out and a page', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(dataText, { minLength: 1, maxLength: 20 }), fc.uuid(), async (all, name) => {
        const people = all.map((data) => `{"name":"${name}","data":${data}}`);
        const bulk = await app.send('POST', '/people/bulk', `[${people.join(',')}]`);
        expect(bulk.status).toBe(201);
        const lines = people.map((person) => person.replaceAll(/[\n\r]/g, ' ')).join('\n');
        const ndjson = { 'content-type': 'application/x-ndjson' };
        expect((await app.send('POST', '/people/bulk', lines, ndjson)).status).toBe(201);

        const stream = await app.request(`/people?name=${name}`, {
          headers: { accept: 'application/x-ndjson' },
        });
        // White space between tokens stays too, line breaks included: so the lines are split where a person begins.
        const streamed = (await stream.text())
          .split(/\n(?=\{"id":"[0-9a-f-]{36}","name":"|$)/)
          .filter(Boolean);
        const expected = [...all, ...all.map((data) => data.replaceAll(/[\n\r]/g, ' '))].sort();
        expect(streamed.map(dataOf).sort()).toEqual(expected);
        const page = await (await app.request(`/people?name=${name}&limit=1000`)).text();
        expect(page).toBe(`{"items":[${streamed.join(',')}],"next":null}`);
      }),
      { ...RUN, numRuns: 20 },
    );
  });

  it('when injection reads what HTTP stored and stores it again', async () => {
    await fc.assert(
      fc.asyncProperty(dataText, async (data) => {
        const stored = await app.people.get((await create(data)).id);
        expect(stored.dataJson).toBe(data);
        expect(stored.data).toEqual(parseJson(data));
        const again = await app.people.create({
          name: 'again',
          data: parseJson(data, 'map') as object as never,
        });
        expect(await read(again.id)).toBe(stringifyJson(parseJson(data, 'map')));
        expect((await app.people.get(again.id)).data).toEqual(stored.data);
        const asText = await app.people.create({ name: 'text', data: JsonText.of(data) });
        expect(await read(asText.id)).toBe(data);
      }),
      { ...RUN, numRuns: 100 },
    );
  });

  it('as values through injection: bigints, numbers of any size, strings, maps', async () => {
    await fc.assert(
      fc.asyncProperty(dataValue, async ({ given, expected }) => {
        const created = await app.people.create({ name: 'value', data: given as never });
        const stored = await app.people.get(created.id);
        for (const person of [created, stored]) {
          expect(person.data).toEqual(expected);
          expect(person.dataJson).toBe(stringifyJson(given));
        }
      }),
      { ...RUN, numRuns: 150 },
    );
  });

  it('as values through a change, a bulk insert and an import', async () => {
    await fc.assert(
      fc.asyncProperty(dataValue, async ({ given, expected }) => {
        const { ids } = await app.people.createMany([{ name: 'many', data: given as never }]);
        expect((await app.people.get(ids[0]!)).data).toEqual(expected);
        await app.people.update(ids[0]!, { data: null });
        const changed = await app.people.update(ids[0]!, { data: given as never });
        expect(changed.data).toEqual(expected);
        const id = '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f';
        await app.people.importMany(
          (async function* () {
            yield { id, name: 'import', data: given as never };
          })(),
        );
        expect((await app.people.get(id)).data).toEqual(expected);
        await app.people.remove(id);
      }),
      { ...RUN, numRuns: 50 },
    );
  });

  it('around a merge patch, but for the members it names', async () => {
    await fc.assert(
      fc.asyncProperty(dataText, async (data) => {
        const { id } = await create(data);
        const patch = { 'content-type': 'application/merge-patch+json' };
        const patched = await app.send('PATCH', `/people/${id}`, `{"data":{"\\ud800":1e400}}`, patch);
        const expected = (parseJson(data, 'map') as Map<string, JsonValue>).set(
          '\ud800',
          new JsonNumber('1e400'),
        );
        expect(dataOf(await patched.text())).toBe(stringifyJson(expected));
      }),
      { ...RUN, numRuns: 50 },
    );
  });

  it('with a u64 that is a bigint in the program, from 2^53 on without exception', async () => {
    for (const text of ['9007199254740992', '10000000000000000', '1152921504606847000', U64_MAX]) {
      const { id } = await create(`{"many_many_fields":${text}}`);
      expect((await app.people.get(id)).data).toEqual({ many_many_fields: BigInt(text) });
    }
    const { id } = await app.people.create({ name: 'u64', data: { many_many_fields: BigInt(U64_MAX) } });
    expect(await read(id)).toBe(`{"many_many_fields":${U64_MAX}}`);
  });

  const arrays = (levels: number): unknown[] => (levels === 1 ? [] : [arrays(levels - 1)]);

  it('down to the deepest level there is, and not below', async () => {
    const deepest = { a: arrays(MAX_JSON_DEPTH - 1) };
    const { id } = await app.people.create({ name: 'deep', data: deepest });
    expect((await app.people.get(id)).data).toEqual(deepest);
    const tooDeep = [
      { a: arrays(MAX_JSON_DEPTH) },
      { a: JsonText.of(JSON.stringify(arrays(MAX_JSON_DEPTH))) },
    ];
    for (const data of tooDeep) {
      await expect(app.people.create({ name: 'deep', data })).rejects.toMatchObject({
        type: 'invalid-input',
        errors: [{ pointer: '#/data', detail: 'must be JSON: nested deeper than 200 levels' }],
      });
    }
  });

  it.each([
    ['NaN', { a: NaN }, 'NaN is not a JSON value (at /a)'],
    ['Infinity', { a: [Infinity] }, 'Infinity is not a JSON value (at /a/0)'],
    ['a function', { a: () => 1 }, 'a function is not a JSON value (at /a)'],
    ['undefined in an array', { a: [undefined] }, 'undefined is not a JSON value (at /a/0)'],
    ['a Map with other keys', { a: new Map([[1, 2]]) }, "a Map's keys must be strings (at /a)"],
    [
      'a JsonNumber that is none',
      { a: new JsonNumber('1,"b":2') },
      '"1,\\"b\\":2" is not a JSON number (at /a)',
    ],
  ])('or is refused: %s', async (_title, data, detail) => {
    await expect(app.people.create({ name: 'bad', data })).rejects.toMatchObject({
      type: 'invalid-input',
      errors: [{ pointer: '#/data', detail: `must be JSON: ${detail}` }],
    });
  });
});
