import { jest } from '@jest/globals';
import { setImmediate as setImmediatePromise } from 'node:timers/promises';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import { DataSource, type DataSourceOptions, type Repository } from 'typeorm';
import { poolOf } from '../../src/database/pooled-client.js';
import { Person } from '../../src/people/person.entity.js';
import { outsideTransaction } from '../../src/transactions/session/places.js';
import { currentTransaction, type TransactionContext } from '../../src/transactions/transaction-context.js';
import { TransactionUsageError } from '../../src/transactions/transaction-errors.js';
import type { TransactionRunnerSettings } from '../../src/transactions/transaction-options.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import { duringTests } from '../support/during-tests.js';
import { startPeopleHost } from '../support/people-host.js';
import { createDatabase } from '../support/test-database.js';
import { Counter, startTransactionsHost } from '../support/transactions-host.js';
import { Author, Counters, ENTITIES, Library, Note, NoteOfAuthors, WRITES } from './repositories.cases.js';

const host = duringTests(() =>
  startTransactionsHost({
    providers: [Library, Counters],
    settings: { repositories: 'join' },
    dataSource: { entities: ENTITIES, subscribers: [NoteOfAuthors], synchronize: true, cache: true },
  }),
);
let library: Library;
let counters: Repository<Counter>;
let name: string;
let names = 0;
beforeEach(() => {
  library = host.app.get(Library);
  ({ counters } = library);
  Note.useDataSource(host.dataSource);
  NoteOfAuthors.heard = [];
  name = `n${++names}`;
});

const gate = () => {
  let open!: () => void;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { open, opened };
};
/** Jest's clock stands for the timers that the session sets, and for no others. */
const TIMERS_OF_OTHERS = ['Date', 'hrtime', 'nextTick', 'performance', 'queueMicrotask', 'setImmediate', 'clearImmediate'] as const; // prettier-ignore
const rollBack = new Error('roll back');
/** Runs `work` in a unit of work that is rolled back. */
const rolledBack = async (work: (transaction: TransactionContext) => Promise<unknown>) => {
  const unit = host.transactions.run({}, async (transaction) => {
    await work(transaction);
    throw rollBack;
  });
  await expect(unit).rejects.toBe(rollBack);
};
const save = (of = name, value = 1) => counters.save({ name: of, value });
const committed = (of = name) => host.committed(of);

