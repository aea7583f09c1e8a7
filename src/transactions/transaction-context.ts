import { AsyncLocalStorage } from 'node:async_hooks';
import type { PoolClient, QueryConfig, QueryResult, QueryResultRow } from 'pg';
import type { DataSource, EntityManager } from 'typeorm';
import type { Lease } from '../database/pooled-client.js';

/**
 * One statement as data. `name` makes it a prepared statement of the connection, parsed and planned once; a name must
 * always stand for the same text.
 */
export interface Statement {
  name?: string;
  text: string;
  values?: readonly unknown[];
}

/** One attempt at a unit of work: what the work may use while that attempt lasts, and not longer. */
export class TransactionContext {
  private open = true;

  constructor(
    /** The same for every attempt of the unit of work. */
    readonly id: string,
    /** 1 for the first. */
    readonly attempt: number,
    readonly maxAttempts: number,
    private readonly lease: Lease,
  ) {}

  /** TypeORM's manager inside this transaction; repositories come from `manager.getRepository(Entity)`. */
  get manager(): EntityManager {
    return this.lease.queryRunner.manager;
  }

  get dataSource(): DataSource {
    return this.lease.queryRunner.connection;
  }

  /** The pg client of this transaction, for what TypeORM has no words for (COPY). Never release it. */
  get client(): PoolClient {
    return this.lease.client;
  }

  /** True when a conflict now would not be followed by another attempt. */
  get isLastAttempt(): boolean {
    return this.attempt >= this.maxAttempts;
  }

  /**
   * Runs one statement in this transaction.
   *
   * @throws Error when the attempt is over: a forgotten `await` let the work's end overtake the statement
   */
  async query<Row extends QueryResultRow>(statement: Statement): Promise<QueryResult<Row>> {
    if (!this.open) {
      throw new Error(`Transaction ${this.id} has ended: await every statement before the work returns.`);
    }
    return this.client.query<Row>(statement as QueryConfig);
  }

  /** Called by the runner when the work has returned, before COMMIT or ROLLBACK. */
  close(): void {
    this.open = false;
  }
}

const contexts = new AsyncLocalStorage<TransactionContext>();

/** The transaction that the calling code runs in, whoever began it; undefined outside of any. */
export function currentTransaction(): TransactionContext | undefined {
  return contexts.getStore();
}

/** Runs `work` so that `currentTransaction()` is `context` in everything it calls and awaits. */
export function runInContext<T>(context: TransactionContext, work: () => Promise<T>): Promise<T> {
  return contexts.run(context, work);
}
