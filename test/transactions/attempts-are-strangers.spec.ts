import { currentTransaction, type TransactionContext } from '../../src/transactions/transaction-context.js';
import { Person } from '../../src/people/person.entity.js';
import { barrier } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { poolOf, startPeopleApp } from '../support/people-app.js';

let id: string;
const app = duringTests(() => startPeopleApp());
/** The same database with a single connection. */
const single = duringTests(() => startPeopleApp({ DB_POOL_SIZE: '1' }, app.database));
beforeEach(async () => {
  ({ id } = await app.people.create({ name: 'Ada' }));
});
afterEach(() => expect(poolOf(single.dataSource).borrowed).toBe(0));

const pidOf = async (transaction: TransactionContext) => {
  const { rows } = await transaction.query<{ pid: number }>({ text: 'SELECT pg_backend_pid() AS pid' });
  return rows[0]!.pid;
};
/** Reads a row, and has others change it before the first attempt's update of it. */
const conflictOnce = async (transaction: TransactionContext) => {
  await transaction.query({ text: 'SELECT FROM people WHERE id = $1', values: [id] });
  if (transaction.attempt === 1)
    await app.database.query(`UPDATE people SET name = 'other' WHERE id = $1`, [id]);
  await transaction.query({ text: `UPDATE people SET name = 'mine' WHERE id = $1`, values: [id] });
};
const REPEATABLE = { isolationLevel: 'REPEATABLE READ', backoff: () => 1 } as const;

describe('a statement that an attempt did not await', () => {
  it.each<[string, (transaction: TransactionContext) => Promise<unknown>]>([
    [
      'of the context',
      (transaction) => transaction.query({ text: `INSERT INTO people (name) VALUES ('leaked')` }),
    ],
    ['of the manager', ({ manager }) => manager.query(`INSERT INTO people (name) VALUES ('leaked')`)],
    [
      'of a repository, which begins one of its own',
      ({ manager }) => manager.save(Person, { name: 'leaked' }),
    ],
    ['of the client', ({ client }) => client.query(`INSERT INTO people (name) VALUES ('leaked')`)],
    ['of a service that joins', () => single.people.create({ name: 'leaked' })],
  ])('%s lands neither in the next attempt nor anywhere else', async (_, insert) => {
    const over = barrier(2);
    let leaked: Promise<unknown> | undefined;
    await single.transactions.run(REPEATABLE, async (transaction) => {
      leaked ??= over().then(() => insert(transaction));
      leaked.catch(() => undefined);
      if (transaction.attempt === 2) {
        void over();
        await expect(leaked).rejects.toThrow(/has ended/);
      }
      await conflictOnce(transaction);
    });
    expect((await app.people.findByName('leaked')).items).toEqual([]);
    expect((await app.people.get(id)).name).toBe('mine');
  });

  it('of what joins late is not even begun, unless it is to stand on its own', async () => {
    const begun: string[] = [];
    const join = (propagation: 'REQUIRED' | 'REQUIRES_NEW') =>
      single.transactions.run({ propagation }, async () => void begun.push(propagation));
    const over = barrier(3);
    const late: Promise<unknown>[] = [];
    await single.transactions.run({}, async () => {
      for (const propagation of ['REQUIRED', 'REQUIRES_NEW'] as const)
        late.push(over().then(() => join(propagation)));
    });
    await over();
    expect((await Promise.allSettled(late)).map(({ status }) => status)).toEqual(['rejected', 'fulfilled']);
    expect(begun).toEqual(['REQUIRES_NEW']);
  });

  it('when the work returns, rolls the unit back and says so', async () => {
    const unit = single.transactions.run({}, async (transaction) => {
      void transaction.query({ text: `INSERT INTO people (name) VALUES ('hasty')` });
      transaction.query({ text: `INSERT INTO people (name) VALUES ('hasty')` }).catch(() => undefined);
    });
    await expect(unit).rejects.toThrow(/returned before its statements had: await each/);
    expect((await app.people.findByName('hasty')).items).toEqual([]);
  });
});

it('statements that are asked for side by side run one after another, each with its own result', async () => {
  const results = await single.transactions.run({}, (transaction) =>
    Promise.all(
      [1, 2, 3].map((n) => transaction.query<{ n: number }>({ text: 'SELECT $1::int AS n', values: [n] })),
    ),
  );
  expect(results.map(({ rows }) => rows[0]!.n)).toEqual([1, 2, 3]);
});

