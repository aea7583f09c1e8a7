import { startPeopleApp } from '../support/people-app.js';

/** Changes take so long that the writers of a hot person never leave its connection idle. */
const SLOW = [
  `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END $$`,
  'CREATE TRIGGER slow BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION slow()',
];

it.each([
  [1, 1],
  [2, 2],
  [3, 3],
])(
  'a pool of %i is left to readers in turn although %i hot people are changed all the time',
  async (pool, hot) => {
    const app = await startPeopleApp({ DB_POOL_SIZE: String(pool), DB_ACQUIRE_TIMEOUT_MS: '2000' });
    for (const text of SLOW) await app.database.query(text);
    const cold = await app.people.create({ name: 'cold' });
    const ids = await Promise.all(
      Array.from({ length: hot }, async () => (await app.people.create({ name: 'hot' })).id),
    );
    let isOver = false;
    const changes = new Map(ids.map((id) => [id, 0]));
    const failures: unknown[] = [];
    const writers = ids.flatMap((id) =>
      Array.from({ length: 8 }, async () => {
        while (!isOver)
          await app.people.update(id, { name: 'hot' }).then(
            () => changes.set(id, changes.get(id)! + 1),
            (error: unknown) => failures.push(error),
          );
      }),
    );
    const statuses: number[] = [];
    for (let read = 0; read < 50; read++) statuses.push((await app.request(`/people/${cold.id}`)).status);
    isOver = true;
    await Promise.all(writers);
    expect(statuses).toEqual(Array(50).fill(200));
    expect(failures).toEqual([]);
    // The hot ones are not starved in turn.
    for (const count of changes.values()) expect(count).toBeGreaterThan(50);
    await app.close();
  },
);
