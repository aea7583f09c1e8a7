import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import pg from 'pg';
import { duringTests } from '../support/during-tests.js';
import { watchRetries } from '../support/retries.js';
import { barrier } from '../support/barrier.js';
import { poolOf, startPeopleApp } from '../support/people-app.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
const MEGABYTE = 1024 * 1024;
const ID = '01938c5e-7a1b-7c3d-9e2f-000000000001';

const app = duringTests(() => startPeopleApp());
beforeEach(() => app.database.query('TRUNCATE people'));

interface NewPerson {
  id?: string;
  name: string;
  data?: { text: string } | null;
}
/** `count` people, row `at` being what `special` gives. */
async function* generate(count: number, at = -1, special?: () => NewPerson): AsyncGenerator<NewPerson> {
  const data = { text: 'x'.repeat(1000) };
  for (let i = 0; i < count; i++) yield i === at && special ? special() : { name: `n${i}`, data };
}
const count = async () => {
  const rows = await app.database.query<{ n: number }>('SELECT count(*)::int AS n FROM people');
  return rows[0]?.n;
};

describe('importMany', () => {
  it('takes 100,000 people from a generator, 100 MB of them, in bounded memory', async () => {
    collectGarbage();
    const before = process.memoryUsage();
    const most = { heapUsed: 0, rss: 0 };
    async function* watched() {
      let i = 0;
      for await (const person of generate(100_000)) {
        yield person;
        if (++i % 1000 !== 0) continue;
        most.rss = Math.max(most.rss, process.memoryUsage().rss - before.rss);
        if (i % 10_000 !== 0) continue;
        // What is kept, not what nobody has collected yet.
        collectGarbage();
        most.heapUsed = Math.max(most.heapUsed, process.memoryUsage().heapUsed - before.heapUsed);
      }
    }
    expect(await app.people.importMany(watched())).toEqual({ inserted: 100_000 });
    expect(await count()).toBe(100_000);
    expect(most.heapUsed).toBeLessThan(50 * MEGABYTE);
    expect(most.rss).toBeLessThan(200 * MEGABYTE);
  });

  it('stores nothing when the iterable throws halfway, and throws the same error', async () => {
    const failure = new Error('the file is torn');
    const torn = generate(20_000, 10_000, () => {
      throw failure;
    });
    await expect(app.people.importMany(torn)).rejects.toBe(failure);
    expect(await count()).toBe(0);
  });

  it('stores nothing when one person is bad, and names it', async () => {
    const people = generate(3000, 2500, () => ({ name: 'nul \0' }));
    await expect(app.people.importMany(people)).rejects.toMatchObject({
      type: 'invalid-input',
      errors: [{ pointer: '#/2500/name', detail: expect.stringContaining('NUL') }],
    });
    expect(await count()).toBe(0);
  });

  it('stores nothing when an id is there already or stands twice', async () => {
    await app.people.create({ id: ID, name: 'first' });
    const taken = generate(3000, 2500, () => ({ id: ID, name: 'second' }));
    await expect(app.people.importMany(taken)).rejects.toMatchObject({ type: 'person-conflict', id: ID });
    expect(await count()).toBe(1);
    await app.people.remove(ID);
    async function* twice() {
      yield* generate(1000, 7, () => ({ id: ID, name: 'a' }));
      yield { id: ID, name: 'b' };
    }
    await expect(app.people.importMany(twice())).rejects.toMatchObject({ type: 'person-conflict', id: ID });
    expect(await count()).toBe(0);
  });

  it('stops reading a source whose import has failed, and ends it', async () => {
    let read = 0;
    let ended = false;
    async function* source() {
      try {
        for (; read < 300_000; read++) yield { id: ID, name: 'twice' };
      } finally {
        ended = true;
      }
    }
    await expect(app.people.importMany(source())).rejects.toMatchObject({ type: 'person-conflict' });
    expect(ended).toBe(true);
    expect(read).toBeLessThan(300_000);
  });

  it('lets others work while it reads a source that never waits', async () => {
    let read = 0;
    async function* source() {
      for (; read < 100_000; read++) yield { name: 'n' };
    }
    const imported = app.people.importMany(source());
    expect((await app.request('/health/live')).status).toBe(200);
    expect(read).toBeLessThan(100_000);
    await imported;
  });

  it('takes a connection once there is something to store, and none where there is nothing', async () => {
    const borrowed: number[] = [];
    async function* source(people: number) {
      for (let i = 0; i < people; i++) {
        borrowed.push(poolOf(app.dataSource).borrowed);
        yield { name: 'n' };
      }
    }
    expect(await app.people.importMany(source(100))).toEqual({ inserted: 100 });
    expect(await app.people.importMany(source(0))).toEqual({ inserted: 0 });
    expect(new Set(borrowed)).toEqual(new Set([0]));
  });

  it('inside of a unit of work needs no place beside it', async () => {
    const places = 5;
    const allIn = barrier(places + 1);
    const units = Array.from({ length: places + 1 }, () =>
      app.transactions.run({}, async () => {
        async function* source() {
          yield* generate(400);
          await allIn();
        }
        return app.people.importMany(source());
      }),
    );
    expect(await Promise.all(units)).toEqual(units.map(() => ({ inserted: 400 })));
  });

  it('keeps every character that means something to COPY', async () => {
    const names = [
      '\t',
      'a\nb',
      'a\r\nb',
      '\\',
      '\\.',
      '\\N',
      '\\n',
      'a\\\tb',
      '"',
      "'",
      '\u2028',
      '😀',
      '\b\f\v',
    ];
    async function* people() {
      for (const name of names) yield { name, data: { [name]: name } };
    }
    await app.people.importMany(people());
    for (const name of names) {
      const { items } = await app.people.findByName(name);
      expect(items.map(({ name, data }) => ({ name, data }))).toEqual([{ name, data: { [name]: name } }]);
    }
  });
});

