import { Person } from '../../src/people/person.entity.js';
import { TransactionUsageError } from '../../src/transactions/transaction-errors.js';
import type { PoolQueryMode } from '../../src/transactions/transaction-options.js';
import { type Host, startHost } from '../support/transactions-host.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

let database: TestDatabase;
let warnings: string[];
beforeAll(async () => {
  database = await createDatabase();
});
beforeEach(() => {
  warnings = [];
});
afterAll(() => database.drop());

const withHost = async (poolQueries: PoolQueryMode | undefined, use: (host: Host) => Promise<unknown>) => {
  const host = await startHost({ database, transactions: poolQueries ? { poolQueries } : {} });
  const silent = () => undefined;
  host.app.useLogger({ log: silent, error: silent, warn: (message: string) => warnings.push(message) });
  try {
    await use(host);
  } finally {
    await host.close();
  }
};
const countOnPool = ({ transactions, dataSource }: Host) =>
  transactions.run({}, () => dataSource.getRepository(Person).count());

describe('a repository of the pool, used in a unit of work', () => {
  it('is warned of by default, with the advice what to use', () =>
    withHost(undefined, async (host) => {
      await countOnPool(host);
      expect(warnings).toEqual([expect.stringMatching(/SELECT COUNT.*Use the manager of the transaction/s)]);
    }));

  it('is refused where that was chosen, before its query is sent', () =>
    withHost('throw', (host) => expect(countOnPool(host)).rejects.toThrow(TransactionUsageError)));

  it('is let be where that was chosen, and in production', async () => {
    await withHost('off', countOnPool);
    const { NODE_ENV } = process.env;
    process.env.NODE_ENV = 'production';
    await withHost(undefined, countOnPool);
    process.env.NODE_ENV = NODE_ENV;
    expect(warnings).toEqual([]);
  });

  it('is nothing to be warned of outside of one, after it, or when it is the transaction’s own', () =>
    withHost('throw', async ({ transactions, dataSource }) => {
      await dataSource.getRepository(Person).count();
      await transactions.run({}, async ({ manager }) => {
        await manager.getRepository(Person).count();
        await manager.transaction((nested) => nested.getRepository(Person).count());
        await transactions.run({ propagation: 'REQUIRES_NEW' }, (inner) =>
          inner.manager.getRepository(Person).count(),
        );
      });
      await transactions.run({}, async (transaction) =>
        transaction.afterCommit(() => dataSource.getRepository(Person).count()),
      );
    }));
});
