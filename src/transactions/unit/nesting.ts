import { ISOLATION_LEVELS, type IsolationLevel } from '../../database/data-source-options.js';
import { poolOf } from '../../database/pooled-client.js';
import { PoolExhaustedError } from '../../database/postgres-errors.js';
import type { DataSource } from 'typeorm';
import { currentTransaction, type TransactionContext } from '../transaction-context.js';
import { TransactionUsageError } from '../transaction-errors.js';
import type { TransactionOptions } from '../transaction-options.js';

/** The innermost unit of work on this DataSource that the calling code runs in. */
export function innermostOn(dataSource: DataSource): TransactionContext | undefined {
  let context = currentTransaction();
  while (context && context.dataSource !== dataSource) context = context.parent;
  return context;
}

/**
 * Refuses to join a unit of work that can't give what is asked for.
 *
 * @throws TransactionUsageError
 */
export async function assertCompatible(
  { isolationLevel, readOnly }: TransactionOptions,
  outer: TransactionContext,
): Promise<void> {
  if (readOnly === false && outer.readOnly)
    throw new TransactionUsageError('A unit of work that is to write can not join one that is read only.');
  if (!isolationLevel) return;
  const level = outer.isolationLevel ?? (await levelOf(outer));
  if (strength(isolationLevel) > strength(level))
    throw new TransactionUsageError(
      `A unit of work that asks for ${isolationLevel} can not join one of ${level}: choose that level for the outermost, or propagation: 'REQUIRES_NEW'.`,
    );
}

/** @throws TransactionUsageError a unit of work around this one has the same key, and would be waited for for ever */
export function assertKeyIsFree({ conflictKey }: TransactionOptions, outer: TransactionContext): void {
  if (conflictKey === undefined) return;
  for (let context: TransactionContext | undefined = outer; context; context = context.parent) {
    if (context.conflictKey === conflictKey)
      throw new TransactionUsageError(
        `propagation: 'REQUIRES_NEW' with conflictKey ${JSON.stringify(conflictKey)} inside of a unit of work with the same key would wait for itself.`,
      );
  }
}

/**
 * Whoever holds a connection must not wait for another one that those may hold who wait for it.
 *
 * @throws PoolExhaustedError
 */
export function assertConnectionIsFree(dataSource: DataSource, outer: TransactionContext): void {
  const { totalCount, idleCount, waitingCount, options: pool } = poolOf(dataSource);
  const isExhausted = pool.max - totalCount + idleCount <= waitingCount;
  if (isExhausted && !outer.hasEnded)
    throw new PoolExhaustedError(
      new TransactionUsageError(
        `propagation: 'REQUIRES_NEW' needs a second connection, and the pool (${pool.max}) has none free. Make it larger than the number of units of work that run at once.`,
      ),
    );
}

/** True in a unit of work that runs, on whatever DataSource: what it needs is part of it, also while the application stops. */
export function isPartOfUnit(): boolean {
  for (let context = currentTransaction(); context; context = context.parent)
    if (!context.hasEnded) return true;
  return false;
}

/** PostgreSQL's own default, unless the session or the role has another. */
async function levelOf(outer: TransactionContext): Promise<IsolationLevel> {
  const { rows } = await outer.query<{ level: string }>({
    text: `SELECT current_setting('transaction_isolation') AS level`,
  });
  return rows[0]!.level.toUpperCase() as IsolationLevel;
}

const strength = (level: IsolationLevel) => ISOLATION_LEVELS.indexOf(level);