describe('inside of a unit of work', () => {
  // @trap repositories join the transaction, but not lazy relations, query builders of the DataSource, or custom repositories
  it.each(WRITES)('%s is a part of it', async (_, table, write) => {
    const rows = `SELECT FROM ${table} WHERE name = $1`;
    await rolledBack(async (transaction) => {
      await write(library, name);
      expect((await transaction.query({ text: rows, values: [name] })).rows).toHaveLength(1);
      const { totalCount, idleCount } = poolOf(host.dataSource);
      expect(totalCount - idleCount).toBe(1);
    });
    expect(await host.database.query(rows, [name])).toEqual([]);
    await host.transactions.run({}, () => write(library, `${name} kept`));
    expect(await host.database.query(rows, [`${name} kept`])).toHaveLength(1);
  });

  it('what is read is what the unit has written, and can be locked', async () => {
    await rolledBack(async () => {
      await save();
      const found = counters.findOneOrFail({ where: { name }, lock: { mode: 'pessimistic_write' } });
      expect(await found).toEqual({ name, value: 1 });
      expect(await counters.createQueryBuilder('c').where({ name }).getCount()).toBe(1);
    });
  });

  it('lazy relations are read in it, of entities from before as well, and as ever behind it', async () => {
    const before = await library.authors.save(library.authors.create({ name }));
    const namesOf = async (author: Author) => (await author.books).map((book) => book.name);
    const read = () => library.authors.findOneByOrFail({ id: before.id });
    const older = await read();
    const addBook = (title: string) =>
      library.books.save(
        Object.assign(library.books.create({ name: title }), { author: Promise.resolve(before) }),
      );
    await rolledBack(async () => {
      await addBook('unwritten');
      expect(await namesOf(older)).toEqual(['unwritten']);
      expect(await namesOf(await read())).toEqual(['unwritten']);
      const relation = host.dataSource.createQueryBuilder().relation(Author, 'books').of(before);
      expect(await relation.loadMany()).toHaveLength(1);
    });
    const kept = await host.transactions.run({}, read);
    await addBook('written');
    expect(await namesOf(kept)).toEqual(['written']);
  });

  it('subscribers are given the unit’s manager, and what its QueryRunner carries', async () => {
    await host.transactions.run({}, async ({ manager }) => {
      manager.queryRunner!.data = { by: 'Ada' };
      await library.authors.save(library.authors.create({ name }));
    });
    expect(NoteOfAuthors.heard).toEqual([{ isOfUnit: true, data: { by: 'Ada' } }]);
  });

  it('statements may be asked for side by side', async () => {
    const all = Array.from({ length: 10 }, (_, index) => `${name} ${index}`);
    await host.transactions.run({}, () => Promise.all(all.map((each) => save(each))));
    expect(await counters.countBy(all.map((each) => ({ name: each })))).toBe(10);
  });

  it('an independent unit has its own, and the outer one has its own again behind it', async () => {
    await rolledBack(async () => {
      await host.transactions.run({ propagation: 'REQUIRES_NEW' }, () => save());
      await save(`${name} outer`);
    });
    expect([await committed(), await committed(`${name} outer`)]).toEqual([1, undefined]);
  });

  it('a unit that is read only refuses to write', async () => {
    const unit = host.transactions.run({ readOnly: true }, () => save());
    await expect(unit).rejects.toMatchObject({ code: '25006' });
  });

  it('what an attempt has saved that failed is saved by the next', async () => {
    const author = library.authors.create({ name });
    await host.transactions.run({}, async () => {
      await library.authors.save(author);
      await host.conflict(2);
    });
    expect(await library.authors.findBy({ name })).toEqual([expect.objectContaining({ id: author.id })]);
    expect(await host.database.query('SELECT FROM notes WHERE name = $1', [name])).toHaveLength(1);
  });

  it('TypeORM’s cache of results is neither read nor written', async () => {
    await save();
    const read = async () => (await counters.findOne({ where: { name }, cache: 60_000 }))?.value;
    expect(await read()).toBe(1);
    await rolledBack(async () => {
      await save(name, 2);
      expect(await read()).toBe(2);
      await host.dataSource.queryResultCache!.clear();
      expect(await read()).toBe(2);
    });
    expect(await read()).toBe(1);
  });
});

describe('a transaction that TypeORM is asked for inside of a unit of work', () => {
  it('is a nested unit: it can fail by itself', async () => {
    const called: string[] = [];
    await host.transactions.run({}, async () => {
      await save();
      const nested = host.dataSource.transaction(async (manager) => {
        currentTransaction()!.afterCommit(() => called.push('nested'));
        await manager.save(Counter, { name: `${name} nested`, value: 1 });
        throw rollBack;
      });
      await expect(nested).rejects.toBe(rollBack);
    });
    expect([await committed(), await committed(`${name} nested`)]).toEqual([1, undefined]);
    expect(called).toEqual([]);
  });

  // @trap two transactions of TypeORM's side by side on one connection release and roll back each other's savepoints
  it('has its turn where two are asked for side by side, of whichever manager', async () => {
    await host.transactions.run({}, async ({ manager }) => {
      const stays = manager.transaction(() => save());
      const fails = manager.transaction(async () => {
        await save(`${name} lost`);
        await stays;
        throw rollBack;
      });
      const follows = host.dataSource.transaction(() => save(`${name} too`));
      await expect(fails).rejects.toBe(rollBack);
      await follows;
    });
    expect([await committed(), await committed(`${name} lost`)]).toEqual([1, undefined]);
    expect(await committed(`${name} too`)).toBe(1);
  });

  it('is refused where it asks for a stricter level', async () => {
    await rolledBack(async () => {
      const nested = host.dataSource.transaction('SERIALIZABLE', () => save());
      await expect(nested).rejects.toThrow(/SERIALIZABLE can not join one of REPEATABLE READ/);
    });
  });

  it('is refused of a QueryRunner, with what to write', async () => {
    const runner = host.dataSource.createQueryRunner();
    const byHand = async () => {
      const runner = host.dataSource.createQueryRunner();
      try {
        await runner.startTransaction();
        await save();
        await runner.commitTransaction();
      } catch (error) {
        await runner.rollbackTransaction();
        throw error;
      } finally {
        await runner.release();
      }
    };
    await expect(host.transactions.run({}, byHand)).rejects.toThrow(/propagation: 'NESTED'/);
    await byHand();
    expect(await committed()).toBe(1);
    await runner.release();
  });

  it('is one of TypeORM’s own where it is asked for outside', async () => {
    await outsideTransaction(() => host.dataSource.transaction((manager) => manager.save(Counter, { name, value: 1 }))); // prettier-ignore
    expect(await committed()).toBe(1);
  });
});

