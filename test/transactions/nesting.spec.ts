import { from as copyFrom } from 'pg-copy-streams';
import { TransactionUsageError } from '../../src/transactions/transaction-errors.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { barrier } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { poolOf, startPeopleApp } from '../support/people-app.js';

const app = duringTests(() => startPeopleApp({ DB_POOL_SIZE: '2' }));
afterEach(() => expect(poolOf(app.dataSource).borrowed).toBe(0));

const names = async () =>
  (await app.database.query<{ name: string }>('SELECT name FROM people ORDER BY name')).map(
    ({ name }) => name,
  );
const no = new Error('no');
const refuse = () => Promise.reject(no);
beforeEach(() => app.database.query('TRUNCATE people'));

describe('REQUIRED', () => {
  it('joins: what the outer rolls back, the inner never did', async () => {
    const outer = app.transactions.run({}, async (transaction) => {
      await app.transactions.run({}, async (joined) => {
        expect(joined).toBe(transaction);
        await app.people.create({ name: 'inner' });
      });
      await refuse();
    });
    await expect(outer).rejects.toBe(no);
    expect(await names()).toEqual([]);
  });

  it.each([
    ['READ COMMITTED', 'REPEATABLE READ'],
    ['REPEATABLE READ', 'SERIALIZABLE'],
    [undefined, 'SERIALIZABLE'],
  ] as const)('inside of %s that asks for %s is refused, and names both', async (outer, inner) => {
    const options = outer ? { isolationLevel: outer } : {};
    const joined = app.transactions.run(options, () =>
      app.transactions.run({ isolationLevel: inner }, () => app.people.create({ name: 'x' })),
    );
    await expect(joined).rejects.toThrow(
      `asks for ${inner} can not join one of ${outer ?? 'READ COMMITTED'}`,
    );
    expect(await names()).toEqual([]);
  });

  it('inside of a stricter level joins it', async () => {
    await app.transactions.run({ isolationLevel: 'SERIALIZABLE' }, () =>
      app.transactions.run({ isolationLevel: 'READ COMMITTED' }, () => app.people.create({ name: 'x' })),
    );
    expect(await names()).toEqual(['x']);
  });

  it('that is to write is refused inside of one that is read only, and the server refuses what did not say so', async () => {
    const write = (options: { readOnly?: boolean }) =>
      app.transactions.run({ readOnly: true }, () =>
        app.transactions.run(options, () => app.people.create({ name: 'x' })),
      );
    await expect(write({ readOnly: false })).rejects.toThrow('can not join one that is read only');
    await expect(write({})).rejects.toMatchObject({ code: '25006' });
  });
});

describe('MANDATORY', () => {
  it('joins, and without a unit of work around it is a mistake', async () => {
    const create = () =>
      app.transactions.run({ propagation: 'MANDATORY' }, () => app.people.create({ name: 'x' }));
    await expect(create()).rejects.toThrow(TransactionUsageError);
    await app.transactions.run({}, create);
    expect(await names()).toEqual(['x']);
  });
});

