import type { Pool, PoolClient } from 'pg';
import { markFailures, markLost } from './database-failure.js';
import { connectionOf, isPoolTimeout } from './pg/internals.js';
import { PoolExhaustedError } from './postgres-errors.js';

const watched = new WeakSet<object>();
const births = new WeakMap<PoolClient, number>();
const lost = new WeakMap<PoolClient, Error>();
const connected = new WeakMap<Pool, Set<PoolClient>>();
/** Gives a client back that is lent. */
const lent = new WeakMap<PoolClient, (() => void) | undefined>();

/** A client that the pool has lent. */
export interface Taken {
  readonly client: PoolClient;
  /** To be called in the end; more than once does no harm. */
  readonly giveBack: () => void;
}

/** When its connection was made; 0 for those that were there before anybody looked. */
export const bornAt = (client: PoolClient): number => births.get(client) ?? 0;

/** What the client said when its connection was lost while nobody waited for an answer (an idle timeout, a kill). */
export const lossOf = (client: PoolClient): Error | undefined => lost.get(client);

/** True where a client of the pool is connected: those that are still connecting may never be. */
export const hasConnected = (pool: Pool): boolean =>
  [...(connected.get(pool) ?? [])].some((client) => !lost.has(client));

/** A client of a pool that is watched. @throws what the pool says */
export function takeClient(pool: Pool): Promise<Taken> {
  return new Promise((resolve, reject) => {
    pool.connect((error, client, release) => {
      if (!client) return reject(error!);
      watchClient(pool, client);
      const giveBack = () => {
        if (lent.get(client) !== giveBack) return;
        lent.set(client, undefined);
        release();
      };
      lent.set(client, giveBack);
      resolve({ client, giveBack });
    });
  });
}

/**
 * An error of a client that nobody listens to ends the process, and neither the pool nor TypeORM listens between a client's
 * connect and the microtask in which its borrower has it, nor after a broken one was given back. A pool that ends closes what it
 * has lent, as TypeORM has it do with what it has itself: who ends it waits for nobody.
 */
export function watchPool(pool: Pool): void {
  if (watched.has(pool)) return;
  watched.add(pool);
  const clients = new Set<PoolClient>();
  connected.set(pool, clients);
  pool.on('connect', (client) => {
    births.set(client, performance.now());
    watchClient(pool, client);
  });
  pool.on('remove', (client) => clients.delete(client));
  tellExhaustion(pool);
  const end: (callback?: () => void) => unknown = pool.end.bind(pool);
  pool.end = ((callback?: () => void) => {
    const ended = end(callback);
    for (const client of clients) lent.get(client)?.();
    return ended;
  }) as Pool['end'];
}

function watchClient(pool: Pool, client: PoolClient): void {
  if (watched.has(client)) return;
  watched.add(client);
  connected.get(pool)?.add(client);
  markFailures(client);
  client.on('error', (error) => {
    markLost(error, undefined, connectionOf(client));
    if (!lost.has(client)) lost.set(client, error);
    // Whoever has it may be busy with something else: it makes room for another at once.
    lent.get(client)?.();
  });
}

/** Whoever asks the pool for a client, TypeORM for a query of a repository too, is told by type that all are busy. */
function tellExhaustion(pool: Pool): void {
  type Callback = (error: Error | undefined, ...rest: unknown[]) => void;
  const connect = pool.connect.bind(pool) as (callback?: Callback) => Promise<PoolClient> | undefined;
  const told = (error: unknown) => (isPoolTimeout(error) ? new PoolExhaustedError(error) : error);
  const connectOrTell = (callback?: Callback) =>
    callback
      ? connect((error, ...rest) => callback(told(error) as Error | undefined, ...rest))
      : connect()!.catch((error: unknown) => Promise.reject(told(error) as Error));
  pool.connect = connectOrTell as Pool['connect'];
}
