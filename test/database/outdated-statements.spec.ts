import { barrier } from '../support/barrier.js';
import { type PeopleHost, startPeopleHost } from '../support/people-host.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

const POOL = 4;

let database: TestDatabase;
let host: PeopleHost;
beforeEach(async () => {
  database = await createDatabase();
  host = await startPeopleHost(database.url, { dataSource: { poolSize: POOL }, people: { events: true } });
});
afterEach(async () => {
  await host.close();
  await database.drop();
});

/** Every connection of the pool has prepared the statements of reading and writing. */
async function warmUp(): Promise<string> {
  const { id } = await host.people.create({ name: 'warm' });
  const arrived = barrier(POOL);
  await Promise.all(
    Array.from({ length: POOL }, (_, index) =>
      host.transactions.run({}, async () => {
        await host.people.get(id);
        await host.people.findByName('warm');
        await host.people.create({ name: `warm ${index}` });
        await arrived();
      }),
    ),
  );
  for (let n = 0; n < 2 * POOL; n++) await everyKind(id);
  return id;
}

/** One of each kind of statement, side by side, through HTTP and DI: all are to be done. */
async function everyKind(id: string): Promise<void> {
  const { people, transactions } = host;
  const statuses = await Promise.all([
    host.request(`/people/${id}`),
    host.request('/people?name=warm'),
    host.send('POST', '/people', '{"name":"new"}'),
    host.send('PATCH', `/people/${id}`, '{"name":"warm"}'),
    host.send('POST', '/people/bulk', '[{"name":"many"},{"name":"many"}]'),
  ]);
  expect(statuses.map(({ status }) => status)).toEqual([200, 200, 201, 200, 201]);
  await Promise.all([
    people.get(id),
    people.create({ name: 'new' }),
    // One lane of a hot person.
    ...Array.from({ length: 6 }, () => people.update(id, { name: 'warm' })),
    people.update(id, { data: { n: 1 } }, { merge: true }),
    transactions.run({}, async () => {
      const { id: other } = await people.create({ name: 'unit' });
      await people.update(other, { name: 'unit' });
      await people.get(other);
      await people.remove(other);
    }),
  ]);
}

const CAUSES: [what: string, cause: () => Promise<unknown>][] = [
  ['a column gets another type', () => database.query('ALTER TABLE people ALTER name TYPE varchar(200)')],
  [
    'a column gets another type, and back, and again',
    async () => {
      for (const type of ['varchar(200)', 'text', 'varchar(100)'])
        await database.query(`ALTER TABLE people ALTER name TYPE ${type}`);
    },
  ],
  ['data becomes jsonb', () => database.query('ALTER TABLE people ALTER data TYPE jsonb USING data::jsonb')],
  [
    'host code has discarded everything on each connection',
    () => onEachConnection((query) => query('DISCARD ALL')),
  ],
  [
    'host code has deallocated each connection’s statements',
    () => onEachConnection((query) => query('DEALLOCATE ALL')),
  ],
  [
    'host code has left another search_path on each connection',
    () => onEachConnection((query) => query('SET search_path TO nowhere')),
  ],
];

async function onEachConnection(use: (query: (text: string) => Promise<unknown>) => Promise<unknown>) {
  const runners = Array.from({ length: POOL }, () => host.dataSource.createQueryRunner());
  await Promise.all(runners.map((runner) => runner.connect()));
  await Promise.all(runners.map((runner) => use((text) => runner.query(text))));
  await Promise.all(runners.map((runner) => runner.release()));
}

it.each(CAUSES.slice(0, 5))('once %s, everything is done as before', async (_, cause) => {
  const id = await warmUp();
  await cause();
  for (let n = 0; n < POOL; n++) await everyKind(id);
});

it('once host code has left another search_path on each connection, each of them fails once at most', async () => {
  const id = await warmUp();
  await CAUSES[5]![1]();
  const failures = await Promise.all(
    // Units of work, which have a connection each: single reads that come together share one.
    Array.from({ length: POOL }, () =>
      host.transactions
        .run({}, () => host.people.get(id))
        .then(
          () => undefined,
          (error: unknown) => error,
        ),
    ),
  );
  for (const failure of failures)
    if (failure) expect(failure).toMatchObject({ type: 'database-unavailable' });
  for (let n = 0; n < 3; n++) await everyKind(id);
});

it.each(CAUSES.slice(0, 5))('while under traffic %s, nothing fails', async (_, cause) => {
  const id = await warmUp();
  let isOver = false;
  const traffic = Array.from({ length: 3 }, async () => {
    do await everyKind(id);
    while (!isOver);
    await everyKind(id);
  });
  await Promise.all([cause(), host.people.get(id)]);
  isOver = true;
  await Promise.all(traffic);
});

it('a unit of work that deallocates its own statements is done without names in the end', async () => {
  const id = await warmUp();
  let runs = 0;
  const unit = host.transactions.run({}, async (transaction) => {
    runs++;
    await host.people.get(id);
    await transaction.query({ text: 'DEALLOCATE ALL' });
    return (await host.people.get(id)).name;
  });
  expect(await unit).toBe('warm');
  expect(runs).toBeLessThanOrEqual(4);
  await everyKind(id);
});

it('no attempt is spent on it, and what the work makes of the failure does not matter', async () => {
  const id = await warmUp();
  await database.query('ALTER TABLE people ALTER name TYPE varchar(200)');
  const attempts: number[] = [];
  const name = await host.transactions.run({ maxAttempts: 2 }, async (transaction) => {
    attempts.push(transaction.attempt);
    await transaction.query({ text: 'SELECT 1' });
    try {
      return (await host.people.get(id)).name;
    } catch (cause) {
      throw new Error('could not be read', { cause });
    }
  });
  expect(name).toBe('warm');
  expect([...new Set(attempts)]).toEqual([1]);
});

it('work that may run once only is told that nothing was changed', async () => {
  const id = await warmUp();
  await database.query('ALTER TABLE people ALTER name TYPE varchar(200)');
  let runs = 0;
  const unit = host.transactions.run({ maxAttempts: 1 }, async (transaction) => {
    runs++;
    await transaction.query({ text: 'SELECT 1' });
    return host.people.get(id);
  });
  await expect(unit).rejects.toMatchObject({ type: 'database-unavailable', sqlState: '0A000' });
  expect(runs).toBe(1);
});
