import { INDEXED_NAME_BYTES, peopleStatements } from '../../src/people/people.statements.js';
import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';

interface Page {
  items: { id: string; name: string }[];
  next: string | null;
}

const app = duringTests(() => startPeopleApp());
beforeEach(() => app.database.query('TRUNCATE people'));

const idOf = (n: number) => `01938c5e-7a1b-7c3d-9e2f-${n.toString(16).padStart(12, '0')}`;
const store = (name: string, numbers: number[]) =>
  app.people.createMany(numbers.map((n) => ({ id: idOf(n), name, data: { n } })));
const upTo = (count: number) => Array.from({ length: count }, (_, i) => i + 1);
const find = (query: Record<string, string>, headers: Record<string, string> = {}) =>
  app.request(`/people?${new URLSearchParams(query).toString()}`, { headers });
const pageOf = async (query: Record<string, string>) => (await (await find(query)).json()) as Page;

async function* pagesOf(name: string, limit: number): AsyncGenerator<Page> {
  let next: string | null = null;
  do {
    const page: Page = await pageOf({ name, limit: String(limit), ...(next && { cursor: next }) });
    yield page;
    next = page.next;
  } while (next);
}

describe('GET /people', () => {
  it('finds those whose whole name it is, ordered by id, and nobody for a name that nobody has', async () => {
    await store('Ada', [3, 1, 2]);
    await store('Ada Lovelace', [4]);
    await store('ada', [5]);
    const response = await find({ name: 'Ada' });
    expect(await response.text()).toBe(
      `{"items":[${upTo(3)
        .map((n) => `{"id":"${idOf(n)}","name":"Ada","data":{"n":${n}}}`)
        .join(',')}],"next":null}`,
    );
    expect(await pageOf({ name: 'Grace' })).toEqual({ items: [], next: null });
  });

  it('walks all by next, without gaps and without repetitions, while others insert', async () => {
    const evens = upTo(250).map((n) => n * 2);
    await store('Ada', evens);
    const seen: string[] = [];
    const sizes: number[] = [];
    for await (const { items } of pagesOf('Ada', 60)) {
      sizes.push(items.length);
      seen.push(...items.map(({ id }) => id));
      // One before the place that was reached, which the walk must not see, and one after, which it must.
      const reached = Number.parseInt(seen.at(-1)!.slice(-12), 16);
      await store('Ada', [reached - 1, 1000 + reached]);
    }
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen).toEqual([...seen].sort());
    expect(seen).toEqual(expect.arrayContaining(evens.map(idOf)));
    const before = seen.filter((id) => Number.parseInt(id.slice(-12), 16) % 2 === 1);
    expect(before).toEqual([]);
    expect(seen.length).toBeGreaterThan(evens.length);
    expect(sizes.slice(0, -1).every((size) => size === 60)).toBe(true);
  });

  it('gives 100 at once by default, and from 1 to 1000 when asked', async () => {
    await store('Ada', upTo(1001));
    const sizeOf = async (query: Record<string, string>) =>
      (await pageOf({ name: 'Ada', ...query })).items.length;
    expect(await sizeOf({})).toBe(100);
    expect(await sizeOf({ limit: '1' })).toBe(1);
    expect(await sizeOf({ limit: '1000' })).toBe(1000);
    for (const limit of ['0', '1001', '-1', '1.5', 'ten', '']) {
      const refused = await find({ name: 'Ada', limit });
      expect([limit, refused.status]).toEqual([limit, 400]);
      expect(await refused.json()).toMatchObject({
        errors: [{ pointer: '#/limit' }],
        instance: expect.any(String),
      });
    }
  });

  it('has no next page after one that is exactly full', async () => {
    await store('Ada', upTo(4));
    const first = await pageOf({ name: 'Ada', limit: '2' });
    const second = await pageOf({ name: 'Ada', limit: '2', cursor: first.next! });
    expect(first.items.concat(second.items).map(({ id }) => id)).toEqual(upTo(4).map(idOf));
    expect(second.next).toBeNull();
  });

  it('refuses a missing name and a cursor that it never gave', async () => {
    expect((await app.request('/people')).status).toBe(400);
    expect((await find({ name: '' })).status).toBe(400);
    for (const cursor of ['x', '!', idOf(1), 'AZOMXnobfD2eLwAAAAAAAQ==']) {
      expect([cursor, (await find({ name: 'Ada', cursor })).status]).toEqual([cursor, 400]);
    }
  });

  it('finds names beside and beyond what the index holds', async () => {
    // A letter of two bytes, so that bytes and characters differ.
    for (const bytes of [
      INDEXED_NAME_BYTES - 2,
      INDEXED_NAME_BYTES,
      INDEXED_NAME_BYTES + 2,
      20 * INDEXED_NAME_BYTES,
    ]) {
      const name = 'é'.repeat(bytes / 2);
      const { ids } = await app.people.createMany([{ name }, { name }, { name: `${name}x` }]);
      const first = await app.people.findByName(name, { limit: 1 });
      const second = await app.people.findByName(name, { limit: 1, cursor: first.next });
      expect([...first.items, ...second.items].map(({ id }) => id)).toEqual(ids.slice(0, 2));
      expect(second.next).toBeNull();
    }
    const name = 'x'.repeat(3 * INDEXED_NAME_BYTES);
    await store(name, [1]);
    expect((await pageOf({ name })).items).toEqual([{ id: idOf(1), name, data: { n: 1 } }]);
  });

  it('streams every match, one a line, when NDJSON is asked for', async () => {
    await store('Ada', upTo(5000));
    const response = await find({ name: 'Ada' }, { accept: 'application/x-ndjson' });
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/x-ndjson']);
    const lines = (await response.text()).split('\n');
    expect(lines.pop()).toBe('');
    expect(lines).toEqual(upTo(5000).map((n) => `{"id":"${idOf(n)}","name":"Ada","data":{"n":${n}}}`));
    const nobody = await find({ name: 'Grace' }, { accept: 'application/x-ndjson' });
    expect([nobody.status, await nobody.text()]).toEqual([200, '']);
    expect((await find({ name: '' }, { accept: 'application/x-ndjson' })).status).toBe(400);
  });
});

describe("the service's statement", () => {
  // Whichever of the two kinds of plan a prepared statement gets.
  it.each(['force_custom_plan', 'force_generic_plan'])(
    'reads a page through the index with %s',
    async (mode) => {
      await store('Ada', upTo(2000));
      await app.database.query(
        `INSERT INTO people (name) SELECT 'other ' || i FROM generate_series(1, 20000) AS i`,
      );
      await app.database.query('ANALYZE people');
      const { text, values } = peopleStatements('people').findByName('Ada', idOf(1900), 11);
      await app.database.query(`SET plan_cache_mode = ${mode}`);
      await app.database.query(`PREPARE page (text, uuid, int) AS ${text}`);
      const literals = values!.map((value) => `'${String(value)}'`).join(',');
      const plan = (
        await app.database.query<{ 'QUERY PLAN': string }>(`EXPLAIN (ANALYZE) EXECUTE page (${literals})`)
      )
        .map((row) => row['QUERY PLAN'])
        .join('\n');
      await app.database.query('DEALLOCATE page');
      await app.database.query('RESET plan_cache_mode');
      expect(plan).toContain('Index Scan using people_name_id_idx');
      expect(plan).not.toContain('Sort');
      // The index leads to the page itself: the 1,900 before it aren't read and thrown away.
      expect(plan).toMatch(/Index Cond: .*\bid >/);
      expect(plan).not.toMatch(/Rows Removed by Filter: (?!1\b)/);
    },
  );
});
