import type { PoolClient } from 'pg';
import { failureOn } from './database-failure.js';
import type { KnownServer } from './known-server.js';

/**
 * What is checked when a client comes out of the pool, after deadpool-postgres' `RecyclingMethod`.
 *
 * - `fast`: nothing is asked of the server; the pool drops clients whose connection it saw closing. Once a server has refused to
 *   write, the clients that are older are asked, once each, whether theirs takes writes. The right choice unless connections die
 *   unnoticed (a firewall).
 * - `verified`: asks whether the server takes writes (as libpq's `target_session_attrs=read-write`); a client that doesn't answer,
 *   or whose server is a standby or read only, is replaced, so that none is handed out. Costs one round trip.
 * - `clean`: session state that somebody left (settings, temporary tables, advisory locks, LISTEN, sequences' last values)
 *   is reset first, prepared statements are kept; verifies as well. Costs one longer round trip.
 */
export const RECYCLING_METHODS = ['fast', 'verified', 'clean'] as const;
/**
 * What is checked when a client leaves the pool: nothing (`fast`, a dead one is found when it is used), that it lives (`verified`), or that it
 * lives and its session is as new (`clean`).
 */
export type RecyclingMethod = (typeof RECYCLING_METHODS)[number];

/**
 * What a client is borrowed for: to `write`; to `read` what is there now; or to work `read-only`, in a transaction that says so,
 * for which a standby is as good as a primary.
 */
export type Purpose = 'write' | 'read' | 'read-only';

/** A client may be lent; is to be closed, as another may do; or is new, and another would be no better. */
export type Verdict = 'lend' | 'replace' | 'refuse';

// deadpool's list: everything of DISCARD ALL but DEALLOCATE ALL, as pg believes named statements to live on.
const RESET_SESSION = [
  'CLOSE ALL',
  'SET SESSION AUTHORIZATION DEFAULT',
  'RESET ALL',
  'UNLISTEN *',
  'SELECT pg_advisory_unlock_all()',
  'DISCARD TEMP',
  'DISCARD SEQUENCES',
].join(';');

/** What libpq asks for `target_session_attrs`: covers a standby and `default_transaction_read_only`. */
const QUESTION = 'SHOW transaction_read_only';

/** Reads go on where nothing can be written; but not for longer on one connection, as another server may be in charge by now. */
const READS_FOR_MS = 1000;

/** When a client's server was last found to take writes. */
const foundWritable = new WeakMap<PoolClient, number>();

/** What is known of a client that is about to be lent. */
export interface CheckedClient {
  client: PoolClient;
  server: KnownServer;
  recycling: RecyclingMethod;
  purpose: Purpose;
  /** When its connection was made. */
  bornAt: number;
  /** True when nobody has had it before. */
  isNew: boolean;
}

/** Whether a client may be lent without a question to its server. */
export function isLentUnasked({ client, server, recycling, purpose, bornAt }: CheckedClient): boolean {
  if (recycling !== 'fast') return false;
  return purpose === 'read-only' || Math.max(bornAt, foundWritable.get(client) ?? 0) >= server.suspectSince;
}

/** Checks a client that is about to be lent, as `recycling` says. @throws what pg throws when the connection is lost */
export async function checkClient(checked: CheckedClient): Promise<Verdict> {
  if (isLentUnasked(checked)) return 'lend';
  const { client, recycling, purpose, bornAt, isNew } = checked;
  if (purpose === 'read-only') {
    await client.query(recycling === 'clean' ? RESET_SESSION : '');
    return 'lend';
  }
  const askedAt = performance.now();
  if (await takesWrites(client, recycling === 'clean' ? RESET_SESSION : undefined)) {
    foundWritable.set(client, askedAt);
    return 'lend';
  }
  if (purpose === 'read' && (isNew || askedAt - bornAt < READS_FOR_MS)) return 'lend';
  return isNew ? 'refuse' : 'replace';
}

/**
 * Whether a client's server takes writes: false for a standby, and where transactions are read only by default.
 *
 * @param before statements to be sent with the question
 * @throws what pg throws when the connection is lost
 */
export async function takesWrites(client: PoolClient, before?: string): Promise<boolean> {
  try {
    const answer = await client.query<{ transaction_read_only: string }>(
      before ? `${before};${QUESTION}` : QUESTION,
    );
    const last = Array.isArray(answer) ? (answer as (typeof answer)[]).at(-1)! : answer;
    return last.rows[0]?.transaction_read_only !== 'on';
  } catch (error) {
    // Other engines may not know the question; what can be reset is.
    if (before || ((await failureOn(client, error))?.isLost ?? true)) throw error;
    return true;
  }
}
