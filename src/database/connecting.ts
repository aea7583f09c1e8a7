import type { Pool, PoolClient, PoolConfig } from 'pg';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DataSource, QueryRunner } from 'typeorm';
import { beforeAbort } from './before-abort.js';
import { hasConnected, type Taken, takeClient } from './client-watch.js';
import { hasSqlState, markLost } from './database-failure.js';
import { KnownServer } from './known-server.js';
import { cutConnectionOf } from './pg/internals.js';
import { DatabaseUnavailableError, PoolExhaustedError, TOO_MANY_CONNECTIONS } from './postgres-errors.js';

/** How long it is waited for a client that comes back, before the server is asked for one more. */
const ASK_AGAIN_MS = 250;

type Create = DataSource['createQueryRunner'];

/** `createQueryRunner` as TypeORM has it, of DataSources where something else stands in for it. */
const ofPools = new WeakMap<DataSource, Create>();

/** A QueryRunner on this client, whatever code asks for it; releasing it does nothing to the client. */
export function queryRunnerOn(dataSource: DataSource, client: unknown): QueryRunner {
  const runner = ofPools.get(dataSource)?.() ?? dataSource.createQueryRunner();
  runner.connect = () => Promise.resolve(client);
  return runner;
}

/**
 * Has `choose` decide which QueryRunner TypeORM gets of this DataSource.
 *
 * @param choose is given what makes one of the pool
 */
export function standInForPoolRunners(
  dataSource: DataSource,
  choose: (ofPool: () => QueryRunner) => QueryRunner,
): void {
  const create = dataSource.createQueryRunner.bind(dataSource);
  ofPools.set(dataSource, create);
  dataSource.createQueryRunner = (mode) => choose(() => create(mode));
}
/** As after a password was changed, or where nobody may connect to the database any more. */
const LOGIN_REFUSED = ['28000', '28P01', '42501', '55000'];

/**
 * A client of the pool. A server that has no connection left for us, or lets us in no more, is no reason to give up while we have
 * some: one of them comes back.
 *
 * @throws PoolExhaustedError, DatabaseUnavailableError no client can be had
 * @throws the reason of `signal`
 */
export async function connect(
  dataSource: DataSource,
  pool: Pool,
  signal: AbortSignal | undefined,
): Promise<Taken> {
  const until = performance.now() + acquireTimeoutOf(dataSource, pool);
  for (;;) {
    try {
      // A pool with a limit of its own ends the wait, and one with an idle client for us has none.
      const isBounded = Boolean(ownLimitOf(pool)) || pool.idleCount > pool.waitingCount;
      const taking = takeClient(pool);
      const inTime = isBounded ? taking : withinMs(taking, until - performance.now(), pool);
      return await connectOnce(taking, inTime, signal);
    } catch (error) {
      const areTooMany = hasSqlState(error, TOO_MANY_CONNECTIONS);
      const isRefused = hasSqlState(error, ...LOGIN_REFUSED);
      if (!(areTooMany ? pool.totalCount > 0 : isRefused && hasConnected(pool))) throw error;
      if (performance.now() > until) throw areTooMany ? new PoolExhaustedError(error) : error;
      await released(pool);
    }
  }
}

/** What the pool was given as its limit: `connectTimeoutMS` of the DataSource. */
const ownLimitOf = (pool: Pool): number | undefined => (pool.options as PoolConfig).connectionTimeoutMillis;

/** How long a client is waited for, in ms. */
export const acquireTimeoutOf = (dataSource: DataSource, pool: Pool): number =>
  ownLimitOf(pool) || KnownServer.of(dataSource).acquireTimeoutMs;

/**
 * Whatever the reason, without a connection nothing was begun, so it is safe to try again.
 *
 * @param inTime the same, or why it is waited for no longer
 */
async function connectOnce(
  taking: Promise<Taken>,
  inTime: Promise<Taken>,
  signal: AbortSignal | undefined,
): Promise<Taken> {
  try {
    return await (signal ? beforeAbort(inTime, signal) : inTime);
  } catch (error) {
    const isLate = error instanceof WaitedTooLongError;
    // The pool can't be told that nobody waits any more: what it gives goes back.
    if (signal?.aborted || isLate) void taking.then(({ giveBack }) => giveBack()).catch(() => undefined);
    if (signal?.aborted) throw signal.reason;
    if (error instanceof PoolExhaustedError) throw error;
    throw isLate && error.isPoolFull ? new PoolExhaustedError(error) : unavailable(error);
  }
}

class WaitedTooLongError extends Error {
  constructor(readonly isPoolFull: boolean) {
    super('No connection within acquireTimeoutMs.');
  }
}

/** @throws WaitedTooLongError */
async function withinMs(taking: Promise<Taken>, milliseconds: number, pool: Pool): Promise<Taken> {
  const over = new AbortController();
  const { signal } = over;
  const late = sleep(Math.max(0, milliseconds), undefined, { signal, ref: false }).then(() => {
    throw new WaitedTooLongError(pool.totalCount >= pool.options.max);
  });
  late.catch(() => undefined);
  try {
    return await Promise.race([taking, late]);
  } finally {
    over.abort();
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
  atMostMs: number,
  signal: AbortSignal | undefined,
): Promise<T> {
  let isLate = false;
  const giveUp = () => {
    isLate = true;
    cutConnectionOf(client);
  };
  const timer = setTimeout(giveUp, atMostMs);
  signal?.addEventListener('abort', giveUp, { once: true });
  try {
    return await asked;
  } catch (cause) {
    throw isLate ? new NoAnswerError('The server gives no answer.', { cause }) : cause;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', giveUp);
  }
}
