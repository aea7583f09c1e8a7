// What `nestjs-people/testing` exports: for tests of code that is given a TransactionRunner, without a database.

import { Logger } from '@nestjs/common';
import type { QueryResult, QueryResultRow } from 'pg';
import type { DataSource, EntityManager } from 'typeorm';
import { AfterCommitError, TransactionUsageError } from './transactions/transaction-errors.js';
import {
  currentTransaction,
  joinContext,
  runInContext,
  type Statement,
  TransactionContext,
} from './transactions/transaction-context.js';
import type { UnitOptions } from './transactions/transaction-options.js';
import { TransactionRunner } from './transactions/transaction-runner.js';
import { Unit } from './transactions/unit/unit-of-work.js';

/** Options of `fakeTransactionRunner`. */
export interface FakeTransactionRunnerOptions {
  /**
   * How often the work of each outermost unit runs before it is "committed"; what the runs before the last return or throw is dropped,
   * as that of an attempt that met a conflict. 2 shows whether the work can be repeated. Default 1.
   */
  attempts?: number;
  /** Answers `transaction.query`, `commitWith` and `runStatement`. Without it they are refused. */
  query?: (statement: Statement) => Promise<Pick<QueryResult, 'rows'> & Partial<QueryResult>>;
}

/**
 * A TransactionRunner without a database, for unit tests: `{ provide: TransactionRunner, useValue: fakeTransactionRunner(manager) }`.
 * `run` and `@Transactional()` methods run their work at once with `manager` (a mock, as far as the work uses it), `currentTransaction()`
 * and joining are as ever, and so are `afterCommit` and `afterRollback`. Nothing is sent, locked, rolled back or refused for its isolation: what
 * depends on that needs a test with a real database.
 */
export function fakeTransactionRunner(
  manager: EntityManager,
  options: FakeTransactionRunnerOptions = {},
): TransactionRunner {
  return new FakeTransactionRunner(manager, options);
}

class FakeTransactionRunner extends TransactionRunner {
  private readonly log = new Logger('Transactions');

  constructor(
    private readonly manager: EntityManager,
    private readonly fake: FakeTransactionRunnerOptions,
  ) {
    // A mock of a manager has none.
    super((manager as Partial<EntityManager>).dataSource ?? ({} as DataSource), {});
  }

  override async run<T>(
    options: UnitOptions,
    work: (transaction: TransactionContext) => Promise<T>,
  ): Promise<T> {
    const outer = currentTransaction();
    if (outer && options.propagation !== 'REQUIRES_NEW')
      return options.propagation === 'NESTED' ? outer.nest(work) : joinContext(outer, work);
    const unit = new Unit(options, new AbortController().signal);
    const { attempts = 1 } = this.fake;
    for (let attempt = 1; attempt < attempts; attempt++)
      await this.attempt(unit, attempt, outer, work).catch(() => undefined);
    const { value, callbacks } = await this.attempt(unit, attempts, outer, work);
    const errors = await callAll(callbacks.afterCommit);
    if (errors.length === 0) return value;
    throw new AfterCommitError({ transactionId: unit.id, attempts, cause: errors[0], errors }, value);
  }

  override runStatement<Row extends QueryResultRow>(statement: Statement): Promise<QueryResult<Row>> {
    return this.run({}, (transaction) => transaction.query<Row>(statement));
  }

  override mayShare(): boolean {
    return false;
  }

  override know(): Promise<void> {
    return Promise.resolve();
  }

  private async attempt<T>(
    unit: Unit,
    attempt: number,
    outer: TransactionContext | undefined,
    work: (transaction: TransactionContext) => Promise<T>,
  ): Promise<{ value: T; callbacks: TransactionContext['callbacks'] }> {
    const query = (statement: Statement) => this.query(statement);
    const context = new TransactionContext(
      {
        ...{ unit, attempt, commitWith: query },
        typeOrm: { manager: this.manager, dataSource: this.dataSource },
        session: {
          query,
          sender: {},
          // Savepoints are sent to nobody.
          nest: (_: unknown, use: (send: () => Promise<void>) => Promise<unknown>) =>
            use(() => Promise.resolve()),
        },
      } as never,
      outer,
    );
    const isLast = attempt === (this.fake.attempts ?? 1);
    try {
      return { value: await runInContext(context, () => work(context)), callbacks: context.callbacks };
    } catch (error) {
      const failures = isLast ? await callAll(context.callbacks.afterRollback) : [];
      for (const err of failures) this.log.error({ msg: 'An afterRollback callback failed', err });
      throw error;
    } finally {
      context.close();
    }
  }

  private async query(statement: Statement): Promise<QueryResult> {
    if (!this.fake.query)
      throw new TransactionUsageError(
        'fakeTransactionRunner has no database: give it `query` to answer statements, or test this with a real one.',
      );
    const { rows, ...others } = await this.fake.query(statement);
    return { command: '', oid: 0, fields: [], rowCount: rows.length, ...others, rows };
  }
}

async function callAll(callbacks: readonly (() => unknown)[]): Promise<unknown[]> {
  const errors: unknown[] = [];
  for (const callback of callbacks)
    await Promise.resolve()
      .then(callback)
      .catch((error: unknown) => void errors.push(error));
  return errors;
}
