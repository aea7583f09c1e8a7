import { barrier, eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { poolOf, startPeopleApp } from '../support/people-app.js';
import { type Decision, startTcpProxyTo } from '../support/tcp-proxy.js';

const app = duringTests(() => startPeopleApp());
const proxy = duringTests(() => startTcpProxyTo(app.database.url));
/** The same database through the proxy, with a single connection. */
const single = duringTests(() =>
  startPeopleApp({ DATABASE_URL: proxy.through(app.database.url), DB_POOL_SIZE: '1' }, app.database),
);
afterEach(async () => {
  proxy.onClientData = () => 'pass';
  // What looked for the outcome of a lost answer gives its connection back a moment after it has told.
  await eventually(() => poolOf(single.dataSource).borrowed === 0);
});

const ownPid = { text: 'SELECT pg_backend_pid() AS pid' };
const names = async () =>
  (await app.database.query<{ name: string }>('SELECT name FROM people')).map(({ name }) => name);

it('an error of the work rolls back, is handed on as it is, and the work is not run again', async () => {
  let runs = 0;
  const failure = new Error('the work says no');
  await expect(
    single.transactions.run({}, async () => {
      runs++;
      await single.people.create({ name: 'rolled back' });
      throw failure;
    }),
  ).rejects.toBe(failure);
  expect(runs).toBe(1);
  expect(await names()).not.toContain('rolled back');
});

it('work that swallows the error of a statement is told that everything was rolled back', async () => {
  const { id } = await app.people.create({ name: 'first' });
  await expect(
    single.transactions.run({}, async (transaction) => {
      await single.people.create({ name: 'swallowed' });
      const insert = { text: 'INSERT INTO people (id, name) VALUES ($1, $2)', values: [id, 'duplicate'] };
      await transaction.query(insert).catch(() => 'never mind');
    }),
  ).rejects.toMatchObject({ type: 'transaction-rolled-back' });
  expect(await names()).not.toContain('swallowed');
});

it('a statement that was not awaited cannot land after its transaction', async () => {
  const ended = barrier(2);
  let leaked: Promise<unknown> | undefined;
  await single.transactions.run({}, async (transaction) => {
    leaked = ended().then(() => transaction.query({ text: `INSERT INTO people (name) VALUES ('leaked')` }));
    leaked.catch(() => undefined);
  });
  await ended();
  await expect(leaked).rejects.toThrow(/has ended: await every statement/);
  expect(await names()).not.toContain('leaked');
});

it('a client whose backend was killed in mid transaction is not handed to the one who waits for it', async () => {
  const first = single.transactions.run({}, async (transaction) => {
    const { rows } = await transaction.query<{ pid: number }>(ownPid);
    const sleeping = transaction.query({ text: 'SELECT pg_sleep(60)' });
    await app.database.query('SELECT pg_terminate_backend($1)', [rows[0]!.pid]);
    await sleeping;
  });
  const waiter = single.people.create({ name: 'waiter' });
  await expect(first).rejects.toMatchObject({ type: 'database-unavailable', retryable: true });
  expect((await waiter).name).toBe('waiter');
});

it('a client that cannot roll back is closed with its open transaction', async () => {
  await expect(
    single.transactions.run({}, async (transaction) => {
      await single.people.create({ name: 'uncommitted' });
      const { rows } = await transaction.query<{ pid: number }>(ownPid);
      await app.database.query('SELECT pg_terminate_backend($1)', [rows[0]!.pid]);
      throw new Error('the work fails too');
    }),
  ).rejects.toThrow('the work fails too');
  expect((await single.people.findByName('uncommitted')).items).toEqual([]);
});

describe('a connection lost during COMMIT', () => {
  /** Cuts the first COMMIT only: what follows has to get through. */
  const cutCommit = (decision: Decision) => {
    let cuts = 0;
    proxy.onClientData = (data) => (data.includes('COMMIT') && cuts++ === 0 ? decision : 'pass');
  };

  it.each<[Decision, number]>([
    ['cut-before', 2],
    ['cut-after', 1],
    // The server still waits for COMMIT then, with every lock of the transaction, and has to be told.
    ['cut-unnoticed', 2],
  ])(
    '(%s the server has it) is resolved: the work ran %i times and is there once',
    async (decision, runs) => {
      cutCommit(decision);
      let ran = 0;
      const id = await single.transactions.run({}, async () => {
        ran++;
        return (await single.people.create({ name: decision })).id;
      });
      expect(ran).toBe(runs);
      expect((await single.people.findByName(decision)).items.map((person) => person.id)).toEqual([id]);
    },
  );

  it('is resolved although every client of the pool waits for the locks that the lost transaction holds', async () => {
    const { id } = await single.people.create({ name: '-' });
    const append = (text: string) =>
      single.transactions.run({}, (transaction) =>
        transaction.query({ text: 'UPDATE people SET name = name || $2 WHERE id = $1', values: [id, text] }),
      );
    let lost!: () => void;
    const isLost = new Promise<void>((resolve) => (lost = resolve));
    proxy.onClientData = (data) => {
      if (!data.includes('COMMIT')) return 'pass';
      proxy.onClientData = () => 'pass';
      lost();
      return 'cut-unnoticed';
    };
    const first = append('a');
    await isLost;
    await Promise.all([first, append('b')]);
    expect([...(await single.people.get(id)).name].sort()).toEqual(['-', 'a', 'b']);
  });

  it.each<['cut-before' | 'cut-after', number]>([
    ['cut-before', 0],
    ['cut-after', 1],
  ])(
    '(%s the server has it) is reported as unknown where it is not to be resolved',
    async (decision, rows) => {
      cutCommit(decision);
      const name = `report ${decision}`;
      const report = single.transactions.run({ commitOutcome: 'report' }, () =>
        single.people.create({ name }),
      );
      await expect(report).rejects.toMatchObject({
        type: 'transaction-outcome-unknown',
        retryable: false,
        attempts: 1,
      });
      await eventually(async () => (await single.people.findByName(name)).items.length === rows);
    },
  );
});

it('an unknown outcome is repeated where applying it twice does no harm', async () => {
  const { id } = await single.people.create({ name: 'before' });
  let cuts = 0;
  proxy.onClientData = (data) => (data.includes('COMMIT') && cuts++ === 0 ? 'cut-after' : 'pass');
  const attempts = await single.transactions.run(
    { commitOutcome: 'report', idempotent: true },
    async (transaction) => {
      await transaction.query({ text: `UPDATE people SET name = 'after' WHERE id = $1`, values: [id] });
      return transaction.attempt;
    },
  );
  expect(attempts).toBe(2);
  expect((await single.people.get(id)).name).toBe('after');
});

it('a connection that is lost before COMMIT is repeated where retryOn says so', async () => {
  const attempts = await single.transactions.run(
    { retryOn: ({ connectionLost, phase }) => connectionLost && phase === 'statement' },
    async (transaction) => {
      const { rows } = await transaction.query<{ pid: number }>(ownPid);
      if (transaction.attempt === 1)
        await app.database.query('SELECT pg_terminate_backend($1)', [rows[0]!.pid]);
      await transaction.query({ text: 'SELECT 1' });
      return transaction.attempt;
    },
  );
  expect(attempts).toBe(2);
});

it('an import that fails while its transaction begins borrows nothing when it is over', async () => {
  async function* people(): AsyncGenerator<{ name: string }> {
    yield { name: 'first' };
    throw new Error('the source fails');
  }
  await expect(single.people.importMany(people())).rejects.toThrow('the source fails');
  expect((await single.people.create({ name: 'next' })).name).toBe('next');
  expect(poolOf(single.dataSource).borrowed).toBe(0);
});

describe('an answer to a single statement that was lost', () => {
  // Named statements are sent as Parse/Bind the first time and by name alone later.
  const cutOnce = (name: string) => {
    let cuts = 0;
    proxy.onClientData = (data) => (data.includes(name) && cuts++ === 0 ? 'cut-after' : 'pass');
  };

  it('of a creation is made up for by repeating it, which its id makes harmless', async () => {
    cutOnce('people_create');
    const response = await single.send('POST', '/people', '{"name":"once"}');
    expect(response.status).toBe(201);
    expect((await single.people.findByName('once')).items).toHaveLength(1);
  });

  it('of a change is made up for by looking at what is there', async () => {
    const { id } = await single.people.create({ name: 'before' });
    cutOnce('people_update');
    const response = await single.send('PATCH', `/people/${id}`, '{"name":"after"}');
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ name: 'after' });
  });

  it('of a change that is not there is answered 500 over HTTP, not as safe to repeat', async () => {
    const { id } = await single.people.create({ name: 'before' });
    let cuts = 0;
    proxy.onClientData = (data) => (data.includes('people_update') && cuts++ === 0 ? 'cut-before' : 'pass');
    const response = await single.send('PATCH', `/people/${id}`, '{"name":"after"}');
    expect(response.status).toBe(500);
    expect(response.headers.get('retry-after')).toBeNull();
    expect(await response.json()).toMatchObject({ type: '/problems/transaction-outcome-unknown' });
  });

  it('of a change is resolved where that is asked for, at the price of a COMMIT', async () => {
    const { id } = await single.people.create({ name: 'before' });
    let cuts = 0;
    proxy.onClientData = (data) => (data.includes('COMMIT') && cuts++ === 0 ? 'cut-after' : 'pass');
    const changed = await single.transactions.runStatement<{ name: string }>(
      { text: `UPDATE people SET name = 'after' WHERE id = $1 RETURNING name`, values: [id] },
      { writes: true, commitOutcome: 'resolve' },
    );
    expect(changed.rows).toEqual([{ name: 'after' }]);
  });

  it('of a read is no failure at all: it is read again', async () => {
    const { id } = await single.people.create({ name: 'read' });
    cutOnce('people_get');
    expect((await single.people.get(id)).name).toBe('read');
  });
});