describe('what is not the unit’s any more', () => {
  // @trap a promise that nobody awaited runs behind the end of its transaction, on the pool or on somebody else's connection
  it('is refused, and lands neither on the pool, nor in the next attempt, nor in another unit', async () => {
    const [inNext, behind] = [gate(), gate()];
    const late: Promise<unknown>[] = [];
    const leave = (work: Promise<unknown>) => {
      work.catch(() => undefined);
      late.push(work);
    };
    const other = host.transactions.run({}, async () => {
      await save(`${name} other`);
      await behind.opened;
      await Promise.allSettled(late);
    });
    await host.transactions.run({}, async ({ attempt }) => {
      if (attempt === 1) {
        leave(inNext.opened.then(() => save(`${name} late`)));
        leave(inNext.opened.then(() => host.dataSource.transaction(() => save(`${name} late`))));
      } else {
        inNext.open();
        await Promise.allSettled(late);
        leave(behind.opened.then(() => save(`${name} late`)));
      }
      await host.conflict(1);
    });
    behind.open();
    await other;
    expect(late).toHaveLength(3);
    for (const each of late) await expect(each).rejects.toThrow(/has ended/);
    expect([await committed(`${name} other`), await committed(`${name} late`)]).toEqual([1, undefined]);
  });

  it('is refused of a nested unit that is over, though the outer one goes on', async () => {
    const over = gate();
    let late: Promise<unknown>;
    await host.transactions.run({}, async () => {
      await host.dataSource.transaction(() => {
        late = over.opened.then(() => save());
        late.catch(() => undefined);
        return Promise.resolve();
      });
      over.open();
      await expect(late).rejects.toThrow(/has ended/);
    });
    expect(await committed()).toBeUndefined();
  });

  it('is on the pool in afterCommit, in afterRollback and outside of transactions', async () => {
    await host.transactions.run({}, async (transaction) => {
      await save();
      transaction.afterCommit(() => save(`${name} after`));
    });
    await rolledBack(async (transaction) => {
      transaction.afterRollback(() => save(`${name} rolled back`));
      await outsideTransaction(() => save(`${name} outside`));
    });
    for (const each of [name, `${name} after`, `${name} rolled back`, `${name} outside`])
      expect([each, await committed(each)]).toEqual([each, 1]);
  });
});

it('TypeORM’s subscribers are behind the end when it is told them, and are refused, or outside', async () => {
  const { dataSource, transactions, close } = await another({ repositories: 'join' });
  const repository = dataSource.getRepository(Counter);
  const afterTransactionCommit = () => repository.save({ name: `${name} after`, value: 1 });
  const add = () => transactions.run({}, () => repository.save({ name, value: 1 }));
  dataSource.subscribers.push({ afterTransactionCommit });
  await expect(add()).rejects.toMatchObject({
    name: 'AfterCommitError',
    cause: { message: expect.stringContaining('outsideTransaction') as string },
  });
  expect([await committed(), await committed(`${name} after`)]).toEqual([1, undefined]);
  dataSource.subscribers.pop();
  dataSource.subscribers.push({ afterTransactionCommit: () => outsideTransaction(afterTransactionCommit) });
  await add();
  expect(await committed(`${name} after`)).toBe(1);
  await close();
});

