import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { PoolClient } from 'pg';
import type { DataSource } from 'typeorm';
import { ByteBudget } from '../../src/people/byte-budget.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';
import { ServiceHome } from '../support/service-process.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

const MEBIBYTE = 1024 * 1024;
const PAGE_BYTES = 4 * MEBIBYTE;

/** Text that PostgreSQL can't pack, and text that it packs to a hundredth. */
const TEXTS = {
  random: `(SELECT string_agg(md5(random()::text || i), '') FROM generate_series(1, $1 / 32) AS i)`,
  packed: `repeat('x', $1)`,
};
type Text = keyof typeof TEXTS;

/** Stores people of so many bytes each. */
async function store(
  database: TestDatabase,
  name: string,
  count: number,
  bytes: number,
  text: Text = 'packed',
) {
  await database.query(
    `WITH large AS MATERIALIZED (SELECT json_build_object('text', ${TEXTS[text].replaceAll('$1', String(bytes))})::text AS data)
     INSERT INTO people (name, data) SELECT '${name}', data::json FROM large, generate_series(1, ${count})`,
  );
}
const idsOf = async (database: TestDatabase, name: string) =>
  (await database.query<{ id: string }>('SELECT id FROM people WHERE name = $1 ORDER BY id', [name])).map(
    ({ id }) => id,
  );
/** What has come over the connections of the pool so far. */
const received = (dataSource: DataSource) =>
  (
    dataSource.driver as unknown as {
      master: { _clients: (PoolClient & { connection: { stream: Socket } })[] };
    }
  ).master._clients.reduce((sum, { connection }) => sum + connection.stream.bytesRead, 0);

interface Page {
  items: { id: string; name: string; data: { text: string } | null }[];
  next: string | null;
}

describe('a page', () => {
  const app = duringTests(() => startPeopleApp({ DB_POOL_SIZE: '1' }));
  beforeEach(() => app.database.query('TRUNCATE people'));

  const page = async (query: Record<string, string>) => {
    const response = await app.request(`/people?${new URLSearchParams(query).toString()}`);
    expect(response.status).toBe(200);
    return (await response.json()) as Page;
  };
  /** All pages, and how many people each has. */
  async function walk(name: string, limit = 1000) {
    const ids: string[] = [];
    const sizes: number[] = [];
    for (let cursor: string | null = ''; cursor !== null;) {
      const { items, next }: Page = await page({ name, limit: String(limit), ...(cursor && { cursor }) });
      ids.push(...items.map(({ id }) => id));
      sizes.push(items.length);
      cursor = next;
    }
    return { ids, sizes };
  }

  it.each<[Text, number, number, number, number[]]>([
    ['packed', 10, MEBIBYTE, 1000, [3, 3, 3, 1]],
    ['random', 10, MEBIBYTE, 1000, [3, 3, 3, 1]],
    ['packed', 10, MEBIBYTE, 2, [2, 2, 2, 2, 2]],
    ['packed', 10, MEBIBYTE, 3, [3, 3, 3, 1]],
    ['packed', 4, MEBIBYTE - 100, 4, [4]],
    ['random', 4, MEBIBYTE - 100, 1000, [4]],
    ['random', 3, 5 * MEBIBYTE, 1000, [1, 1, 1]],
    ['packed', 3, 5 * MEBIBYTE, 1, [1, 1, 1]],
    ['packed', 1000, 4500, 1000, [928, 72]],
    ['random', 1000, 4500, 1000, [932, 68]],
    ['packed', 1000, 4000, 1000, [1000]],
    ['random', 1000, 1000, 1000, [1000]],
  ])(
    'of people with %s data, %s of %s bytes, limit %s, has %j',
    async (text, count, bytes, limit, expected) => {
      await store(app.database, 'Ada', count, bytes, text);
      const { ids, sizes } = await walk('Ada', limit);
      expect(ids).toEqual(await idsOf(app.database, 'Ada'));
      expect(sizes).toEqual(expected);
    },
  );

  it('of small people and large ones has what fits', async () => {
    await store(app.database, 'Ada', 500, 10);
    await store(app.database, 'Ada', 5, 2 * MEBIBYTE);
    await store(app.database, 'Ada', 500, 1000, 'random');
    const { ids, sizes } = await walk('Ada');
    expect(ids).toEqual(await idsOf(app.database, 'Ada'));
    expect(Math.max(...sizes)).toBeGreaterThan(100);
  });

  it('of people with long names counts the names', async () => {
    const name = 'n'.repeat(MEBIBYTE - 100);
    for (let i = 0; i < 6; i++) await app.people.create({ name });
    const first = await app.people.findByName(name, { limit: 1000 });
    const second = await app.people.findByName(name, { limit: 1000, cursor: first.next });
    expect([first.items.length, second.items.length, second.next]).toEqual([4, 2, null]);
    expect(second.items.every((person) => person.name === name && person.data === null)).toBe(true);
  });

  it.each<Text>(['packed', 'random'])(
    'of 100 people of 1 MB (%s) never comes to the process',
    async (text) => {
      await store(app.database, 'Ada', 100, MEBIBYTE - 100, text);
      const before = received(app.dataSource);
      const { items, next } = await page({ name: 'Ada', limit: '1000' });
      expect([items.length, typeof next]).toEqual([4, 'string']);
      expect(received(app.dataSource) - before).toBeLessThan(3 * PAGE_BYTES);
    },
  );

  it('streams them all, and holds few of them', async () => {
    await store(app.database, 'Ada', 20, MEBIBYTE - 100);
    const response = await app.request('/people?name=Ada', { headers: { accept: 'application/x-ndjson' } });
    const lines = (await response.text()).trimEnd().split('\n');
    const ids = lines.map((line) => (JSON.parse(line) as { id: string }).id);
    expect(ids).toEqual(await idsOf(app.database, 'Ada'));
  });
});

