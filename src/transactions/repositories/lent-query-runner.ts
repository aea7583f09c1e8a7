import type { QueryRunner } from 'typeorm';
import type { TransactionContext } from '../transaction-context.js';
import { TransactionUsageError } from '../transaction-errors.js';

/**
 * A QueryRunner for one use of TypeORM's, which ends it with `release`, on the connection of a unit of work. One for each use, as
 * of the pool, since TypeORM goes by it: an entity that is loaded asks a released one for its lazy relations no more.
 *
 * It can't begin: two that did so side by side on the one connection would release and roll back each other's savepoints.
 */
export function lendQueryRunner({ id, dataSource, manager }: TransactionContext): QueryRunner {
  const ofUnit = manager.queryRunner!;
  const refuse = () =>
    Promise.reject(
      new TransactionUsageError(
        `A QueryRunner that is made inside of the unit of work ${id} runs in its transaction, and begins and ends none of its own. ` +
          "Use transactions.run({ propagation: 'NESTED' }, …) for what may fail by itself, propagation: 'REQUIRES_NEW' for what stays " +
          'whatever happens, or make the QueryRunner in outsideTransaction().',
      ),
    );
  return Object.assign(dataSource.driver.createQueryRunner('master'), {
    connect: () => ofUnit.connect() as Promise<unknown>,
    // Subscribers see the unit's.
    manager,
    data: ofUnit.data,
    isTransactionActive: true,
    transactionDepth: 1,
    startTransaction: refuse,
    commitTransaction: refuse,
    rollbackTransaction: refuse,
  });
}
