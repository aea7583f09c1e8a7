import type { Client, Pool, PoolClient } from 'pg';
import type { DataSource } from 'typeorm';
import {
  checkClient,
  type CheckedClient,
  isLentUnasked,
  type Purpose,
  takesWrites,
  type RecyclingMethod,
  type Verdict,
} from './client-check.js';
import { bornAt, lossOf, watchPool } from './client-watch.js';
import { acquireTimeoutOf, connect, inTime, NoAnswerError, unavailable } from './connecting.js';
import { type DatabaseFailure, failureOn, markFailures } from './database-failure.js';
import { looksElsewhere } from './faults.js';
import { introduce, isNew } from './introduction.js';
import { KnownServer } from './known-server.js';
import { cutConnectionOf } from './pg/internals.js';
import { DatabaseUnavailableError, READ_ONLY_SQL_TRANSACTION } from './postgres-errors.js';
import { statementComment } from '../tracing/statement-comment.js';

export { RECYCLING_METHODS, type RecyclingMethod } from './client-check.js';

/** A client of the DataSource's pool, lent for the length of one callback. */
export interface Lease {
  readonly client: PoolClient;
  /** For `returnClient`. */
  readonly giveBack: () => void;
  /** Set it when the client's state can't be trusted (a ROLLBACK that failed): it is then closed, not returned. */
  broken: boolean;
  /** Set it while the client is in a transaction that is not to write: that it can't is no failing of the server then. */
  readOnly?: boolean;
  readonly server: KnownServer;
}

/** The pool of a DataSource; of a replicated one, that of the primary. */
export const poolOf = (dataSource: DataSource): Pool =>
  (dataSource.driver as unknown as { master: Pool }).master;

/**
 * Lends a client of the pool to `use` and gives it back afterwards; a client that failed or is marked `broken` is closed
 * instead, so that nobody inherits it.
 *
 * @throws what `use` throws
 * @throws PoolExhaustedError, DatabaseUnavailableError no client can be had
 */
export async function withClient<T>(
  dataSource: DataSource,
  recycling: RecyclingMethod,
  use: (lease: Lease) => Promise<T>,
  purpose?: Purpose,
): Promise<T> {
  const lease = await borrowClient(dataSource, recycling, { purpose });
  try {
    return await use(lease);
  } catch (error) {
    await learnFailure(lease, error);
    throw error;
  } finally {
    returnClient(lease);
  }
}

/**
 * What ended a statement of this client. One whose connection is lost is closed, and so is one that can't do its job: whose
 * server takes no writes (it may have another in its place, or other defaults, which a session only learns of when it begins), or
 * that has not prepared what the client believes, or whose session may have been left with another search_path or role.
 *
 * @returns undefined when it was never sent
 */
export async function learnFailure(lease: Lease, error: unknown): Promise<DatabaseFailure | undefined> {
  const failure = await failureOn(lease.client, error);
  const { postgres, isLost } = failure ?? {};
  if (isLost) lease.broken = true;
  else if (failure?.isOutdated) {
    lease.broken = true;
    lease.server.namesFailed(postgres!.code, bornAt(lease.client));
  } else if (postgres?.code === READ_ONLY_SQL_TRANSACTION && !lease.readOnly) {
    lease.broken = true;
    lease.server.writesFailed();
  } else if (postgres && looksElsewhere(postgres)) lease.broken = true;
  return failure;
}

/**
 * The statement as it may be sent on this client: without its name where names do not hold, or where a comment makes it another
 * text each time.
 */
export function toSend<Statement extends { name?: string | undefined; text?: string }>(
  { server }: Lease,
  statement: Statement,
): Statement {
  const comment = server.commentsStatements ? statementComment() : undefined;
  if (comment) return { ...statement, name: undefined, text: `${statement.text}${comment}` };
  return statement.name === undefined || server.isNamed ? statement : { ...statement, name: undefined };
}

/** Asks one of the DataSource's connections what it gives, where that is not known. */
export async function knowServer(dataSource: DataSource): Promise<KnownServer> {
  const server = KnownServer.of(dataSource);
  if (!server.isKnown) await withClient(dataSource, 'fast', () => Promise.resolve());
  return server;
}

/** For what a client is borrowed, and for how long it is waited for. */
export interface BorrowOptions {
  /** Default: write. */
  purpose?: Purpose | undefined;
  /** Ends the wait for a free client. */
  signal?: AbortSignal | undefined;
}

/**
 * A client of the pool, which must be given to `returnClient` in the end.
 *
 * @throws PoolExhaustedError, DatabaseUnavailableError no client can be had, or none that is checked and takes writes
 * @throws the reason of `signal`
 */
