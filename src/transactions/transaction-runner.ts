import { type BeforeApplicationShutdown, Inject, Injectable } from '@nestjs/common';
import { channel } from 'node:diagnostics_channel';
import { setTimeout as sleep } from 'node:timers/promises';
import type { QueryResult, QueryResultRow } from 'pg';
import type { DataSource } from 'typeorm';
import { v7 as uuidv7 } from 'uuid';
import { ISOLATION_LEVELS, type IsolationLevel } from '../database/data-source-options.js';
import { type Lease, type RecyclingMethod, withClient } from '../database/pooled-client.js';
import { findPostgresError, isSocketFailure, toDatabaseError } from '../database/postgres-errors.js';
import {
  type Backoff,
  backoffDelay,
  DEFAULT_BACKOFF,
  DEFAULT_MAX_ATTEMPTS,
  isRetryable,
} from './retry-policy.js';
import {
  currentTransaction,
  runInContext,
  type Statement,
  TransactionContext,
} from './transaction-context.js';
import {
  AfterCommitError,
  TransactionOutcomeUnknownError,
  TransactionRetriesExhaustedError,
  TransactionRolledBackError,
} from './transaction-errors.js';

/** How one unit of work is run; what is left out comes from `TransactionsModule.forRoot`. */
export interface TransactionOptions {
  /** Without it the session's default (`default_transaction_isolation`). */
  isolationLevel?: IsolationLevel;
  /** Attempts in all, the first included: 1 to 10. Default 10. */
  maxAttempts?: number;
  /** The wait between attempts, without a connection. Default 25 ms doubling up to 250 ms, half of it random. */
  backoff?: Backoff;
}

export interface TransactionRunnerSettings extends TransactionOptions {
  /** What is checked when a client leaves the pool. Default `fast`. */
  recycling?: RecyclingMethod;
}

export const TRANSACTIONS_DATA_SOURCE = Symbol.for('nestjs-people:TRANSACTIONS_DATA_SOURCE');
export const TRANSACTION_SETTINGS = Symbol.for('nestjs-people:TRANSACTION_SETTINGS');

/** `diagnostics_channel` on which every failed attempt that will be repeated is published as `TransactionRetry`. */
export const TRANSACTION_RETRY_CHANNEL = 'nestjs-people:transaction:retry';

/** A conflict that is answered with another attempt. */
export interface TransactionRetry {
  transactionId: string;
  /** The attempt that failed. */
  attempt: number;
  /** SQLSTATE of the conflict. */
  code: string;
  /** Wait before the next attempt, in ms. */
  delayMs: number;
}

const retries = channel(TRANSACTION_RETRY_CHANNEL);

interface Unit {
  /** Made when something first has to name the unit; most single statements never do. */
  readonly id: string;
  maxAttempts: number;
  backoff: Backoff;
  isolationLevel: IsolationLevel | undefined;
}

/**
 * The only place that begins, commits, rolls back and repeats. A unit of work that meets a serialization failure (40001)
 * or a deadlock (40P01), in a statement or at COMMIT, runs again from its start with a connection and a context of its
 * own, after it gave the old connection back and waited.
 */
@Injectable()
export class TransactionRunner implements BeforeApplicationShutdown {
  private readonly running = new Set<Promise<unknown>>();

  constructor(
    @Inject(TRANSACTIONS_DATA_SOURCE) private readonly dataSource: DataSource,
    @Inject(TRANSACTION_SETTINGS) private readonly settings: TransactionRunnerSettings,
  ) {
    validate(settings);
  }

  /**
   * Runs `work` in a transaction and commits it; resolves with what `work` returned, once the commit is confirmed.
   * Inside another unit of work it joins that one, and only the outermost commits and repeats.
   *
   * `work` may run up to `maxAttempts` times: it must decide everything anew from what it reads, have no effects outside
   * of the database, leave its arguments as they are, and await (not swallow) its statements.
   *
   * @throws what `work` throws, after a rollback
   * @throws TransactionRetriesExhaustedError every attempt met a conflict; nothing was changed
   * @throws TransactionOutcomeUnknownError the connection was lost during COMMIT
   * @throws TransactionRolledBackError `work` swallowed a failed statement; nothing was changed
   * @throws PoolExhaustedError, DatabaseUnavailableError no usable connection; nothing was changed
   */
  async run<T>(
    options: TransactionOptions,
    work: (transaction: TransactionContext) => Promise<T>,
  ): Promise<T> {
    const outer = this.joined();
    if (outer) return work(outer);
    const unit = this.unitOf(options);
    return this.repeat(unit, (attempt) => this.lend((lease) => runTransaction(unit, attempt, lease, work)));
  }

