import { ConflictQueueFullError } from '../../src/transactions/transaction-errors.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import { barrier } from '../support/barrier.js';
import { type PeopleApp, poolOf, startPeopleApp } from '../support/people-app.js';
import { watchRetries } from '../support/retries.js';

let app: PeopleApp;
let id: string;
beforeAll(async () => {
  app = await startPeopleApp({ DB_POOL_SIZE: '4' });
});
beforeEach(async () => {
  ({ id } = await app.people.create({ name: '0' }));
});
afterAll(() => app.close());

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
