import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { DataSource } from 'typeorm';
import { failureOn } from '../../database/database-failure.js';
import { connectBeside } from '../../database/pooled-client.js';

/** Any number, as long as nothing else locks it: instances that start together must not migrate together. */
const LOCK = 7_365_616_412;
const POLL_MS = 200;
/** How often the holder is heard of: poolers and firewalls end connections that are silent for long. */
const HEARD_EVERY_MS = 1000;

/** The turn of this process to migrate. */
export interface MigrationLock {
  /** Lets the next one have its turn. */
  release(): Promise<void>;
}

/**
 * Waits for the turn to migrate. The lock is held by an open transaction on a connection of its own: a lock of a session would
 * stay on the server's connection when a pooler hands that on.
 *
 * @param limits what lets its transaction take as long as it takes
 * @param lost aborted when the lock is lost before it is released, as its connection has ended
 * @returns undefined where the server has no advisory locks: functions of the name may be missing, or do nothing
 * @throws what pg throws when there is no connection
 */
export async function takeMigrationLock(
  dataSource: DataSource,
  limits: readonly string[],
  lost: AbortController,
): Promise<MigrationLock | undefined> {
  const client = await connectBeside(dataSource, new AbortController().signal);
  try {
    // Polled, each time in a new transaction: CREATE INDEX CONCURRENTLY of the one that has the lock would wait for whoever
    // waits in pg_advisory_xact_lock().
    for (;;) {
      const turn = await tryToLock(client, limits);
      if (turn === 'ours') return hold(client, lost);
      if (turn === 'unknown') {
        await client.end();
        return undefined;
      }
      await sleep(POLL_MS);
    }
  } catch (error) {
    client.end().catch(() => undefined);
    throw error;
  }
}

/** Leaves a transaction open that holds the lock, or none. */
async function tryToLock(client: Client, limits: readonly string[]): Promise<'ours' | 'others' | 'unknown'> {
  // At this level an idle transaction has no snapshot, for whose end CREATE INDEX CONCURRENTLY would wait.
  await client.query('BEGIN ISOLATION LEVEL READ COMMITTED');
  let turn: 'ours' | 'others' | 'unknown';
  try {
    for (const limit of limits) await client.query(limit);
    const { rows } = await client.query<{ locked: boolean }>(
      `SELECT pg_try_advisory_xact_lock(${LOCK}) AS locked`,
    );
    if (!rows[0]!.locked) turn = 'others';
    else turn = (await isLocked(client)) ? 'ours' : 'unknown';
  } catch (error) {
    if ((await failureOn(client, error))?.isLost ?? true) throw error;
    turn = 'unknown';
  }
  if (turn !== 'ours') await client.query('ROLLBACK');
  return turn;
}

/** Some engines have functions of that name which do nothing. */
async function isLocked(client: Client): Promise<boolean> {
  const { rowCount } = await client.query(
    `SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted`,
  );
  return rowCount !== 0;
}

function hold(client: Client, lost: AbortController): MigrationLock {
  const lose = (cause?: unknown) => {
    clearInterval(timer);
    lost.abort(new Error(LOST, { cause }));
  };
  let asking: Promise<unknown> | undefined;
  const timer = setInterval(() => {
    // An empty statement: one that looks at anything has a snapshot, see above.
    asking ??= client
      .query('')
      .catch(lose)
      .finally(() => (asking = undefined));
  }, HEARD_EVERY_MS);
  client.on('error', lose).on('end', lose);
  return {
    release: async () => {
      clearInterval(timer);
      client.off('error', lose).off('end', lose);
      await asking;
      // Both may fail when it is lost; then there is no lock any more.
      await client.query('ROLLBACK').catch(() => undefined);
      await client.end().catch(() => undefined);
    },
  };
}

const LOST =
  'The connection that held the lock for migrating was lost, and so the migration under way was ended: another instance may ' +
  'be migrating now. Start again; what was applied is known.';
