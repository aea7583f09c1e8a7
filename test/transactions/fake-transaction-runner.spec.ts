import { Injectable } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import type { EntityManager } from 'typeorm';
import {
  AfterCommitError,
  currentTransaction,
  Transactional,
  TransactionManager,
  TransactionRunner,
} from '../../src/index.js';
import { fakeTransactionRunner, type FakeTransactionRunnerOptions } from '../../src/testing.js';

/** What a team tests: it reads, decides and writes by the manager it is given. */
@Injectable()
class Accounts {
  readonly told: string[] = [];

  constructor(private readonly transactions: TransactionRunner) {}

  open(name: string): Promise<string> {
    return this.transactions.run({}, async (transaction) => {
      transaction.afterCommit(() => void this.told.push(`opened ${name}`));
      transaction.afterRollback(() => void this.told.push(`not opened ${name}`));
      return this.save(name);
    });
  }

  @Transactional()
  async save(name: string, @TransactionManager() manager?: EntityManager): Promise<string> {
    const save = manager!.save.bind(manager) as (...parameters: unknown[]) => Promise<string>;
    return save({ name }, `attempt ${currentTransaction()!.attempt}`);
  }
}

const saved: unknown[][] = [];
const manager = {
  save: async (...parameters: unknown[]) => {
    saved.push(parameters);
    return 'stored';
  },
} as unknown as EntityManager;

beforeEach(() => void (saved.length = 0));

it('runs units of work and @Transactional methods with the manager it was given, and joins', async () => {
  const accounts = await accountsWith(manager);
  await expect(accounts.open('Ada')).resolves.toBe('stored');
  expect(saved).toEqual([[{ name: 'Ada' }, 'attempt 1']]);
  expect(accounts.told).toEqual(['opened Ada']);
  expect(currentTransaction()).toBeUndefined();
});

it('runs the work as often as asked for, and tells of the last run alone', async () => {
  const accounts = await accountsWith(manager, { attempts: 3 });
  await accounts.open('Ada');
  expect(saved.map(([, attempt]) => attempt)).toEqual(['attempt 1', 'attempt 2', 'attempt 3']);
  expect(accounts.told).toEqual(['opened Ada']);
});

it('throws what the work throws, behind the callbacks of its rollback', async () => {
  const failing = { save: () => Promise.reject(new Error('no')) } as unknown as EntityManager;
  const accounts = await accountsWith(failing);
  await expect(accounts.open('Ada')).rejects.toThrow('no');
  expect(accounts.told).toEqual(['not opened Ada']);
});

it('tells a callback that fails after the commit as the real one does', async () => {
  const runner = fakeTransactionRunner(manager);
  const failing = runner.run({}, async (transaction) => {
    transaction.afterCommit(() => Promise.reject(new Error('the mail was not sent')));
    return 'done';
  });
  await expect(failing).rejects.toThrow(AfterCommitError);
  await expect(failing).rejects.toMatchObject({ result: 'done' });
});

it('runs nested work, and refuses what comes after the end of a unit', async () => {
  const runner = fakeTransactionRunner(manager);
  const outer = await runner.run({}, async (transaction) => {
    const nested = await runner.run({ propagation: 'NESTED' }, async (inner) => inner.parent === transaction);
    expect(nested).toBe(true);
    return transaction;
  });
  expect(() => outer.afterCommit(() => undefined)).toThrow('has ended');
});

it('answers statements by a function, and refuses them without one', async () => {
  const statement = { text: 'SELECT 1 AS one' };
  const answering = fakeTransactionRunner(manager, { query: async () => ({ rows: [{ one: 1 }] }) });
  await expect(answering.runStatement(statement, { writes: false })).resolves.toMatchObject({
    rows: [{ one: 1 }],
    rowCount: 1,
  });
  const committed = answering.run({}, (transaction) => transaction.commitWith(statement));
  await expect(committed).resolves.toMatchObject({ rows: [{ one: 1 }] });
  const silent = fakeTransactionRunner(manager);
  await expect(silent.run({}, (transaction) => transaction.query(statement))).rejects.toThrow('no database');
});

async function accountsWith(fake: EntityManager, options?: FakeTransactionRunnerOptions): Promise<Accounts> {
  const providers = [
    Accounts,
    { provide: TransactionRunner, useValue: fakeTransactionRunner(fake, options) },
  ];
  return (await Test.createTestingModule({ providers }).compile()).get(Accounts);
}