describe.each([
  ['a jsonb', 'ALTER TABLE people ALTER data TYPE jsonb'],
  ['a view', 'ALTER TABLE people RENAME TO persons; CREATE VIEW people AS SELECT * FROM persons'],
])('with %s', (_, change) => {
  it('a page is bounded as well, and tells versions', async () => {
    const database = await createDatabase();
    await database.query(change);
    const app = await startPeopleApp({}, database);
    try {
      await database.query(
        `INSERT INTO people (name, data) SELECT 'Ada', json_build_object('text', repeat('x', 1048000))::json${change.includes('jsonb') ? 'b' : ''} FROM generate_series(1, 9)`,
      );
      const ids: string[] = [];
      const sizes: number[] = [];
      for (let cursor: string | null | undefined; cursor !== null;) {
        const page = await app.people.findByName('Ada', { limit: 1000, ...(cursor && { cursor }) });
        for (const { id, version } of page.items) expect(version).toBe((await app.people.get(id)).version);
        ids.push(...page.items.map(({ id }) => id));
        sizes.push(page.items.length);
        cursor = page.next;
      }
      expect([ids, sizes]).toEqual([await idsOf(database, 'Ada'), [4, 4, 1]]);
    } finally {
      await app.close();
      await database.drop();
    }
  });
});

/** A GET whose answer is read only once that is asked for. */
function slowReader(url: string, accept: string): Socket {
  const { port, hostname } = new URL(url);
  const socket = connect(Number(port), hostname).pause();
  socket.on('error', () => undefined);
  socket.write(`GET /people?name=Ada&limit=1000 HTTP/1.1\r\nHost: localhost\r\nAccept: ${accept}\r\n\r\n`);
  return socket;
}