describe('what a stream tells', () => {
  const readByTypeOrm = () => {
    // In place of pg-query-stream, which a host installs.
    const Stream = function (text: string) {
      return copyTo(`COPY (${text}) TO STDOUT`);
    };
    Object.assign(host.dataSource.driver, { loadStreamDependency: () => Stream });
    return counters.createQueryBuilder('c').where(`c.name = '${name}'`).stream();
  };

  // @trap a listener of a socket runs in the transaction in which the connection was made, rather than in its own
  it('is told in the unit that has asked for it, and what that makes of it is a part of it', async () => {
    await rolledBack(async () => {
      await save();
      const saved: Promise<unknown>[] = [];
      const stream = await readByTypeOrm();
      await new Promise((resolve, reject) => {
        stream.on('data', () => saved.push(save(`${name} read`)));
        stream.on('end', () => resolve(undefined)).on('error', reject);
      });
      expect(saved).toHaveLength(1);
      await Promise.all(saved);
      expect(await counters.countBy({ name: `${name} read` })).toBe(1);
    });
    expect(await committed(`${name} read`)).toBeUndefined();
  });

  it('is read on the unit’s connection', async () => {
    await rolledBack(async () => {
      await save();
      let text = '';
      for await (const chunk of await readByTypeOrm()) text += String(chunk);
      expect(text).toContain(name);
    });
  });

  it.each<[string, TransactionRunnerSettings, (transactions: TransactionRunner) => Promise<unknown>]>([
    [
      'an independent unit',
      { repositories: 'join' },
      (transactions) =>
        transactions.run({ propagation: 'REQUIRES_NEW' }, ({ manager }) => manager.query('SELECT')),
    ],
    ['a query beside it', { repositories: 'off' }, ({ dataSource }) => dataSource.query('SELECT')],
  ])('is of no unit where the connection was made for %s inside of one', async (_, settings, send) => {
    const { dataSource, transactions, close } = await another(settings);
    const told = new Promise((resolve) =>
      poolOf(dataSource).once('connect', () => resolve(currentTransaction())),
    );
    await transactions.run({}, async ({ manager }) => {
      await manager.query('SELECT');
      await send(transactions);
    });
    expect(await told).toBeUndefined();
    await close();
  });

  // @trap rows are streamed and saved one by one in a transaction, whose one connection the stream has: it hangs for ever
  it('is not waited for by statements where nobody reads or writes it', async () => {
    jest.useFakeTimers({ now: Date.now(), doNotFake: [...TIMERS_OF_OTHERS] });
    try {
      const unit = host.transactions.run({}, async ({ client }) => {
        client.query(copyFrom('COPY counters FROM STDIN')).on('error', () => undefined);
        const waiting = save();
        waiting.catch(() => undefined);
        await setImmediatePromise();
        jest.advanceTimersByTime(30_000);
        await waiting;
      });
      await expect(unit).rejects.toThrow(/has waited for 30000 ms for the COPY or the cursor/);
    } finally {
      jest.useRealTimers();
    }
    expect(await committed()).toBeUndefined();
  });

  it('of a COPY into the table joins as well', async () => {
    await rolledBack(async ({ client }) => {
      const copy = client.query(copyFrom('COPY counters FROM STDIN'));
      const done = new Promise((resolve, reject) => copy.on('finish', resolve).on('error', reject));
      copy.end(`${name}\t7\n`);
      await done;
      expect(await counters.findOneBy({ name })).toMatchObject({ value: 7 });
    });
  });
});

