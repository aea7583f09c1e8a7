import { currentTransaction, type TransactionContext } from '../../src/transactions/transaction-context.js';
import {
  AfterCommitError,
  TransactionOutcomeUnknownError,
  TransactionRolledBackError,
  TransactionTimeoutError,
  TransactionUsageError,
} from '../../src/transactions/transaction-errors.js';
import type { TransactionOptions } from '../../src/transactions/transaction-options.js';
import { Outbox } from '../../src/messaging/outbox.js';
import { failureOf } from '../../src/database/database-failure.js';
import { DatabaseUnavailableError } from '../../src/database/postgres-errors.js';
import { duringTests } from '../support/during-tests.js';
import { startLossyProxy } from '../support/lossy-proxy.js';
import { startPeopleApp } from '../support/people-app.js';
import { watchRetries } from '../support/retries.js';
import { createDatabase, openDatabase } from '../support/test-database.js';

const database = duringTests(() => createDatabase());
const proxy = duringTests(() => startLossyProxy(database.url));
const behind = duringTests(() => openDatabase(proxy.url));
const app = duringTests(() => startPeopleApp({ DB_POOL_SIZE: '3' }, behind));

beforeAll(() =>
  database.query(`
    CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL,
      CONSTRAINT unlike UNIQUE (balance) DEFERRABLE INITIALLY DEFERRED);
    CREATE SEQUENCE commits;
    CREATE FUNCTION collide() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF nextval('commits') = 1 THEN RAISE EXCEPTION 'collided' USING ERRCODE = '40001'; END IF;
        RETURN NULL;
      END $$`),
);
beforeEach(() =>
  database.query(
    `TRUNCATE accounts; INSERT INTO accounts VALUES (1, 100), (2, 200); ALTER SEQUENCE commits RESTART`,
  ),
);
afterEach(() => proxy.recover());

const IN_TURN: TransactionOptions = { conflictKey: 'account:1', backoff: { baseMs: 1, capMs: 1 } };
const run = <T>(work: (transaction: TransactionContext) => Promise<T>, options: TransactionOptions = {}) =>
  app.transactions.run({ ...IN_TURN, ...options }, work);
const balance = async (id = 1) =>
  (await database.query<{ balance: number }>('SELECT balance FROM accounts WHERE id = $1', [id]))[0]?.balance;
const read = async (transaction: TransactionContext) => {
  const text = 'SELECT balance FROM accounts WHERE id = 1';
  return (await transaction.query<{ balance: number }>({ text })).rows[0]!.balance;
};
const update = (to: number | object) => ({
  text: 'UPDATE accounts SET balance = $1 WHERE id = 1 RETURNING balance',
  values: [to],
});
/** Reads, decides, and writes with COMMIT. */
const addOne = async (transaction: TransactionContext) => {
  const { rows } = await transaction.commitWith<{ balance: number }>(update((await read(transaction)) + 1));
  return rows[0]!.balance;
};
const failure = async (unit: Promise<unknown>): Promise<Error> =>
  unit.then(
    () => new Error('it was done'),
    (error: Error) => error,
  );

