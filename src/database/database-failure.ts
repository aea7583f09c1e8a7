import type { Client, PoolClient } from 'pg';
import { connectionOf, hasReadTimeout, isUsable, runsPrepared } from './pg/internals.js';

/** What pg parses out of an ErrorResponse message. */
export interface PostgresError extends Error {
  code: string;
  severity: string;
  detail?: string;
  constraint?: string;
  column?: string;
  table?: string;
  /** The function of the server that complains: not translated, as texts are. */
  routine?: string;
  /** Context of the failure; COPY names the line here. */
  where?: string;
}

/** How a statement failed, as the connection knows on which it was sent. */
export interface DatabaseFailure {
  /** What the server, or a pooler before it, said; undefined where nobody said anything. */
  readonly postgres: PostgresError | undefined;
  /** True when the connection ended with it: nobody knows whether the statement was done. */
  readonly isLost: boolean;
  /**
   * True when nothing of the statement was done, as its connection has not prepared what the client believes: somebody has
   * discarded it, a pooler has handed on another connection, or a table has changed under it.
   */
  readonly isOutdated?: boolean;
  /** The connection that had it; undefined where none could be had. */
  readonly connection: object | undefined;
}

type Told = { -readonly [Key in keyof DatabaseFailure]: DatabaseFailure[Key] };

/** Keyed by the error object itself: what another client of the process throws is not ours, however alike it looks. */
const failures = new WeakMap<object, Told>();
/** The connections' last errors that no ReadyForQuery has followed yet. */
const unsettled = new WeakMap<object, Told>();

/**
 * The failure of the database that `error` is, or that TypeORM wrapped in it; undefined for an error of any other origin.
 */
export function failureOf(error: unknown): DatabaseFailure | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  const { driverError } = error as { driverError?: unknown };
  return failures.get(error) ?? failures.get(Object(driverError) as object);
}

/** True when `error` is a failure with one of these SQLSTATEs. */
export function hasSqlState(error: unknown, ...codes: readonly string[]): boolean {
  const code = failureOf(error)?.postgres?.code;
  return code !== undefined && codes.includes(code);
}

// Said by a server that goes away, by a pooler that has lost its server, or by one that doesn't know the outcome itself: some
// poolers keep the client's connection and send a ReadyForQuery of their own.
const SAYS_LOST = /^(08...|57P0[1-5]|40003)$/;
/** How long the end of an answer is waited for. It comes with the error, unless the connection ends. */
const SETTLED_MS = 1000;

/** Marks the errors of a client where they arrive, before anybody sees them. To be called once per client. */
export function markFailures(client: Client | PoolClient): void {
  // A client of several hosts has another connection once it is connected, and takes the listeners there.
  const first = connectionOf(client);
  first.prependListener('errorMessage', (postgres: PostgresError) => {
    const connection = connectionOf(client);
    // A server that goes on sends ReadyForQuery next. Until then this may be the last that the connection says.
    const told = {
      postgres,
      isLost: true,
      isOutdated: isOutdated(postgres, runsPrepared(client)),
      connection,
    };
    failures.set(postgres, told);
    unsettled.set(connection, told);
  });
  first.prependListener('readyForQuery', () => {
    const connection = connectionOf(client);
    const told = unsettled.get(connection);
    if (told) told.isLost = SAYS_LOST.test(told.postgres?.code ?? '');
    unsettled.delete(connection);
  });
}

/** Says `cached plan must not change result type` of a table that was changed, under a code that means many things. */
const CACHED_PLAN = 'RevalidateCachedQuery';
/** What the server says when it plans again what was prepared, and the types of a changed table do not fit the parameters. */
const MISFITS = ['42804', '42883', '42725', '42846', '42P08', '42P18'];

function isOutdated({ code, routine }: PostgresError, wasPreparedBefore: boolean): boolean {
  if (code === '0A000') return routine === CACHED_PLAN;
  return code === '26000' || code === '42P05' || (wasPreparedBefore && MISFITS.includes(code));
}

/**
 * Marks an error as the loss of a connection, or of the chance to have one.
 *
 * @param cause what the server said when it let nobody in, if it said something
 * @param connection the one that was lost
 */
export function markLost(error: object, cause?: unknown, connection?: object): void {
  if (failures.has(error)) return;
  const isSaid = typeof (cause as { severity?: unknown } | undefined)?.severity === 'string';
  const postgres = isSaid ? (cause as PostgresError) : undefined;
  failures.set(error, { postgres, isLost: true, connection });
}

/** True when it is a failure of this client's connection. */
export const isFailureOf = (client: Client | PoolClient, error: unknown): boolean =>
  failureOf(error)?.connection === connectionOf(client);

/**
 * What it was that ended a statement on `client`, which `markFailures` knows.
 *
 * @returns undefined when the statement never left the process, as pg can't send its values
 */
export async function failureOn(
  client: Client | PoolClient,
  error: unknown,
): Promise<DatabaseFailure | undefined> {
  const known = failures.get(Object(error) as object);
  if (known?.isLost) await untilSettled(client, known);
  if (known) return known;
  // With a query_timeout pg may have stopped waiting for an answer that comes yet.
  if (isUsable(client) && !hasReadTimeout(client)) return undefined;
  const connection = connectionOf(client);
  if (typeof error === 'object' && error !== null) markLost(error, undefined, connection);
  return { postgres: undefined, isLost: true, connection };
}

function untilSettled(client: Client | PoolClient, told: Told): Promise<void> {
  const connection = connectionOf(client);
  if (unsettled.get(connection) !== told || connection.stream.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      connection.off('readyForQuery', done).off('end', done);
      resolve();
    };
    const timer = setTimeout(done, SETTLED_MS);
    connection.on('readyForQuery', done).on('end', done);
  });
}
