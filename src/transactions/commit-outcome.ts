import { setTimeout as sleep } from 'node:timers/promises';
import type { DataSource } from 'typeorm';
import { withClient } from '../database/pooled-client.js';
import { findPostgresError, isConnectionFailure, PoolExhaustedError } from '../database/postgres-errors.js';
import { ApplicationError } from '../errors/application-error.js';

/** What is remembered of a transaction before COMMIT, to ask for its outcome afterwards. */
export interface CommitTicket {
  /** PostgreSQL's transaction id (xid8); null when the transaction had written nothing. */
  xid: string | null;
  /**
   * Names the server's life between two crash recoveries. A crash may forget ids that had been given out, and give them to
   * other transactions: what `pg_xact_status` says of an id then need not be about ours.
   */
  incarnation: string;
}

export type CommitOutcome = 'committed' | 'aborted' | 'unknown';

/** One row, one column: the transaction's id, empty while it has none, and the server's incarnation. */
export function ticketQuery(serverVersion: string): string {
  const current =
    Number.parseInt(serverVersion) >= 13 ? 'pg_current_xact_id_if_assigned' : 'txid_current_if_assigned';
  return `SELECT concat(${current}(), '/', ${INCARNATION})`;
}

/** What `ticketQuery` gave, taken apart. */
export function readTicket(column: string | null): CommitTicket {
  const [xid, incarnation = ''] = (column ?? '').split('/');
  return { xid: xid === '' || xid === undefined ? null : xid, incarnation };
}

// Statistics survive a clean stop and are reset by crash recovery; there is no nearer thing that every role may read.
const INCARNATION = 'extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time())';

const FIRST_POLL_MS = 10;
const MOST_POLL_MS = 250;

/**
 * Asks the server what became of a transaction whose COMMIT was lost (https://www.postgresql.org/docs/current/functions-info.html,
 * `pg_xact_status`), again and again while it is still in progress or the server is away. A transaction that had written
 * nothing counts as aborted: there is nothing that could be applied twice.
 *
 * @param atMostMs how long to ask before giving up
 */
export async function resolveCommit(
  dataSource: DataSource,
  { xid, incarnation }: CommitTicket,
  atMostMs: number,
): Promise<CommitOutcome> {
  if (xid === null) return 'aborted';
  const deadline = Date.now() + atMostMs;
  for (let wait = FIRST_POLL_MS; ; wait = Math.min(MOST_POLL_MS, wait * 2)) {
    try {
      const now = await statusOf(dataSource, xid);
      const sameLife = now.incarnation === incarnation;
      if (now.status === 'committed') return sameLife ? 'committed' : 'unknown';
      if (now.status === 'aborted') return 'aborted';
      // Too old to be told, or a stranger that a recovery gave the id to.
      if (now.status === null || !sameLife) return 'unknown';
      if (wait >= MOST_POLL_MS) await endIfCommitNeverCame(dataSource, xid);
    } catch (error) {
      if (!mayPass(error)) return 'unknown';
    }
    if (Date.now() + wait > deadline) return 'unknown';
    await sleep(wait);
  }
}

async function statusOf(dataSource: DataSource, xid: string) {
  const { version = '' } = dataSource.driver;
  const status =
    Number.parseInt(version) >= 13 ? 'pg_xact_status($1::text::xid8)' : 'txid_status($1::bigint)';
  return withClient(dataSource, 'fast', async ({ client }) => {
    const { rows } = await client.query<{ status: string | null; incarnation: string }>(
      `SELECT ${status} AS status, concat(${INCARNATION}) AS incarnation`,
      [xid],
    );
    return rows[0]!;
  });
}

/**
 * A server that has not noticed the loss of the connection waits for a COMMIT that never comes, and keeps the locks. Ending
 * such a session decides the outcome; one that has its COMMIT is not idle and is left alone.
 */
async function endIfCommitNeverCame(dataSource: DataSource, xid: string): Promise<void> {
  await withClient(dataSource, 'fast', ({ client }) =>
    client.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE backend_xid::text = ($1::bigint % 4294967296)::text AND state LIKE 'idle in transaction%'`,
      [xid],
    ),
  );
}

/** The server is away or busy, which may end; anything else it has said, it will say again. */
function mayPass(error: unknown): boolean {
  if (error instanceof PoolExhaustedError) return true;
  return (
    isConnectionFailure(error) ||
    (error instanceof ApplicationError && findPostgresError(error) === undefined)
  );
}