export async function borrowClient(
  dataSource: DataSource,
  recycling: RecyclingMethod,
  { purpose = 'write', signal }: BorrowOptions = {},
): Promise<Lease> {
  const pool = poolOf(dataSource);
  watchPool(pool);
  const server = KnownServer.of(dataSource);
  // Clients that are idle and no good any more are replaced; there are at most as many of them as the pool is large.
  for (let left = pool.options.max ?? 0; ; left--) {
    const { client, giveBack } = await connect(dataSource, pool, signal);
    const lease: Lease = { client, giveBack, broken: false, server };
    let isRefused = false;
    try {
      if (bornAt(client) >= server.outdatedSince) {
        const known = { client, server, recycling, purpose, bornAt: bornAt(client), isNew: isNew(client) };
        if (!known.isNew && isLentUnasked(known)) return lease;
        const asked = check(known, dataSource);
        const verdict = await inTime(client, asked, acquireTimeoutOf(dataSource, pool), signal);
        if (verdict === 'lend') return lease;
        isRefused = verdict === 'refuse';
      }
      lease.broken = true;
    } catch (error) {
      const failure = await learnFailure(lease, error);
      lease.broken = true;
      const isLate = error instanceof NoAnswerError;
      if (isLate || !failure?.isLost || left <= 0) {
        returnClient(lease);
        signal?.throwIfAborted();
        throw isLate || failure?.isLost ? unavailable(error) : error;
      }
    }
    returnClient(lease);
    if (isRefused) throw new DatabaseUnavailableError(new Error(TAKES_NO_WRITES), READ_ONLY_SQL_TRANSACTION);
  }
}

/** The reason where a server answers and takes no writes. */
export const TAKES_NO_WRITES = 'takes no writes (read only or a standby)';

/** Asks a client what has to be known before it is lent, and whether it may be. @throws what pg throws */
async function check(known: CheckedClient, dataSource: DataSource): Promise<Verdict> {
  if (known.isNew) await introduce(known.client, dataSource);
  return checkClient(known);
}

/**
 * Why the database can't be written to now: in its own words where it refuses us. A connection whose server takes no writes is
 * closed, and the others are asked before they are lent again.
 *
 * @param atMostMs what does not answer in that time is not waited for any longer
 * @returns undefined where it takes writes
 */
export async function whyNoWrites(dataSource: DataSource, atMostMs: number): Promise<string | undefined> {
  const signal = AbortSignal.timeout(atMostMs);
  try {
    const lease = await borrowClient(dataSource, 'fast', { purpose: 'read', signal });
    const onAbort = () => cutConnection(lease);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      if (await takesWrites(lease.client)) return undefined;
      lease.broken = true;
      lease.server.writesFailed();
      return TAKES_NO_WRITES;
    } catch (error) {
      await learnFailure(lease, error);
      throw error;
    } finally {
      signal.removeEventListener('abort', onAbort);
      returnClient(lease);
    }
  } catch (error) {
    if (signal.aborted) return `no answer within ${atMostMs} ms`;
    return wordsOf(error);
  }
}

/** What the server or the system has said, rather than what we make of it. */
export function wordsOf(error: unknown): string {
  const { cause } = error as Error;
  const told = error instanceof DatabaseUnavailableError && cause instanceof Error ? cause : (error as Error);
  return told.message || told.name;
}

/**
 * A client with the pool's settings that is none of the pool's, to be ended by the caller: for what must get through when
 * every client of the pool waits for it.
 *
 * @param signal cuts its connection, whatever it waits for
 * @param use stands behind the application's name, for who looks at the server's connections
 * @throws what pg throws
 */
export async function connectBeside(dataSource: DataSource, signal: AbortSignal, use = ''): Promise<Client> {
  const { Client: PoolsClient, options } = poolOf(dataSource) as Pool & { Client: typeof Client };
  const client = new PoolsClient({
    ...options,
    application_name: `${options.application_name ?? ''} ${use}`.trim(),
  });
  // Its queries say as much.
  client.on('error', () => undefined);
  markFailures(client);
  const onAbort = () => cutConnectionOf(client);
  signal.addEventListener('abort', onAbort, { once: true });
  client.once('end', () => signal.removeEventListener('abort', onAbort));
  await client.connect();
  signal.throwIfAborted();
  return client;
}

/** Gives a client back to the pool, or closes it when it is `broken`. */
export function returnClient({ client, giveBack, broken }: Lease): void {
  // The pool drops a client that is ending. Its farewell may fail, as the connection is lost already.
  if (broken) (client as unknown as Client).end().catch(() => undefined);
  giveBack();
}

/** What the client said when its connection was lost while nobody waited for an answer (an idle timeout, a kill). */
export const lostBecause = ({ client }: Lease): Error | undefined => lossOf(client);

/** Cuts the connection of a client, whatever it waits for; that ends with an error. */
export function cutConnection(lease: Lease): void {
  lease.broken = true;
  cutConnectionOf(lease.client);
}