describe('REQUIRES_NEW', () => {
  const audit = (name: string) =>
    app.transactions.run({ propagation: 'REQUIRES_NEW' }, () => app.people.create({ name }));

  it('stays when the one around it is rolled back, and the other way round', async () => {
    await expect(
      app.transactions.run({}, async () => {
        await app.people.create({ name: 'outer' });
        await audit('audit');
        await refuse();
      }),
    ).rejects.toBe(no);
    expect(await names()).toEqual(['audit']);
    await app.transactions.run({}, async (outer) => {
      await app.transactions.run({ propagation: 'REQUIRES_NEW' }, refuse).catch(() => undefined);
      expect(currentTransaction()).toBe(outer);
      await app.people.create({ name: 'outer' });
    });
    expect(await names()).toEqual(['audit', 'outer']);
  });

  it('is refused at once where the pool has no second connection, rather than waiting for itself', async () => {
    const bothHoldOne = barrier(2);
    const unit = () =>
      app.transactions.run({}, async (transaction) => {
        await transaction.query({ text: 'SELECT 1' });
        await bothHoldOne();
        await audit('never');
      });
    const results = await Promise.allSettled([unit(), unit()]);
    for (const result of results) {
      expect(result).toMatchObject({
        status: 'rejected',
        reason: { type: 'pool-exhausted', retryable: true },
      });
      const { cause } = (result as PromiseRejectedResult).reason as Error;
      expect((cause as Error).message).toContain("'REQUIRES_NEW' needs a second connection");
    }
    expect(await names()).toEqual([]);
  });

  it('with the conflictKey of the one around it is refused, as it would wait for itself', async () => {
    const both = app.transactions.run({ conflictKey: 'k' }, () =>
      app.transactions.run({ conflictKey: 'k', propagation: 'REQUIRES_NEW' }, () => Promise.resolve()),
    );
    await expect(both).rejects.toThrow('would wait for itself');
  });

  it('that used up its own attempts is not repeated ten times over by the one around it', async () => {
    let inner = 0;
    let outer = 0;
    const conflict = { text: `DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$` };
    await expect(
      app.transactions.run({ backoff: () => 1 }, () => {
        outer++;
        return app.transactions.run({ propagation: 'REQUIRES_NEW', backoff: () => 1 }, (transaction) => {
          inner++;
          return transaction.query(conflict);
        });
      }),
    ).rejects.toMatchObject({ type: 'transaction-retries-exhausted', attempts: 10 });
    expect([outer, inner]).toEqual([1, 10]);
  });
});