describe('importMany in a unit of work that runs again', () => {
  const options = { isolationLevel: 'REPEATABLE READ' } as const;

  /** Imports `people` and, on its first attempt only, meets a row that another connection changed meanwhile. */
  function importAndCollide(people: AsyncIterable<NewPerson>) {
    let attempts = 0;
    return watchRetries(() =>
      app.transactions.run(options, async () => {
        attempts++;
        await app.people.get(ID);
        const { inserted } = await app.people.importMany(people);
        if (attempts === 1) await fromOutside(`UPDATE people SET name = 'outsider' WHERE id = '${ID}'`);
        await app.people.update(ID, { name: 'insider' });
        return { attempts, inserted };
      }),
    );
  }
  async function fromOutside(statement: string) {
    const client = new pg.Client(app.database.url);
    await client.connect();
    await client.query(statement);
    await client.end();
  }

  beforeEach(() => app.people.create({ id: ID, name: 'contended' }));

  it('imports an iterable that can be read again anew', async () => {
    const { result, retries } = await importAndCollide({ [Symbol.asyncIterator]: () => generate(500) });
    expect(result).toEqual({ status: 'fulfilled', value: { attempts: 2, inserted: 500 } });
    expect(retries.map(({ code }) => code)).toEqual(['40001']);
    expect(await count()).toBe(501);
  });

  it('says so when the iterable can be read only once, and stores nothing', async () => {
    const { result, retries } = await importAndCollide(generate(500));
    expect(retries.map(({ code }) => code)).toEqual(['40001']);
    expect(result).toMatchObject({
      status: 'rejected',
      reason: { type: 'import-not-repeatable' },
    });
    expect(await count()).toBe(1);
    expect((await app.people.get(ID)).name).toBe('outsider');
  });
});

describe('createMany', () => {
  const people = Array.from({ length: 25_000 }, (_, i) => ({ name: `n${i}`, data: { i } }));

  it('stores 25,000 people, more than one statement has parameters for, in the order given', async () => {
    const { inserted, ids } = await app.people.createMany(people);
    expect([inserted, ids.length, await count()]).toEqual([25_000, 25_000, 25_000]);
    for (const i of [0, 999, 1000, 24_999]) expect((await app.people.get(ids[i]!)).name).toBe(`n${i}`);
  });

  it('stores none of 25,000 when the last one conflicts', async () => {
    const conflicting = [{ id: ID, name: 'a' }, ...people, { id: ID, name: 'b' }];
    await expect(app.people.createMany(conflicting)).rejects.toMatchObject({
      type: 'person-conflict',
      id: ID,
    });
    expect(await count()).toBe(0);
  });
});