describe('TypeORM inside of a unit of work', () => {
  it('saves in its transaction and not in one of its own, so that a rollback takes it along', async () => {
    const unit = single.transactions.run({}, async ({ manager }) => {
      await manager.getRepository(Person).save({ name: 'saved' });
      await manager.transaction((nested) => nested.save(Person, { name: 'saved' }));
      expect(await manager.countBy(Person, { name: 'saved' })).toBe(2);
      throw new Error('no');
    });
    await expect(unit).rejects.toThrow('no');
    expect((await app.people.findByName('saved')).items).toEqual([]);
  });

  it('a nested transaction that it left open is rolled back with everything', async () => {
    const unit = single.transactions.run({}, async ({ manager }) => {
      await manager.save(Person, { name: 'open' });
      await manager.queryRunner!.startTransaction();
    });
    await expect(unit).rejects.toThrow('left it open');
    expect((await app.people.findByName('open')).items).toEqual([]);
    expect((await single.people.create({ name: 'next' })).name).toBe('next');
  });

  it.each(['COMMIT', 'ROLLBACK', ' begin', 'END', 'start transaction', 'ABORT', 'prepare transaction $$x$$'])(
    'and anything else may not send %p',
    async (text) => {
      const unit = single.transactions.run({}, async ({ manager }) => {
        await manager.save(Person, { name: 'kept' });
        await manager.query(text);
      });
      await expect(unit).rejects.toThrow(/The work must not send/);
      expect((await app.people.findByName('kept')).items).toEqual([]);
    },
  );

  it('nor end the transaction by a script', async () => {
    const unit = single.transactions.run({}, ({ manager }) => manager.query('SELECT 1; COMMIT'));
    await expect(unit).rejects.toThrow('ended its transaction');
  });

  it('the client of a transaction can not be released by the work', async () => {
    await expect(single.transactions.run({}, async ({ client }) => client.release())).rejects.toThrow(
      'is given back when the transaction ends',
    );
  });
});

it('a client that was killed between two statements is reported as what killed it, and replaced', async () => {
  const unit = single.transactions.run({ idleInTransactionTimeoutMs: 20 }, async (transaction) => {
    const pid = await pidOf(transaction);
    // Over when the server has ended the session.
    while ((await app.database.query('SELECT FROM pg_stat_activity WHERE pid = $1', [pid])).length > 0);
    await transaction.query({ text: 'SELECT 1' });
  });
  await expect(unit).rejects.toMatchObject({
    type: 'transaction-timeout',
    code: '25P03',
    cause: { code: '25P03' },
  });
  expect((await single.people.get(id)).name).toBe('Ada');
});

it('levels, modes and timeouts are those of the transaction, and leave nothing in the session', async () => {
  const settings = async (transaction: TransactionContext) => {
    const { rows } = await transaction.query<Record<string, string>>({
      text: `SELECT pg_backend_pid() AS pid, current_setting('transaction_isolation') AS level,
             current_setting('transaction_read_only') AS read_only, current_setting('transaction_deferrable') AS deferrable,
             current_setting('lock_timeout') AS lock, current_setting('statement_timeout') AS statement,
             current_setting('idle_in_transaction_session_timeout') AS idle`,
    });
    return rows[0]!;
  };
  const before = await single.transactions.run({}, settings);
  const inside = await single.transactions.run(
    {
      isolationLevel: 'SERIALIZABLE',
      readOnly: true,
      deferrable: true,
      lockTimeoutMs: 100,
      statementTimeoutMs: 2000,
      idleInTransactionTimeoutMs: 3000,
    },
    settings,
  );
  expect(inside).toEqual({
    pid: before.pid,
    level: 'serializable',
    read_only: 'on',
    deferrable: 'on',
    lock: '100ms',
    statement: '2s',
    idle: '3s',
  });
  expect(await single.transactions.run({}, settings)).toEqual(before);
});

it('after a failed attempt the next one has a connection that is idle and sees nothing of it', async () => {
  const statuses: (string | null)[] = [];
  await single.transactions.run(REPEATABLE, async (transaction) => {
    statuses.push(transaction.client.getTransactionStatus());
    expect(await transaction.manager.countBy(Person, { name: 'half' })).toBe(0);
    await transaction.manager.save(Person, { name: 'half' });
    await conflictOnce(transaction);
  });
  expect(statuses).toEqual(['I', 'I']);
  expect((await app.people.findByName('half')).items).toHaveLength(1);
  expect(currentTransaction()).toBeUndefined();
});

it('a connection that can not be had is no lasting damage: the next unit of work has one', async () => {
  const impatient = await startPeopleApp({ DB_POOL_SIZE: '1', DB_ACQUIRE_TIMEOUT_MS: '30' }, app.database);
  const held = barrier(2);
  const holder = impatient.transactions.run({}, () => held());
  await expect(impatient.transactions.run({}, () => Promise.resolve())).rejects.toMatchObject({
    type: 'pool-exhausted',
  });
  await held();
  await holder;
  expect((await impatient.people.get(id)).name).toBe('Ada');
  await impatient.close();
});
