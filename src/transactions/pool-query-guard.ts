import { Logger } from '@nestjs/common';
import type { BeforeQueryEvent, DataSource, EntityManager, EntitySubscriberInterface } from 'typeorm';
import { isIndifferent } from './session/type-orm.js';
import { currentTransaction } from './transaction-context.js';
import { TransactionUsageError } from './transaction-errors.js';
import type { PoolQueryMode } from './transaction-options.js';

const ADVICE =
  'It goes to the pool and is no part of the transaction: it is not rolled back with it, not repeated with it, and waits for a second connection. ' +
  'Use the manager of the transaction (currentTransaction().manager, @TransactionManager()) for it.';

/** Tells of TypeORM queries that are sent outside of the unit of work which the code that sends them runs in. */
export class PoolQueryGuard implements EntitySubscriberInterface {
  private readonly logger = new Logger('Transactions');

  private constructor(private readonly mode: Exclude<PoolQueryMode, 'off'>) {
    isIndifferent(this);
  }

  /** Watches the queries of `dataSource`. */
  static watch(dataSource: DataSource, mode: PoolQueryMode = defaultMode()): void {
    const isWatched = dataSource.subscribers.some((subscriber) => subscriber instanceof PoolQueryGuard);
    if (mode !== 'off' && !isWatched) dataSource.subscribers.push(new PoolQueryGuard(mode));
  }

  beforeQuery({ manager, query }: BeforeQueryEvent): void {
    const dataSource = dataSourceOf(manager);
    let context = currentTransaction();
    while (context && context.dataSource !== dataSource) context = context.parent;
    if (!context || context.manager.queryRunner === manager.queryRunner) return;
    const message = `A query inside of the unit of work ${context.id} does not use its connection: ${query.slice(0, 200)}. ${ADVICE}`;
    if (this.mode === 'throw') throw new TransactionUsageError(message);
    this.logger.warn(message);
  }
}

/** TypeORM 0.3 calls it `connection`, of managers as of its events. */
const dataSourceOf = (manager: Partial<EntityManager>): DataSource | undefined =>
  manager.dataSource ?? manager.connection;

function defaultMode(): PoolQueryMode {
  // eslint-disable-next-line no-restricted-properties -- the one variable that Node libraries take from the environment
  return process.env.NODE_ENV === 'production' ? 'off' : 'warn';
}
