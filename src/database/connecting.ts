import type { Pool, PoolClient, PoolConfig } from 'pg';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DataSource, QueryRunner } from 'typeorm';
import { beforeAbort } from './before-abort.js';
import { hasConnected } from './client-watch.js';
import { hasSqlState, markLost } from './database-failure.js';
import { cutConnectionOf } from './pg/internals.js';
import { DatabaseUnavailableError, PoolExhaustedError, TOO_MANY_CONNECTIONS } from './postgres-errors.js';

/** How long it is waited for a client that comes back, before the server is asked for one more. */
const ASK_AGAIN_MS = 250;

/** As after a password was changed, or where nobody may connect to the database any more. */
const LOGIN_REFUSED = ['28000', '28P01', '42501', '55000'];

/**
 * A client of the pool, with the QueryRunner that gives it back. A server that has no connection left for us, or lets us in no
 * more, is no reason to give up while we have some: one of them comes back.
 *
 * @throws PoolExhaustedError, DatabaseUnavailableError no client can be had
 * @throws the reason of `signal`
 */
export async function connect(
  dataSource: DataSource,
  pool: Pool,
  signal: AbortSignal | undefined,
): Promise<{ queryRunner: QueryRunner; client: PoolClient }> {
  const until = performance.now() + (acquireTimeoutOf(pool) ?? Infinity);
  for (;;) {
    // A QueryRunner whose connect() failed stays failed (it caches the promise), hence a fresh one each time.
    const queryRunner = dataSource.createQueryRunner();
    try {
      return { queryRunner, client: await connectOnce(queryRunner, signal) };
    } catch (error) {
      const areTooMany = hasSqlState(error, TOO_MANY_CONNECTIONS);
      const isRefused = hasSqlState(error, ...LOGIN_REFUSED);
      if (!(areTooMany ? pool.totalCount > 0 : isRefused && hasConnected(pool))) throw error;
      if (performance.now() > until) throw areTooMany ? new PoolExhaustedError(error) : error;
      await released(pool);
    }
  }
}

/** How long a client is waited for, in ms; undefined: for ever. */
const acquireTimeoutOf = (pool: Pool): number | undefined =>
  (pool.options as PoolConfig).connectionTimeoutMillis || undefined;

/** Whatever the reason, without a connection nothing was begun, so it is safe to try again. */
async function connectOnce(queryRunner: QueryRunner, signal: AbortSignal | undefined): Promise<PoolClient> {
  const connecting = queryRunner.connect() as Promise<PoolClient>;
  try {
    return await (signal ? beforeAbort(connecting, signal) : connecting);
  } catch (error) {
    if (signal?.aborted) {
      // The pool can't be told that nobody waits any more: what it gives goes back.
      void connecting.then(() => queryRunner.release()).catch(() => undefined);
      throw signal.reason;
    }
    if (error instanceof PoolExhaustedError) throw error;
    throw unavailable(error);
  }
}

export function unavailable(cause: unknown): DatabaseUnavailableError {
  const error = new DatabaseUnavailableError(cause);
  markLost(error, cause);
  return error;
}

async function released(pool: Pool): Promise<void> {
  const over = new AbortController();
  const { signal } = over;
  await Promise.race([once(pool, 'release', { signal }), sleep(ASK_AGAIN_MS, undefined, { signal })]);
  over.abort();
}

/** A client was had, but its server says nothing. */
export class NoAnswerError extends Error {}

/**
 * What is asked of a client before it is lent takes no longer than it may take to get one; then its connection is cut.
 *
 * @throws NoAnswerError it took longer, or `signal` was aborted
 */
export async function inTime<T>(
  client: PoolClient,
  asked: Promise<T>,
  pool: Pool,
  signal: AbortSignal | undefined,
): Promise<T> {
  let isLate = false;
  const giveUp = () => {
    isLate = true;
    cutConnectionOf(client);
  };
  const atMostMs = acquireTimeoutOf(pool);
  const timer = atMostMs && setTimeout(giveUp, atMostMs);
  signal?.addEventListener('abort', giveUp, { once: true });
  try {
    return await asked;
  } catch (cause) {
    throw isLate ? new NoAnswerError('The server gives no answer.', { cause }) : cause;
  } finally {
    if (timer) clearTimeout(timer);
    signal?.removeEventListener('abort', giveUp);
  }
}