describe('a statement that travels with COMMIT', () => {
  it('is committed when its result is there, and callbacks follow', async () => {
    const seen: unknown[] = [];
    const unit = run(async (transaction) => {
      transaction.afterCommit(() => seen.push('after'));
      const now = await read(transaction);
      const { rows, rowCount } = await transaction.commitWith<{ balance: number }>(update(now + 1));
      seen.push(await balance(), rows, rowCount);
      return rows[0]!.balance;
    });
    expect(await unit).toBe(101);
    expect(seen).toEqual([101, [{ balance: 101 }], 1, 'after']);
  });

  it('may be the only one of its unit, or a script', async () => {
    expect((await run((transaction) => transaction.commitWith(update(5)))).rowCount).toBe(1);
    const script = { text: 'UPDATE accounts SET balance = 6 WHERE id = 1; SELECT 1' };
    await run((transaction) => transaction.commitWith(script));
    expect(await balance()).toBe(6);
  });

  it('waits for statements that were sent before it', async () => {
    await run(async (transaction) => {
      const first = transaction.query(update(7));
      await transaction.commitWith({ text: 'UPDATE accounts SET balance = balance * 2 WHERE id = 1' });
      await first;
    });
    expect(await balance()).toBe(14);
  });

  it('is the last: what the work sends behind it is refused, and tells that the unit is applied all the same', async () => {
    const further: ((transaction: TransactionContext) => unknown)[] = [
      (transaction) => transaction.query({ text: 'SELECT 1' }),
      (transaction) => transaction.manager.query('SELECT 1'),
      (transaction) => transaction.client.query('SELECT 1'),
      (transaction) => transaction.commitWith(update(1)),
      (transaction) => transaction.afterCommit(() => undefined),
      () => app.transactions.run({}, (joined) => joined.query({ text: 'SELECT 1' })),
      () => app.transactions.run({ propagation: 'NESTED' }, () => Promise.resolve()),
    ];
    for (const send of further) {
      const error = await failure(
        run(async (transaction) => {
          await addOne(transaction);
          await send(transaction);
        }),
      );
      expect(error).toBeInstanceOf(AfterCommitError);
      // TypeORM has an error of its own around it.
      const { cause } = error as { cause: { driverError?: unknown } };
      expect(cause.driverError ?? cause).toBeInstanceOf(TransactionUsageError);
    }
    expect(await balance()).toBe(100 + further.length);
  });

  it('is the last also where two are sent at once: one is done, or none', async () => {
    const both = (transaction: TransactionContext) =>
      Promise.all([transaction.commitWith(update(1)), transaction.commitWith(update(2))]);
    const late = await failure(
      run(async (transaction) => {
        await read(transaction);
        await both(transaction);
      }),
    );
    expect([late instanceof AfterCommitError, await balance()]).toEqual([true, 1]);
    // Where the first is on its way without COMMIT yet, the mistake comes before that.
    const error = await failure(run(both));
    expect([error instanceof TransactionUsageError, await balance()]).toEqual([true, 1]);
  });

  it('is done before what the work throws behind it, which says so', async () => {
    const mine = new Error('of the work');
    const error = await failure(
      run(async (transaction) => {
        await addOne(transaction);
        throw mine;
      }),
    );
    expect([error instanceof AfterCommitError, error.cause === mine, await balance()]).toEqual([
      true,
      true,
      101,
    ]);
  });

  it('is done before the budget ends the rest of the work, and the caller is told so', async () => {
    const error = await failure(
      run(
        async (transaction) => {
          await addOne(transaction);
          await new Promise(() => undefined);
        },
        { timeoutMs: 300 },
      ),
    );
    expect(error).toBeInstanceOf(AfterCommitError);
    expect(error.cause).toBeInstanceOf(TransactionTimeoutError);
    expect(await balance()).toBe(101);
  });

  it('keeps no connection from the pool, whatever ends it', async () => {
    const units = Array.from({ length: 20 }, (_, n) =>
      failure(n % 2 ? run(addOne) : run((transaction) => transaction.commitWith({ text: 'SELECT 1 / 0' }))),
    );
    await Promise.all(units);
    expect(await balance()).toBe(110);
  });

  it('takes events with it, and refuses those that come later', async () => {
    const outbox = app.app.get(Outbox);
    const event = (type: string) => ({ aggregateType: 'account', aggregateId: '1', type, topic: 'accounts' });
    const events = () => database.query('SELECT type FROM message_outbox ORDER BY type');
    await run((transaction) => {
      outbox.publish(event('told'));
      return addOne(transaction);
    });
    const late = run(async (transaction) => {
      outbox.publish(event('in time'));
      await addOne(transaction);
      outbox.publish(event('late'));
    });
    expect((await failure(late)).cause).toBeInstanceOf(TransactionUsageError);
    expect(await events()).toEqual([{ type: 'in time' }, { type: 'told' }]);
  });
});

