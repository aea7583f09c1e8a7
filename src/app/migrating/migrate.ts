// app/migrating/: Applies migrations when the service starts, one instance at a time, also behind a pooler.
// Promises: no timeout ends a migration, and no setting or lock of it stays on a connection.
// May know: database/ and the list of migrations.

import { type DataSource, MigrationExecutor } from 'typeorm';
import { queryRunnerOn } from '../../database/connecting.js';
import { cutConnection, type Lease, withClient } from '../../database/pooled-client.js';
import { cancelStatement } from './cancel-statement.js';
import { migrationClient, withoutLimits } from './client.js';
import { takeMigrationLock } from './lock.js';

/** How long a migration that was told to end may take for it. */
const ENDS_WITHIN_MS = 5000;

/**
 * Applies the pending migrations, one instance at a time, however long they take: no `statement_timeout` ends them. Behind a
 * pooler nothing of it is left on the server's connections. It takes a client of the pool and, where something is pending,
 * one more connection.
 *
 * @returns the names of those applied
 * @throws what a migration throws
 * @throws Error something is pending on a server without advisory locks, or the lock was lost on the way
 */
export function migrate(dataSource: DataSource): Promise<string[]> {
  return withClient(dataSource, 'fast', async (lease) => {
    const lockLost = new AbortController();
    const { signal } = lockLost;
    const migration = migrationClient(lease, signal);
    const executor = new MigrationExecutor(dataSource, queryRunnerOn(dataSource, migration.client));
    executor.transaction = 'each';
    const pending = await executor.getPendingMigrations();
    if (pending.length === 0) return [];

    // What its session is left with ends with it.
    lease.broken = true;
    const limits = await withoutLimits(lease.client);
    const lock = await takeMigrationLock(dataSource, limits, lockLost);
    if (!lock) throw new Error(cannotTakeTurns(pending.map(({ name }) => name)));
    let ending: Promise<void> | undefined;
    signal.addEventListener('abort', () => {
      ending = endStatement(lease);
    });
    try {
      await migration.lift(limits);
      return (await executor.executePendingMigrations()).map(({ name }) => name);
    } catch (error) {
      // That is why the statement failed.
      signal.throwIfAborted();
      throw error;
    } finally {
      await ending;
      await lock.release();
    }
  });
}

/** Somebody else may migrate now: what still runs is told to end, as a server need not notice that its client is gone. */
async function endStatement(lease: Lease): Promise<void> {
  setTimeout(() => cutConnection(lease), ENDS_WITHIN_MS).unref();
  await cancelStatement(lease.client, ENDS_WITHIN_MS);
}

const cannotTakeTurns = (names: string[]): string =>
  'The server has no advisory locks, so instances that start together could not take turns in migrating. ' +
  `Migrate from one place before they start (npm run migration:run). Pending: ${names.join(', ')}.`;