  /**
   * Runs one statement as a unit of work of its own. PostgreSQL runs a single statement in its own transaction, so without
   * a chosen isolation level no BEGIN is sent, and repeating the statement is repeating the transaction. Joins like `run`.
   *
   * @param writes false when losing the connection leaves nothing unknown
   * @throws as `run`
   */
  async runStatement<Row extends QueryResultRow>(
    statement: Statement,
    { writes, ...options }: TransactionOptions & { writes: boolean },
  ): Promise<QueryResult<Row>> {
    const outer = this.joined();
    if (outer) return outer.query<Row>(statement);
    const unit = this.unitOf(options);
    if (unit.isolationLevel) return this.run(options, (transaction) => transaction.query<Row>(statement));
    return this.repeat(unit, (attempt) =>
      this.lend(async ({ client }) => {
        try {
          return await client.query<Row>(statement as { text: string });
        } catch (error) {
          if (writes && isSocketFailure(error))
            throw new TransactionOutcomeUnknownError(unit.id, attempt, error);
          throw error;
        }
      }),
    );
  }

  /**
   * Lets what runs now end before Nest closes the pool. What requests and messages begin from here on is waited for by
   * their own servers, which Nest closes next; waiting for it here would never end under load.
   */
  async beforeApplicationShutdown(): Promise<void> {
    await Promise.allSettled(this.running);
  }

  private lend<T>(use: (lease: Lease) => Promise<T>): Promise<T> {
    return withClient(this.dataSource, this.settings.recycling ?? 'fast', use);
  }

  private joined(): TransactionContext | undefined {
    const outer = currentTransaction();
    return outer?.dataSource === this.dataSource ? outer : undefined;
  }

  private unitOf(options: TransactionOptions): Unit {
    validate(options);
    const { maxAttempts, backoff, isolationLevel } = { ...this.settings, ...options };
    let id: string | undefined;
    return {
      get id() {
        return (id ??= uuidv7());
      },
      maxAttempts: maxAttempts ?? DEFAULT_MAX_ATTEMPTS,
      backoff: backoff ?? DEFAULT_BACKOFF,
      isolationLevel,
    };
  }

  private async repeat<T>(unit: Unit, attemptOnce: (attempt: number) => Promise<T>): Promise<T> {
    const outcome = attemptUntilDone(unit, attemptOnce);
    this.running.add(outcome);
    try {
      return await outcome;
    } finally {
      this.running.delete(outcome);
    }
  }
}

async function attemptUntilDone<T>(unit: Unit, attemptOnce: (attempt: number) => Promise<T>): Promise<T> {
  const failures: unknown[] = [];
  for (;;) {
    try {
      return await attemptOnce(failures.length + 1);
    } catch (error) {
      if (!isRetryable(error)) throw toDatabaseError(error);
      failures.push(error);
    }
    const attempt = failures.length;
    if (attempt >= unit.maxAttempts) throw new TransactionRetriesExhaustedError(unit.id, failures);
    const delayMs = backoffDelay(attempt, unit.backoff);
    const code = findPostgresError(failures.at(-1))?.code ?? '';
    retries.publish({ transactionId: unit.id, attempt, code, delayMs } satisfies TransactionRetry);
    await sleep(delayMs);
  }
}

async function runTransaction<T>(
  unit: Unit,
  attempt: number,
  lease: Lease,
  work: (transaction: TransactionContext) => Promise<T>,
): Promise<T> {
  const { queryRunner } = lease;
  const context = new TransactionContext(unit.id, attempt, unit.maxAttempts, lease);
  await queryRunner.startTransaction(unit.isolationLevel);
  let result: T;
  try {
    result = await runInContext(context, () => work(context));
  } catch (error) {
    context.close();
    await rollBack(lease);
    throw error;
  }
  context.close();
  await commit(unit, attempt, lease);
  return result;
}

/** COMMIT goes through the client, since TypeORM hides the one answer that tells: the tag ROLLBACK. */
async function commit(unit: Unit, attempt: number, { queryRunner, client }: Lease): Promise<void> {
  await queryRunner.broadcaster.broadcast('BeforeTransactionCommit');
  let tag: string;
  try {
    ({ command: tag } = await client.query('COMMIT'));
  } catch (error) {
    if (isSocketFailure(error)) throw new TransactionOutcomeUnknownError(unit.id, attempt, error);
    throw error;
  }
  if (tag !== 'COMMIT') throw new TransactionRolledBackError(unit.id, attempt, undefined);
  try {
    await queryRunner.broadcaster.broadcast('AfterTransactionCommit');
  } catch (error) {
    throw new AfterCommitError(unit.id, attempt, error);
  }
}

/** A client that can't roll back would hand its open transaction to the next borrower, so it is closed. */
async function rollBack(lease: Lease): Promise<void> {
  try {
    await lease.queryRunner.rollbackTransaction();
  } catch {
    // The error that led here is the one to report; this one only decides about the client.
    lease.broken = true;
  }
}

function validate({ maxAttempts, isolationLevel }: TransactionOptions): void {
  if (
    maxAttempts !== undefined &&
    !(Number.isInteger(maxAttempts) && maxAttempts >= 1 && maxAttempts <= 10)
  ) {
    throw new RangeError(`maxAttempts must be a whole number from 1 to 10, not ${String(maxAttempts)}`);
  }
  if (isolationLevel !== undefined && !ISOLATION_LEVELS.includes(isolationLevel)) {
    throw new RangeError(
      `isolationLevel must be one of ${ISOLATION_LEVELS.join(', ')}, not ${String(isolationLevel)}`,
    );
  }
}