describe('answers under way', () => {
  let budget: ByteBudget;
  const open: Socket[] = [];
  const reader = (accept = 'application/json') => {
    const socket = slowReader(app.url, accept);
    open.push(socket);
    return socket;
  };
  const app = duringTests(() =>
    startPeopleApp({ HTTP_MEMORY_BUDGET_BYTES: String(9 * MEBIBYTE), DB_POOL_SIZE: '3' }),
  );
  beforeAll(async () => {
    budget = app.app.get(ByteBudget, { strict: false });
    await store(app.database, 'Ada', 8, MEBIBYTE - 100);
  });
  afterEach(async () => {
    for (const socket of open.splice(0)) socket.destroy();
    await eventually(() => budget.used === 0);
    expect((await app.request('/people?name=nobody')).status).toBe(200);
  });

  it('pages that nobody reads take their bytes, and past the budget there are no more', async () => {
    for (let i = 1; i <= 2; i++) {
      reader();
      await eventually(() => budget.used > i * 4_000_000);
    }
    const response = await app.request('/people?name=Ada&limit=1000');
    expect([response.status, await response.json()]).toEqual([
      503,
      expect.objectContaining({ type: '/problems/memory-budget-exhausted' }),
    ]);
    // A small one is answered.
    expect((await app.request('/people?name=nobody')).status).toBe(200);
  });

  it('a page is given back when it is read, on the same connection', async () => {
    const socket = reader();
    await eventually(() => budget.used > 4_000_000);
    socket.resume();
    await eventually(() => budget.used === 0);
    expect(socket.destroyed).toBe(false);
  });

  it('a single large person counts as well', async () => {
    const [id] = await idsOf(app.database, 'Ada');
    const { port, hostname } = new URL(app.url);
    for (let i = 0; i < 12; i++) {
      const socket = connect(Number(port), hostname).pause();
      open.push(socket);
      for (let j = 0; j < 40; j++) socket.write(`GET /people/${id} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    }
    await eventually(() => budget.used > 9_000_000);
    expect(budget.used).toBeLessThanOrEqual(9 * MEBIBYTE);
    expect((await app.request(`/people/${id}`)).status).toBe(503);
  });

  it('answers of writes count as well, and past twice the budget no more are begun', async () => {
    const [id] = await idsOf(app.database, 'Ada');
    const { port, hostname } = new URL(app.url);
    const patch = `PATCH /people/${id} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"name":"Ada"}`;
    for (let i = 0; i < 24; i++) {
      const socket = connect(Number(port), hostname).pause();
      open.push(socket);
      socket.write(patch.repeat(40));
    }
    await eventually(() => budget.used > 18 * MEBIBYTE, 30_000);
    const response = await app.send('PATCH', `/people/${id}`, '{"name":"Ada"}');
    expect([response.status, await response.json()]).toEqual([
      503,
      expect.objectContaining({ type: '/problems/memory-budget-exhausted' }),
    ]);
  });

  it('exports hold little, whoever does not read them, and the room is theirs until they end', async () => {
    const sockets = Array.from({ length: 9 }, () => reader('application/x-ndjson'));
    await Promise.all(sockets.map((socket) => once(socket, 'readable')));
    expect(budget.used).toBe(9 * MEBIBYTE);
    const [first, ...others] = sockets;
    first!.destroy();
    await eventually(() => budget.used === 8 * MEBIBYTE);
    for (const socket of others) socket.resume();
    await eventually(() => budget.used === 0);
  });
});

it('a process with little memory answers 600 people of 1 MB, pages and exports, also to slow readers', async () => {
  const home = new ServiceHome();
  const database = await createDatabase();
  const open: Socket[] = [];
  const heap = '--max-old-space-size=256 --disable-warning=TimeoutNegativeWarning';
  try {
    await store(database, 'Ada', 600, MEBIBYTE - 100);
    const service = home.start({ DATABASE_URL: database.url, KAFKA: 'off', NODE_OPTIONS: heap });
    const { http } = await service.services();
    const bystander = async () => (await fetch(`${http}/people?name=nobody`)).status;

    const page = await fetch(`${http}/people?name=Ada&limit=1000`);
    expect(((await page.json()) as Page).items).toHaveLength(4);

    // Pages and exports of others who do not read.
    for (let i = 0; i < 20; i++) open.push(slowReader(http, 'application/x-ndjson'));
    for (let i = 0; i < 5; i++) open.push(slowReader(http, 'application/json'));
    await Promise.all(open.map((socket) => once(socket, 'readable')));
    expect(await bystander()).toBe(200);

    let lines = 0;
    let asked = 0;
    const exported = await fetch(`${http}/people?name=Ada`, { headers: { accept: 'application/x-ndjson' } });
    for await (const chunk of exported.body as unknown as AsyncIterable<Uint8Array>) {
      for (const byte of chunk) if (byte === 10) lines++;
      if (lines > asked * 50) asked++;
      else continue;
      expect(await bystander()).toBe(200);
    }
    expect([exported.status, lines, service.hasEnded]).toEqual([200, 600, false]);

    // More than there is memory for.
    for (let i = 0; i < 60; i++) open.push(slowReader(http, 'application/json'));
    await Promise.all(open.map((socket) => once(socket, 'readable')));
    expect([await bystander(), service.hasEnded]).toEqual([200, false]);
    service.signal('SIGTERM');
  } finally {
    for (const socket of open) socket.destroy();
    await home.remove();
    await database.drop();
  }
}, 180_000);