describe('where somebody else commits, it is a statement like others', () => {
  const inner = (transaction: TransactionContext) => transaction.commitWith(update(1));
  const parts: Record<string, (outer: TransactionContext) => Promise<unknown>> = {
    'in a unit that has joined': () => app.transactions.run({}, inner),
    'in a nested unit': () => app.transactions.run({ propagation: 'NESTED' }, inner),
    'in what a joined unit finds for itself': () =>
      app.transactions.run({}, () => currentTransaction()!.commitWith(update(1))),
    'in a unit beside it, which asks the outer one': (outer) =>
      app.transactions.run({ propagation: 'REQUIRES_NEW' }, () => inner(outer)),
  };
  it.each(Object.keys(parts))('%s', async (name) => {
    const error = await failure(
      run(async (outer) => {
        await outer.query({ text: 'UPDATE accounts SET balance = 3 WHERE id = 2' });
        await parts[name]!(outer);
        expect(await read(outer)).toBe(1);
        throw new Error('of the work');
      }),
    );
    expect(error.message).toBe('of the work');
    expect([await balance(1), await balance(2)]).toEqual([100, 200]);
  });

  it('in a unit whose result is kept with its commit, as of a message', async () => {
    const claim = { text: 'INSERT INTO accounts VALUES (3, 300)', values: [] };
    await app.transactions.run({ claim }, async (transaction) => {
      await addOne(transaction);
      transaction.atCommit(() => ({ text: 'UPDATE accounts SET balance = 301 WHERE id = 3', values: [] }));
    });
    expect([await balance(1), await balance(3)]).toEqual([101, 301]);
  });
});

describe('a statement that fails in front of COMMIT', () => {
  const broken = { text: 'UPDATE accounts SET balance = 1 / 0 WHERE id = 1' };
  const outbox = (transaction: TransactionContext) =>
    transaction.atCommit(() => ({ text: 'UPDATE accounts SET balance = 3 WHERE id = 2', values: [] }));
  const workThat = (fails: (error: Error) => unknown) => async (transaction: TransactionContext) => {
    await read(transaction);
    outbox(transaction);
    return transaction.commitWith(broken).catch(fails);
  };

  it('takes everything with it, and fails the unit as ever', async () => {
    const rolledBack: string[] = [];
    const error = await failure(
      run((transaction) => {
        transaction.afterRollback(() => rolledBack.push('told'));
        return workThat((error) => {
          throw error;
        })(transaction);
      }),
    );
    expect(failureOf(error)?.postgres?.code ?? (error as { code?: string }).code).toBe('22012');
    expect([rolledBack, await balance(1), await balance(2)]).toEqual([['told'], 100, 200]);
  });

  it('may be told by the work in its own words', async () => {
    const mine = new Error('in words of the work');
    const error = await failure(
      run(
        workThat(() => {
          throw mine;
        }),
      ),
    );
    expect([error === mine, await balance(2)]).toEqual([true, 200]);
  });

  it('can not be swallowed', async () => {
    const error = await failure(run(workThat(() => undefined)));
    expect([error instanceof TransactionRolledBackError, await balance(2)]).toEqual([true, 200]);
  });

  it('can not be swallowed where an earlier one was', async () => {
    const error = await failure(
      run(async (transaction) => {
        await transaction.query(broken).catch(() => undefined);
        return addOne(transaction).catch(() => undefined);
      }),
    );
    expect([error instanceof TransactionRolledBackError, await balance(1)]).toEqual([true, 100]);
  });

  it('as pg can’t send its values, commits nothing', async () => {
    const circular: { self?: unknown } = {};
    circular.self = circular;
    const error = await failure(
      run(async (transaction) => {
        await read(transaction);
        outbox(transaction);
        return transaction.commitWith(update(circular));
      }),
    );
    expect(error).toBeInstanceOf(TypeError);
    expect([await balance(1), await balance(2)]).toEqual([100, 200]);
  });

  it('with a conflict is repeated from the start', async () => {
    let attempts = 0;
    const { retries } = await watchRetries(() =>
      run(
        async (transaction) => {
          const now = await read(transaction);
          if (++attempts === 1) await database.query('UPDATE accounts SET balance = 150 WHERE id = 1');
          return transaction.commitWith(update(now + 1));
        },
        { isolationLevel: 'REPEATABLE READ' },
      ),
    );
    expect(retries).toEqual([expect.objectContaining({ code: '40001', attempt: 1, phase: 'statement' })]);
    expect([attempts, await balance()]).toEqual([2, 151]);
  });
});

