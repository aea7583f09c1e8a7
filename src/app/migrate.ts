import { setTimeout as sleep } from 'node:timers/promises';
import { type DataSource, MigrationExecutor } from 'typeorm';

/** Any number, as long as nothing else locks it: instances that start together must not migrate together. */
const LOCK = 7_365_616_412;
const POLL_MS = 200;

/**
 * Applies the pending migrations, one instance at a time.
 *
 * @returns the names of those applied
 */
export async function migrate(dataSource: DataSource): Promise<string[]> {
  // One connection for everything: the pool may have no other.
  const queryRunner = dataSource.createQueryRunner();
  try {
    // Polled: a session that waits in pg_advisory_lock() keeps a snapshot open, and CREATE INDEX CONCURRENTLY of the one
    // that holds the lock would wait for it.
    while (!(await isLocked(queryRunner.query(`SELECT pg_try_advisory_lock(${LOCK}) AS locked`))))
      await sleep(POLL_MS);
    try {
      // An index on a large table takes as long as it takes.
      await queryRunner.query('SET statement_timeout = 0');
      const executor = new MigrationExecutor(dataSource, queryRunner);
      executor.transaction = 'each';
      return (await executor.executePendingMigrations()).map(({ name }) => name);
    } finally {
      await queryRunner.query('RESET statement_timeout');
      await queryRunner.query(`SELECT pg_advisory_unlock(${LOCK})`);
    }
  } finally {
    await queryRunner.release();
  }
}

const isLocked = async (answer: Promise<unknown>) => ((await answer) as [{ locked: boolean }])[0].locked;
