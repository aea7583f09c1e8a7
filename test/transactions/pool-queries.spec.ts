import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import type { Repository } from 'typeorm';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { TransactionUsageError } from '../../src/transactions/transaction-errors.js';
import type { PoolQueryMode } from '../../src/transactions/transaction-options.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { Counter, startTransactionsHost, type TransactionsHost } from '../support/transactions-host.js';

@Injectable()
class Shelf {
  constructor(@InjectRepository(Counter) private readonly counters: Repository<Counter>) {}

  /** As people write it who take the injected repository to be part of the transaction. */
  @Transactional()
  async besideTheTransaction(): Promise<string> {
    await host.count('before');
    await this.counters.save({ name: 'beside', value: 1 });
    return currentTransaction()!.id;
  }

  @Transactional()
  async withItsManager(): Promise<void> {
    await currentTransaction()!.manager.withRepository(this.counters).save({ name: 'inside', value: 1 });
    await currentTransaction()!.manager.query('SELECT 1');
  }

  @Transactional()
  async withAnotherUnit(): Promise<void> {
    await host.count('outer');
    await host.transactions.run({ propagation: 'REQUIRES_NEW' }, ({ manager }) =>
      manager.save(Counter, { name: 'new', value: 1 }),
    );
    await currentTransaction()!.manager.save(Counter, { name: 'after', value: 1 });
  }

  @Transactional()
  async withTheOuterOne(): Promise<void> {
    const { manager } = currentTransaction()!;
    await host.transactions.run({ propagation: 'REQUIRES_NEW' }, () =>
      manager.save(Counter, { name: 'wrong one', value: 1 }),
    );
  }

  async outsideOfAny(): Promise<void> {
    await this.counters.save({ name: 'outside', value: 1 });
  }
}

let host: TransactionsHost;
const start = async (poolQueries?: PoolQueryMode) => {
  host = await startTransactionsHost({
    providers: [Shelf],
    settings: { ...(poolQueries && { poolQueries }) },
  });
  return host.app.get(Shelf);
};
afterEach(() => host.close());

describe('a query that goes to the pool inside of a unit of work', () => {
  it('is sent, and warned of with the unit it is no part of', async () => {
    const shelf = await start('warn');
    const id = await shelf.besideTheTransaction();
    expect(await host.committed('beside')).toBe(1);
    expect(host.warnings[0]).toContain(
      `inside of the unit of work ${id} does not use its connection: SELECT`,
    );
    expect(host.warnings.every((warning) => warning.includes(id))).toBe(true);
  });

  it('is not sent where it is an error, which rolls the unit of work back', async () => {
    const shelf = await start('throw');
    await expect(shelf.besideTheTransaction()).rejects.toBeInstanceOf(TransactionUsageError);
    expect(await host.committed('beside')).toBeUndefined();
    expect(await host.committed('before')).toBeUndefined();
  });

  it('is nobody’s concern where that is turned off', async () => {
    const shelf = await start('off');
    await shelf.besideTheTransaction();
    expect(await host.committed('beside')).toBe(1);
    expect(host.warnings).toEqual([]);
  });

  // @trap an injected repository inside of a transaction is outside of it, and in production nobody is told
  it.each(['development', 'production'])('is by default warned of in %s', async (environment) => {
    const before = process.env.NODE_ENV;
    process.env.NODE_ENV = environment;
    try {
      const shelf = await start();
      await shelf.besideTheTransaction();
      expect(host.warnings).not.toEqual([]);
    } finally {
      process.env.NODE_ENV = before;
    }
  });

  it('is one of the outer unit too, when an independent one runs in between', async () => {
    const shelf = await start('throw');
    await expect(shelf.withTheOuterOne()).rejects.toBeInstanceOf(TransactionUsageError);
    expect(await host.committed('wrong one')).toBeUndefined();
  });
});

describe('nothing is said of', () => {
  it('the manager of the unit of work and its repositories', async () => {
    const shelf = await start('throw');
    await shelf.withItsManager();
    expect(await host.committed('inside')).toBe(1);
  });

  it('the manager of an independent unit of work, nor of the outer one after it', async () => {
    const shelf = await start('throw');
    await shelf.withAnotherUnit();
    expect([await host.committed('new'), await host.committed('after')]).toEqual([1, 1]);
  });

  it('queries outside of any unit of work', async () => {
    const shelf = await start('throw');
    await shelf.outsideOfAny();
    expect(await host.committed('outside')).toBe(1);
  });
});