describe('a COMMIT that fails behind its statement', () => {
  it('at a deferred constraint leaves nothing, is told as itself, and the client stays in use', async () => {
    const pids: number[] = [];
    const collide = run(async (transaction) => {
      const { rows } = await transaction.query<{ pid: number }>({ text: 'SELECT pg_backend_pid() AS pid' });
      pids.push(rows[0]!.pid);
      await transaction.commitWith(update(200));
    });
    expect(await failure(collide)).toMatchObject({ code: '23505', constraint: 'unlike' });
    expect(await balance()).toBe(100);
    const alive = await database.query('SELECT FROM pg_stat_activity WHERE pid = $1', [pids[0]]);
    expect(alive).toHaveLength(1);
  });

  it('with a conflict repeats the whole unit', async () => {
    await database.query(`CREATE CONSTRAINT TRIGGER collide AFTER UPDATE ON accounts DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW EXECUTE FUNCTION collide()`);
    try {
      const { retries } = await watchRetries(() => run(addOne));
      expect(retries).toEqual([expect.objectContaining({ code: '40001', attempt: 1, phase: 'commit' })]);
      expect(await balance()).toBe(101);
    } finally {
      await database.query('DROP TRIGGER collide ON accounts');
    }
  });
});

describe('a statement that travels with COMMIT on a connection that is lost', () => {
  /** `lose` meets the first COMMIT. */
  const losing = async (lose: 'answer' | 'request', unit: () => Promise<unknown>) => {
    if (lose === 'answer') {
      const held = proxy.holdAnswers(/COMMIT\0/);
      const done = unit();
      done.catch(() => undefined);
      (await held)[0]!.cut();
      return done;
    }
    let lost = 0;
    proxy.onRequest = (piece) => (piece.includes('COMMIT\0') && lost++ === 0 ? 'unsent' : 'pass');
    return unit();
  };

  it('before the server has it, is repeated with its unit, as the server says that nothing was done', async () => {
    expect(await losing('request', () => run(addOne))).toBe(101);
    expect(await balance()).toBe(101);
  });

  it('whose answer is lost, is told as applied, with the loss as the cause', async () => {
    const error = await failure(losing('answer', () => run(addOne)));
    expect(error).toBeInstanceOf(AfterCommitError);
    expect(failureOf(error.cause)?.isLost).toBe(true);
    expect(await balance()).toBe(101);
  });

  it('whose answer is lost, lets the work return without it', async () => {
    const afterwards: string[] = [];
    const unit = run(async (transaction) => {
      transaction.afterCommit(() => afterwards.push('told'));
      const next = (await read(transaction)) + 1;
      await transaction.commitWith(update(next)).catch((error: unknown) => {
        if (!(error instanceof AfterCommitError)) throw error;
      });
      return next;
    });
    expect(await losing('answer', () => unit)).toBe(101);
    expect([afterwards, await balance()]).toEqual([['told'], 101]);
  });

  it('whose answer does not come within the budget, is known before the work goes on', async () => {
    const held = proxy.holdAnswers(/COMMIT\0/);
    const unit = run(
      async (transaction) => {
        const next = (await read(transaction)) + 1;
        const end = await failure(transaction.commitWith(update(next)));
        return [next, end instanceof AfterCommitError];
      },
      { timeoutMs: 1000 },
    );
    await held;
    expect(await unit).toEqual([101, true]);
    expect(await balance()).toBe(101);
  });

  it.each(['report', 'row'] as const)(
    'with commitOutcome %s, is told as that can know',
    async (commitOutcome) => {
      const error = await failure(losing('answer', () => run(addOne, { commitOutcome })));
      expect(error).toBeInstanceOf(
        commitOutcome === 'row' ? AfterCommitError : TransactionOutcomeUnknownError,
      );
      expect(await balance()).toBe(101);
    },
  );

  it('while the work swallows it, is unknown where that can’t be known', async () => {
    const unit = () => run((transaction) => addOne(transaction).catch(() => 0), { commitOutcome: 'report' });
    expect(await failure(losing('answer', unit))).toBeInstanceOf(TransactionOutcomeUnknownError);
  });

  it('before its COMMIT was asked for, has changed nothing, and is not asked for', async () => {
    let attempts = 0;
    const unit = run(async (transaction) => {
      attempts++;
      await read(transaction);
      const { rows } = await transaction.query<{ pid: number }>({ text: 'SELECT pg_backend_pid() AS pid' });
      await database.query('SELECT pg_terminate_backend($1)', [rows[0]!.pid]);
      await transaction.query({ text: 'SELECT 1' }).catch(() => undefined);
      return transaction.commitWith(update(1));
    });
    expect(await failure(unit)).toBeInstanceOf(DatabaseUnavailableError);
    expect([attempts, await balance()]).toEqual([1, 100]);
  });
});
