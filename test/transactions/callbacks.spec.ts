import { DataSource, type EntitySubscriberInterface } from 'typeorm';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { AfterCommitError } from '../../src/transactions/transaction-errors.js';
import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';

const app = duringTests(() => startPeopleApp());
let id: string;
const called: string[] = [];
beforeEach(async () => {
  ({ id } = await app.people.create({ name: 'Ada' }));
  called.length = 0;
});

const call = (name: string) => async () => {
  // Later than anything that does not wait for it.
  await app.database.query('SELECT 1');
  called.push(name);
};
/** A unit of work that fails with a conflict in its first `conflicts` attempts. */
const colliding = (conflicts: number, maxAttempts = 10) =>
  app.transactions.run(
    { isolationLevel: 'REPEATABLE READ', maxAttempts, backoff: () => 1 },
    async (transaction) => {
      transaction.afterCommit(call(`committed in attempt ${transaction.attempt}`));
      transaction.afterRollback(call(`rolled back in attempt ${transaction.attempt}`));
      await transaction.query({ text: 'SELECT FROM people WHERE id = $1', values: [id] });
      if (transaction.attempt <= conflicts)
        await app.database.query(`UPDATE people SET name = 'other' WHERE id = $1`, [id]);
      await transaction.query({ text: `UPDATE people SET name = 'mine' WHERE id = $1`, values: [id] });
      return 'result';
    },
  );

describe('afterCommit', () => {
  it('is called once, for the attempt that was committed, before the caller has its result', async () => {
    await colliding(2);
    expect(called).toEqual(['committed in attempt 3']);
  });

  it('is called outside of the transaction, when others see what was committed', async () => {
    let seen: unknown;
    await app.transactions.run({}, async (transaction) => {
      await app.people.update(id, { name: 'new' });
      transaction.afterCommit(async () => {
        expect(currentTransaction()).toBeUndefined();
        seen = await app.database.query('SELECT name FROM people WHERE id = $1', [id]);
      });
    });
    expect(seen).toEqual([{ name: 'new' }]);
  });

  it('that fails keeps no other from being called, repeats nothing, and says that the rest is committed', async () => {
    let runs = 0;
    const conflict = Object.assign(new Error('conflict'), { code: '40001', severity: 'ERROR' });
    const unit = app.transactions.run({}, async (transaction) => {
      runs++;
      transaction.afterCommit(() => Promise.reject(conflict));
      transaction.afterCommit(call('second'));
      await app.people.update(id, { name: 'committed' });
      return 'result';
    });
    await expect(unit).rejects.toBeInstanceOf(AfterCommitError);
    await expect(unit).rejects.toMatchObject({
      committed: true,
      result: 'result',
      cause: conflict,
      retryable: false,
    });
    expect(runs).toBe(1);
    expect(called).toEqual(['second']);
    expect((await app.people.get(id)).name).toBe('committed');
  });

  it('of several that fail, the error has all', async () => {
    const [first, second] = [new Error('first'), new Error('second')];
    const unit = app.transactions.run({}, async (transaction) => {
      transaction.afterCommit(() => Promise.reject(first));
      transaction.afterCommit(() => {
        throw second;
      });
    });
    await expect(unit).rejects.toMatchObject({ errors: [first, second], cause: { errors: [first, second] } });
  });

  it('can not be asked for once the attempt is over', async () => {
    const transaction = await app.transactions.run({}, async (context) => context);
    expect(() => transaction.afterCommit(call('never'))).toThrow('has ended');
  });
});

describe('afterRollback', () => {
  it('is called once, when the unit of work has failed for good', async () => {
    await expect(colliding(3, 3)).rejects.toMatchObject({ type: 'transaction-retries-exhausted' });
    expect(called).toEqual(['rolled back in attempt 3']);
  });

  it('that fails does not hide why the unit of work failed', async () => {
    const no = new Error('no');
    const unit = app.transactions.run({}, async (transaction) => {
      transaction.afterRollback(() => Promise.reject(new Error('of the callback')));
      transaction.afterRollback(call('second'));
      throw no;
    });
    await expect(unit).rejects.toBe(no);
    expect(called).toEqual(['second']);
  });

  it('of a nested unit is called when that alone was rolled back, and its afterCommit is not', async () => {
    await app.transactions.run({}, async (outer) => {
      outer.afterCommit(call('outer committed'));
      outer.afterRollback(call('outer rolled back'));
      const nested = app.transactions.run({ propagation: 'NESTED' }, async (inner) => {
        inner.afterCommit(call('inner committed'));
        inner.afterRollback(call('inner rolled back'));
        throw new Error('no');
      });
      await nested.catch(() => undefined);
      await app.transactions.run({ propagation: 'NESTED' }, async (inner) =>
        inner.afterCommit(call('second inner')),
      );
    });
    expect(called).toEqual(['outer committed', 'inner rolled back', 'second inner']);
  });
});

describe("TypeORM's subscribers", () => {
  const subscribe = (subscriber: EntitySubscriberInterface) => {
    const { subscribers } = app.app.get(DataSource);
    subscribers.push(subscriber);
    return () => void subscribers.splice(subscribers.indexOf(subscriber), 1);
  };

  it('of afterTransactionCommit that fails repeats nothing, and says that the rest is committed', async () => {
    let runs = 0;
    const unsubscribe = subscribe({
      afterTransactionCommit: () =>
        Promise.reject(Object.assign(new Error('x'), { code: '40001', severity: 'ERROR' })),
    });
    const unit = app.transactions.run({}, async (transaction) => {
      runs++;
      await transaction.query({ text: `UPDATE people SET name = 'committed' WHERE id = $1`, values: [id] });
    });
    await expect(unit).rejects.toMatchObject({ type: 'after-commit-failed', committed: true });
    unsubscribe();
    expect(runs).toBe(1);
    expect((await app.people.get(id)).name).toBe('committed');
  });

  it('of beforeTransactionCommit that swallows a failed statement is told of, as COMMIT then rolls back', async () => {
    const unsubscribe = subscribe({
      beforeTransactionCommit: async ({ manager }) => {
        await manager
          .query(`INSERT INTO people (id, name) VALUES ($1, 'again')`, [id])
          .catch(() => undefined);
      },
    });
    const unit = app.transactions.run({}, () => app.people.update(id, { name: 'changed' }));
    await expect(unit).rejects.toMatchObject({ type: 'transaction-rolled-back', code: '23505' });
    unsubscribe();
    expect((await app.people.get(id)).name).toBe('Ada');
  });

  it('are told of the transaction once each, and may add to it before it is committed', async () => {
    const unsubscribe = subscribe({
      beforeTransactionStart: call('before start'),
      afterTransactionStart: call('after start'),
      beforeTransactionCommit: async ({ manager }) => {
        await manager.query(`UPDATE people SET name = name || ' audited' WHERE id = $1`, [id]);
        await call('before commit')();
      },
      afterTransactionCommit: call('after commit'),
    });
    await app.transactions.run({}, (transaction) => transaction.query({ text: 'SELECT 1' }));
    unsubscribe();
    expect(called).toEqual(['before start', 'after start', 'before commit', 'after commit']);
    expect((await app.people.get(id)).name).toBe('Ada audited');
  });
});
