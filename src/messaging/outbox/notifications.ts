import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PoolClient, QueryResult } from 'pg';
import type { DataSource } from 'typeorm';
import { KnownServer } from '../../database/known-server.js';
import {
  borrowClient,
  learnFailure,
  poolOf,
  returnClient,
  withClient,
} from '../../database/pooled-client.js';
import { toDatabaseError } from '../../database/postgres-errors.js';
import type { Statement } from '../../transactions/transaction-context.js';

const CHANNEL = 'nestjs_people_outbox';
/** A smaller pool can't spare a client for LISTEN. */
const POOL_TO_LISTEN = 4;
/** How long a look waits for a table that somebody has locked. */
const LOCK_TIMEOUT_MS = 500;

/** A client can be spared to wait for notifications, and they reach it: a pooler may hand on its connection to somebody else. */
export function canListen(dataSource: DataSource): boolean {
  const { isPooled, takesListen } = KnownServer.of(dataSource);
  return !isPooled && takesListen && (poolOf(dataSource).options.max ?? 0) >= POOL_TO_LISTEN;
}

/**
 * Tells the relays of other processes that there is something to send. Beside the transactions that publish: one that
 * notifies waits for every other that does, as COMMIT takes a lock on the database's queue of notifications.
 */
export async function notifyRelays(dataSource: DataSource): Promise<void> {
  await withClient(dataSource, 'fast', ({ client }) => client.query(`NOTIFY ${CHANNEL}`));
}

/**
 * Resolves when a relay was notified, when `pending` finds rows (it is asked now and every `pollMs`), or when `signal` is
 * aborted. Has a client of the pool for as long.
 *
 * @param pending a statement without parameters
 * @throws LockTimeoutError a table of `pending` is locked
 * @throws the client can't be had, or was lost
 */
export async function untilPending(
  dataSource: DataSource,
  pending: Statement,
  pollMs: number,
  signal: AbortSignal,
): Promise<void> {
  const lease = await borrowClient(dataSource, 'fast', { signal });
  const { client } = lease;
  try {
    await client.query(`LISTEN ${CHANNEL}`).catch(async (error: unknown) => {
      const failure = await learnFailure(lease, error);
      // This database has no LISTEN.
      if (failure && !failure.isLost) KnownServer.of(dataSource).takesListen = false;
      throw error;
    });
    // Looked for after LISTEN: what is published later is notified.
    while (!signal.aborted && !(await isAny(client, pending)))
      if (await isNotified(client, pollMs, signal)) break;
    await client.query(`UNLISTEN ${CHANNEL}`);
  } catch (error) {
    lease.broken = true;
    throw toDatabaseError(error, await learnFailure(lease, error), true);
  } finally {
    returnClient(lease);
  }
}

/** Two statements in one query are one transaction without BEGIN, so `SET LOCAL` is for the look alone. */
async function isAny(client: PoolClient, { text }: Statement): Promise<boolean> {
  const bounded = `SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}; ${text}`;
  const results = (await client.query(bounded)) as unknown as QueryResult[];
  return results.at(-1)!.rows.length > 0;
}

/** @returns false when `pollMs` are over before. @throws the connection was lost */
async function isNotified(client: PoolClient, pollMs: number, signal: AbortSignal): Promise<boolean> {
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  const aborted = (error: Error) => {
    if (!either.aborted) throw error;
    return false;
  };
  try {
    return await Promise.race([
      once(client, 'notification', { signal: either }).then(() => true, aborted),
      sleep(pollMs, false, { signal: either }).catch(aborted),
    ]);
  } finally {
    over.abort();
  }
}
