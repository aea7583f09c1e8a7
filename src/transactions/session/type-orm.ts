import type { PoolClient } from 'pg';
import type { DataSource, EntityManager, EntitySubscriberInterface, QueryRunner } from 'typeorm';
import { queryRunnerOn } from '../../database/connecting.js';
import { clientOf } from './client.js';
import type { TransactionSession } from './session.js';

/** What a subscriber may hear of a transaction's begin and end, which are queries as well. */
const HEARD = [
  ...['beforeQuery', 'afterQuery'],
  ...['beforeTransactionStart', 'afterTransactionStart'],
  ...['beforeTransactionCommit', 'afterTransactionCommit'],
  ...['beforeTransactionRollback', 'afterTransactionRollback'],
] as const satisfies (keyof EntitySubscriberInterface)[];

const indifferent = new WeakSet<object>();

/** A subscriber that need not hear when a transaction begins and ends. */
export const isIndifferent = (subscriber: object) => void indifferent.add(subscriber);

/**
 * TypeORM in one attempt: a QueryRunner on the session's client, with its manager. Many units of work have no use for them, so they
 * are made when something first asks for them, or at once where somebody is to hear of the transaction.
 */
export class TypeOrm {
  private runner: QueryRunner | undefined;
  private ownClient: PoolClient | undefined;

  constructor(
    readonly dataSource: DataSource,
    private readonly session: TransactionSession,
  ) {}

  get client(): PoolClient {
    return (this.ownClient ??= clientOf(this.session));
  }

  get manager(): EntityManager {
    return this.inTransaction.manager;
  }

  /** Told in TypeORM's own words: they go through the session, which sends BEGIN with the first statement. */
  async begin(): Promise<void> {
    if (isHeard(this.dataSource)) await (this.runner = this.make()).startTransaction();
  }

  /** @throws as `TransactionSession.commit`, and what subscribers throw */
  async commit(): Promise<void> {
    if (this.runner) await this.runner.commitTransaction();
    else await this.session.commit();
  }

  /** @throws what subscribers throw */
  async rollBack(): Promise<void> {
    await this.runner?.rollbackTransaction();
  }

  /** As `startTransaction` leaves it: what begins a transaction on it next is behind a savepoint. */
  private get inTransaction(): QueryRunner {
    return (this.runner ??= Object.assign(this.make(), { isTransactionActive: true, transactionDepth: 1 }));
  }

  private make(): QueryRunner {
    return queryRunnerOn(this.dataSource, this.client);
  }
}

/** True where a subscriber, or a log of queries, is to be told when a transaction begins and ends. */
function isHeard({ subscribers, options }: DataSource): boolean {
  if (options.logging || options.maxQueryExecutionTime || typeof options.logger === 'object') return true;
  return subscribers.some(
    (subscriber) => !indifferent.has(subscriber) && HEARD.some((name) => name in subscriber),
  );
}