describe('one DataSource', () => {
  it('joins without another of the same application or process', async () => {
    const { dataSource, close } = await another({});
    await rolledBack(() => dataSource.getRepository(Counter).save({ name, value: 1 }));
    expect(await committed()).toBe(1);
    await close();
  });

  it('joins also when it has connected anew', async () => {
    const { dataSource, transactions, close } = await another({ repositories: 'join' });
    await dataSource.destroy();
    await dataSource.initialize();
    const unit = transactions.run({}, async () => {
      await dataSource.getRepository(Counter).save({ name, value: 1 });
      throw rollBack;
    });
    await expect(unit).rejects.toBe(rollBack);
    expect(await committed()).toBeUndefined();
    await close();
  });

  it('joins where PeopleModule is told so, with people in the same unit', async () => {
    const database = await createDatabase();
    const people = await startPeopleHost(database.url, {
      people: { transactions: { repositories: 'join' } },
    });
    const unit = people.transactions.run({}, async () => {
      const { id } = await people.people.create({ name });
      expect(await people.dataSource.getRepository(Person).findOneBy({ id })).toMatchObject({ name });
      await people.dataSource.getRepository(Person).save({ name: `${name} too`, data: null });
      throw rollBack;
    });
    await expect(unit).rejects.toBe(rollBack);
    expect(await database.query('SELECT FROM people')).toEqual([]);
    await people.close();
    await database.drop();
  });

  it('refuses inside of a unit what a manager of somebody else sends', async () => {
    const foreign = host.dataSource.createQueryRunner();
    await rolledBack(() => expect(foreign.manager.save(Counter, { name, value: 1 })).rejects.toThrow(TransactionUsageError)); // prettier-ignore
    await foreign.release();
    expect(await committed()).toBeUndefined();
  });

  it.each<[string, RegExp, Partial<TransactionRunnerSettings>, Partial<TransactionRunnerSettings>]>([
    [
      'two modes',
      /'join' and 'throw' are both asked for/,
      { repositories: 'join' },
      { repositories: 'throw' },
    ],
    ['the setting by both names', /leave out poolQueries/, { repositories: 'join', poolQueries: 'warn' }, {}],
    [
      'a mode that is none',
      /must be one of join, throw, warn, off/,
      { repositories: 'joined' as 'join' },
      {},
    ],
  ])('refuses %s before anything is begun', (_, message, first, second) => {
    const dataSource = new DataSource({ type: 'postgres' });
    expect(() => [new TransactionRunner(dataSource, first), new TransactionRunner(dataSource, second)]).toThrow(message); // prettier-ignore
  });

  it('is refused where joining can’t be had', () => {
    const exchanged = new DataSource({ type: 'postgres' });
    const { manager } = exchanged;
    Object.defineProperty(exchanged, 'manager', { get: () => manager });
    const join = (dataSource: DataSource) => () =>
      new TransactionRunner(dataSource, { repositories: 'join' });
    expect(join(exchanged)).toThrow(/typeorm-transactional/);
    expect(join(new DataSource({ type: 'cockroachdb' } as DataSourceOptions))).toThrow(/type postgres/);
  });
});

describe('where they are refused', () => {
  it('a stream is as well, which TypeORM’s subscribers don’t hear of, also when it has connected anew', async () => {
    const { dataSource, transactions, close } = await another({ repositories: 'throw' });
    await dataSource.destroy();
    await dataSource.initialize();
    const repository = dataSource.getRepository(Counter);
    for (const read of [() => repository.createQueryBuilder().stream(), () => repository.find()])
      await expect(transactions.run<unknown>({}, read)).rejects.toThrow(/repositories: 'join'/);
    await close();
  });
});

/** A DataSource beside the application's, on the same database. */
async function another(settings: TransactionRunnerSettings) {
  const dataSource = await new DataSource({ ...host.dataSource.options, synchronize: false }).initialize();
  const transactions = new TransactionRunner(dataSource, settings);
  return { dataSource, transactions, close: () => dataSource.destroy() };
}
