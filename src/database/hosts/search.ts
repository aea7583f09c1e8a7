// database/hosts/: Which of several hosts takes writes.
// Promises: one that says nothing costs a head start, not the whole time; the pool sees one client.
// May know: pg, and the URL of a database.

import pg, { type Client, type ClientConfig } from 'pg';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PostgresError } from '../database-failure.js';
import { hostOf } from '../database-url.js';
import { cutConnectionOf } from '../pg/internals.js';
import { READ_ONLY_SQL_TRANSACTION, TOO_MANY_CONNECTIONS } from '../postgres-errors.js';

/** A host that says nothing is given so long a start before the next one is asked as well. */
const HEAD_START_MS = 500;
/** Of the time that there is: what is left lets the failure be told before the pool gives up. */
const PART_OF_TIME = 0.9;

/** What a search works with. */
export interface HostSearch {
  /** The URLs of the hosts, those first that are asked first. */
  urls: readonly string[];
  /** The settings of the connection, for each host. */
  config: ClientConfig;
  /** How long the search may take, in ms; 0: for ever. */
  timeoutMs: number;
  /** Ends the search. */
  signal: AbortSignal;
}

/** A connection to a host that takes writes. */
export interface FoundHost {
  url: string;
  client: Client;
}

/**
 * Connects to the first host that takes writes, as libpq does with `target_session_attrs=read-write`; but one that hangs doesn't keep
 * the next ones waiting.
 *
 * @throws Error naming each host and why it is not the one, with the SQLSTATE of the server that says most
 */
export async function findHost({ urls, config, timeoutMs, signal }: HostSearch): Promise<FoundHost> {
  const over = new AbortController();
  const end = (reason: unknown) => over.abort(reason);
  const onAbort = () => end(new Error('given up'));
  signal.addEventListener('abort', onAbort, { once: true });
  const atMostMs = timeoutMs * PART_OF_TIME;
  const timer =
    timeoutMs > 0 && setTimeout(() => end(new Error(`no answer in ${Math.round(atMostMs)} ms`)), atMostMs);
  const headStartMs = timeoutMs > 0 ? Math.min(HEAD_START_MS, atMostMs / (2 * urls.length)) : HEAD_START_MS;
  const tries: Promise<FoundHost>[] = [];
  try {
    for (const url of urls) {
      if (over.signal.aborted) break;
      tries.push(connectTo(url, config, over.signal));
      const all = Promise.any(tries);
      const isFound = all.then(() => true, () => false); // prettier-ignore
      if (await Promise.race([isFound, sleep(headStartMs, false, { ref: false })])) break;
    }
    const found = await Promise.any(tries);
    for (const each of tries) each.then(({ client }) => client === found.client || cutConnectionOf(client), () => undefined); // prettier-ignore
    return found;
  } catch (error) {
    throw noneTakesWrites(urls, (error as AggregateError).errors);
  } finally {
    if (timer) clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
    end(new Error('another one was found'));
  }
}

/** @throws why it is not the one */
async function connectTo(url: string, config: ClientConfig, signal: AbortSignal): Promise<FoundHost> {
  const client = new pg.Client({ ...config, connectionString: url, connectionTimeoutMillis: 0 });
  let last: unknown;
  // Its last words may come with the answer, when nobody waits for any.
  client.on('error', (error) => (last ??= error));
  const onAbort = () => cutConnectionOf(client, signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    await client.connect();
    // What libpq asks where the server doesn't tell by itself; it covers a standby, and a default of the server, database or role.
    const { rows } = await client.query<{ transaction_read_only: string }>('SHOW transaction_read_only');
    signal.throwIfAborted();
    if (last) throw last as Error;
    if (rows[0]?.transaction_read_only !== 'off') throw takesNoWrites();
    return { url, client };
  } catch (error) {
    cutConnectionOf(client);
    throw signal.aborted ? signal.reason : error;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** In the words of a server, as it is the server that says so. */
const takesNoWrites = (): Error =>
  Object.assign(new Error('takes no writes (read only or a standby)'), {
    code: READ_ONLY_SQL_TRANSACTION,
    severity: 'FATAL',
  });

function noneTakesWrites(urls: readonly string[], errors: readonly unknown[]): Error {
  const reasons = urls.map((url, index) => `${hostOf(url)}: ${reasonOf(errors[index])}`);
  const said = errors
    .filter(
      (error): error is PostgresError => typeof (error as PostgresError | undefined)?.severity === 'string',
    )
    .sort((one, other) => rank(one) - rank(other));
  const error = new Error(`No host of the database takes writes (${reasons.join('; ')})`, {
    cause: said[0] ?? errors[0],
  });
  return said[0] ? Object.assign(error, { code: said[0].code, severity: said[0].severity }) : error;
}

/** One that has no connection left may have one soon; one that takes no writes is as it should be where another one does. */
const rank = ({ code }: PostgresError) =>
  code === TOO_MANY_CONNECTIONS ? 0 : code === READ_ONLY_SQL_TRANSACTION ? 2 : 1;

/** An error of several addresses of one name has no text of its own. */
function reasonOf(error: unknown): string {
  const { message, errors } = Object(error) as Partial<AggregateError>;
  if (!message && errors) return errors.map(reasonOf).join(', ');
  return message ?? 'not asked any more';
}
