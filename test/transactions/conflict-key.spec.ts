import { ConflictQueueFullError } from '../../src/transactions/transaction-errors.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import { barrier } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { poolOf, startPeopleApp } from '../support/people-app.js';
import { watchRetries } from '../support/retries.js';

const app = duringTests(() => startPeopleApp({ DB_POOL_SIZE: '4' }));
let id: string;
beforeEach(async () => {
  ({ id } = await app.people.create({ name: '0' }));
});

const increment = (options: { conflictKey?: string }) =>
  app.transactions.run({ isolationLevel: 'SERIALIZABLE', ...options }, async (transaction) => {
    const { rows } = await transaction.query<{ name: string }>({
      text: 'SELECT name FROM people WHERE id = $1',
      values: [id],
    });
    const name = String(Number(rows[0]!.name) + 1);
    await transaction.query({ text: 'UPDATE people SET name = $2 WHERE id = $1', values: [id, name] });
  });

describe('units of work with one conflictKey', () => {
  it('run one after another, in the order they came, without a conflict', async () => {
    const { result, retries } = await watchRetries(() =>
      Promise.all(Array.from({ length: 30 }, () => increment({ conflictKey: id }))),
    );
    expect(result.status).toBe('fulfilled');
    expect(retries).toEqual([]);
    expect((await app.people.get(id)).name).toBe('30');
  });

  it('hold no connection while they wait', async () => {
    const [begun, held] = [barrier(2), barrier(2)];
    const order: number[] = [];
    const unit = (n: number) =>
      app.transactions.run({ conflictKey: id }, async () => {
        order.push(n);
        if (n === 0) {
          await begun();
          await held();
        }
      });
    const units = [0, 1, 2, 3].map(unit);
    await begun();
    expect(poolOf(app.dataSource)).toMatchObject({ borrowed: 1, waiting: 0 });
    // Another key does not wait for this one.
    await app.transactions.run({ conflictKey: 'another' }, () => Promise.resolve());
    await held();
    await Promise.all(units);
    expect(order).toEqual([0, 1, 2, 3]);
  });

  it('wait in one line for every runner of the database, and are refused when it is full', async () => {
    const [begun, held] = [barrier(2), barrier(2)];
    const other = new TransactionRunner(app.dataSource, { conflictQueueSize: 1 });
    const holder = app.transactions.run({ conflictKey: id }, async () => {
      await begun();
      await held();
    });
    await begun();
    let ran = false;
    const waits = other.run({ conflictKey: id }, async () => {
      ran = true;
    });
    await expect(other.run({ conflictKey: id }, () => Promise.resolve())).rejects.toBeInstanceOf(
      ConflictQueueFullError,
    );
    expect(ran).toBe(false);
    await held();
    await Promise.all([holder, waits]);
    expect(ran).toBe(true);
  });

  it('of one statement each share a connection, in their order, and each has its own result', async () => {
    const seen: number[] = [];
    const statement = (n: number) => ({
      text: 'UPDATE people SET name = name || $2 WHERE id = $1 RETURNING pg_backend_pid() AS pid, name',
      values: [id, n === 3 ? '\0' : String(n)],
    });
    const send = (n: number) =>
      app.transactions
        .runStatement<{ pid: number; name: string }>(statement(n), { writes: true, conflictKey: id })
        .then(({ rows }) => {
          seen.push(n);
          return rows[0]!;
        });
    const results = await Promise.allSettled([1, 2, 3, 4, 5, 6, 7].map(send));
    // NUL is refused by the server: of one statement, and none of the others notices.
    expect(results.map(({ status }) => status === 'fulfilled')).toEqual([
      true,
      true,
      false,
      true,
      true,
      true,
      true,
    ]);
    expect(seen).toEqual([1, 2, 4, 5, 6, 7]);
    expect((await app.people.get(id)).name).toBe('0124567');
    expect(poolOf(app.dataSource).borrowed).toBe(0);
  });

  it('of one statement wait for one of several, and the other way round', async () => {
    const [begun, held] = [barrier(2), barrier(2)];
    const append = (text: string) =>
      app.transactions.runStatement(
        { text: 'UPDATE people SET name = name || $2 WHERE id = $1', values: [id, text] },
        { writes: true, conflictKey: id },
      );
    const several = (text: string, wait = () => Promise.resolve()) =>
      app.transactions.run({ conflictKey: id }, async (transaction) => {
        await wait();
        await transaction.query({
          text: 'UPDATE people SET name = name || $2 WHERE id = $1',
          values: [id, text],
        });
      });
    const first = several('a', () => begun().then(held));
    await begun();
    const others = [append('b'), append('c'), several('d'), append('e')];
    await held();
    await Promise.all([first, ...others]);
    expect((await app.people.get(id)).name).toBe('0abcde');
  });

  it('of one statement on a connection that is lost fail with it, and the next has another', async () => {
    const append = () =>
      app.transactions.runStatement(
        { text: 'UPDATE people SET name = name || $2 WHERE id = $1', values: [id, '+'] },
        { writes: true, conflictKey: id },
      );
    const killed = app.transactions.runStatement(
      { text: 'SELECT pg_terminate_backend(pg_backend_pid())' },
      { writes: true, conflictKey: id },
    );
    const results = await Promise.allSettled([killed, append(), append()]);
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    await append();
    expect((await app.people.get(id)).name).toBe('0+');
  });

  it('that take two keys crosswise do not wait for ever: one is told to try again, the other goes on', async () => {
    const both = barrier(2);
    const cross = (first: string, second: string) =>
      app.transactions.run({ conflictKey: first }, async () => {
        await both();
        await app.transactions.run({ propagation: 'REQUIRES_NEW', conflictKey: second }, () =>
          Promise.resolve(),
        );
      });
    const results = await Promise.allSettled([cross('a', 'b'), cross('b', 'a')]);
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    const { reason } = results.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
    expect(reason).toMatchObject({ type: 'conflict-key-deadlock', status: 503, retryable: true });
  });

  it('that wait in a ring of three, and beside each other, do not either', async () => {
    const all = barrier(3);
    const ring = (first: string, second: string) =>
      app.transactions.run({ conflictKey: first }, async () => {
        await all();
        await Promise.all([
          app.transactions.run({ propagation: 'REQUIRES_NEW', conflictKey: second }, () => Promise.resolve()),
          app.people.create({ name: 'beside' }),
        ]);
      });
    const results = await Promise.allSettled([ring('a', 'b'), ring('b', 'c'), ring('c', 'a')]);
    expect(results.some(({ status }) => status === 'fulfilled')).toBe(true);
    expect(results.some(({ status }) => status === 'rejected')).toBe(true);
  });

  it('that take keys inside of others in one order wait, and are not refused', async () => {
    const nested = (inner: string) =>
      app.transactions.run({ conflictKey: 'first' }, () =>
        app.transactions.run({ propagation: 'REQUIRES_NEW', conflictKey: inner }, () =>
          Promise.resolve(inner),
        ),
      );
    const alone = app.transactions.run({ conflictKey: 'second' }, () => Promise.resolve('alone'));
    expect(await Promise.all([nested('second'), nested('second'), nested('third'), alone])).toHaveLength(4);
  });

  it('free the key when they fail', async () => {
    await expect(
      app.transactions.run({ conflictKey: id }, () => Promise.reject(new Error('no'))),
    ).rejects.toThrow('no');
    await increment({ conflictKey: id });
    expect((await app.people.get(id)).name).toBe('1');
  });
});

it('changes of one person wait for each other in the process, so that they meet no conflict', async () => {
  const serializable = await startPeopleApp({ TRANSACTION_ISOLATION_LEVEL: 'SERIALIZABLE' }, app.database);
  const { result, retries } = await watchRetries(() =>
    Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        n % 2 === 0
          ? serializable.people.update(id.toUpperCase(), { name: `name ${n}` })
          : serializable.people.update(id, { data: { [n]: n } }, { merge: true }),
      ),
    ),
  );
  expect(result.status).toBe('fulfilled');
  expect(retries).toEqual([]);
  expect(Object.keys((await serializable.people.get(id)).data!)).toHaveLength(10);
  await serializable.close();
});