describe('NESTED', () => {
  const nested = <T>(work: () => Promise<T>) => app.transactions.run({ propagation: 'NESTED' }, work);
  const duplicate = async () => {
    const { id } = await app.people.create({ name: 'first' });
    await currentTransaction()!.query({ text: 'INSERT INTO people VALUES ($1, $2)', values: [id, 'twice'] });
  };

  it('that fails and is caught leaves what came before it, and the failure is settled', async () => {
    await app.transactions.run({}, async () => {
      await app.people.create({ name: 'before' });
      await expect(nested(duplicate)).rejects.toMatchObject({ code: '23505' });
      await app.people.create({ name: 'after' });
    });
    expect(await names()).toEqual(['after', 'before']);
  });

  it('that swallowed a failed statement rejects with that failure, and not with what came of it', async () => {
    await app.transactions.run({}, async () => {
      await expect(nested(() => duplicate().catch(() => undefined))).rejects.toMatchObject({ code: '23505' });
      await app.people.create({ name: 'after' });
    });
    expect(await names()).toEqual(['after']);
  });

  it('that fails takes nothing with it that runs beside it, through whatever the others send it', async () => {
    const send = {
      service: (name: string) => app.people.create({ name }),
      statement: (name: string) => currentTransaction()!.query({ text: 'INSERT INTO people (name) VALUES ($1)', values: [name] }), // prettier-ignore
      manager: (name: string) => currentTransaction()!.manager.query('INSERT INTO people (name) VALUES ($1)', [name]), // prettier-ignore
      client: (name: string) => currentTransaction()!.client.query('INSERT INTO people (name) VALUES ($1)', [name]), // prettier-ignore
    };
    await app.transactions.run({}, async () => {
      const open = barrier(2);
      const beside = async () => {
        await open();
        for (const [how, insert] of Object.entries(send)) await insert(`beside by ${how}`);
      };
      const failing = nested(async () => {
        await app.people.create({ name: 'nested' });
        await open();
        await app.people.create({ name: 'nested too' });
        await refuse();
      });
      await Promise.all([beside(), expect(failing).rejects.toBe(no)]);
    });
    expect(await names()).toEqual(Object.keys(send).map((how) => `beside by ${how}`).sort()); // prettier-ignore
  });

  it('keeps a COPY from beginning beside it, which would be rolled back with it', async () => {
    await app.transactions.run({}, async ({ client }) => {
      const [open, tried] = [barrier(2), barrier(2)];
      const beside = async () => {
        await open();
        const copy = copyFrom('COPY people (name) FROM STDIN');
        expect(() => client.query(copy as never)).toThrow('beside a nested unit of work');
        await tried();
      };
      const unit = nested(async () => {
        await open();
        await tried();
      });
      await Promise.all([beside(), unit]);
    });
  });

  it('that fails while a part of it goes on has that refused, and not done for the one around it', async () => {
    await app.transactions.run({}, async () => {
      const [failed, done] = [barrier(2), barrier(2)];
      const refused: unknown[] = [];
      const part = async () => {
        await failed();
        const { manager, client } = currentTransaction()!;
        for (const late of [manager.query(`INSERT INTO people (name) VALUES ('late')`), client.query(`INSERT INTO people (name) VALUES ('late')`), app.people.create({ name: 'late' })]) // prettier-ignore
          refused.push(await late.then(() => 'done', () => 'refused')); // prettier-ignore
        await done();
      };
      await expect(nested(() => Promise.all([part(), refuse()]))).rejects.toBe(no);
      await failed();
      await done();
      expect(refused).toEqual(['refused', 'refused', 'refused']);
    });
    expect(await names()).toEqual([]);
  });

  it('units that are begun side by side run one after another, each behind its own savepoint', async () => {
    await app.transactions.run({}, async () => {
      const results = await Promise.allSettled([
        nested(() => app.people.create({ name: 'a' })),
        nested(duplicate),
        nested(() => app.people.create({ name: 'c' })),
      ]);
      expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    });
    expect(await names()).toEqual(['a', 'c']);
  });

  it('is never repeated at its savepoint: a conflict in it, caught or not, runs the outermost again', async () => {
    const { id } = await app.people.create({ name: 'Ada' });
    for (const swallow of [false, true]) {
      const runs = { outer: 0, inner: 0 };
      await app.transactions.run({ isolationLevel: 'REPEATABLE READ' }, async (transaction) => {
        runs.outer++;
        await transaction.query({ text: 'SELECT FROM people WHERE id = $1', values: [id] });
        if (runs.outer === 1)
          await app.database.query('UPDATE people SET name = $2 WHERE id = $1', [id, 'other']);
        const inner = nested(async () => {
          runs.inner++;
          await app.people.update(id, { name: 'mine' });
        });
        await (swallow ? inner.catch(() => undefined) : inner);
      });
      expect(runs).toEqual({ outer: 2, inner: 2 });
      expect((await app.people.get(id)).name).toBe('mine');
    }
  });

  it('on its own is a unit of work like any other', async () => {
    await nested(() => app.people.create({ name: 'alone' }));
    expect(await names()).toEqual(['alone']);
  });
});

describe('a contradiction is refused before anything is begun', () => {
  it.each([
    [
      'deferrable without read only',
      { deferrable: true, isolationLevel: 'SERIALIZABLE' },
      'deferrable: true',
    ],
    ['deferrable at a weaker level', { deferrable: true, readOnly: true }, 'deferrable: true'],
    ['no attempts', { maxAttempts: 0 }, 'maxAttempts must be a whole number from 1 to 10, not 0'],
    ['eleven attempts', { maxAttempts: 11 }, 'maxAttempts'],
    ['a budget of nothing', { timeoutMs: 0 }, 'timeoutMs'],
    ['half a millisecond', { lockTimeoutMs: 0.5 }, 'lockTimeoutMs'],
    [
      'a level of another database',
      { isolationLevel: 'SNAPSHOT' },
      'isolationLevel must be one of READ COMMITTED',
    ],
    ['an empty key', { conflictKey: '' }, 'conflictKey'],
    ['a way that is none', { propagation: 'NEVER' }, 'propagation must be one of REQUIRED'],
    ['an outcome that is none', { commitOutcome: 'guess' }, 'commitOutcome'],
  ])('%s', async (_, options, message) => {
    let ran = false;
    const unit = app.transactions.run(options as never, async () => {
      ran = true;
    });
    await expect(unit).rejects.toThrow(message);
    await expect(unit).rejects.toThrow(TransactionUsageError);
    expect(ran).toBe(false);
  });
});
