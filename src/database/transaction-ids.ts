import type { PoolClient } from 'pg';
import { hasSqlState } from './database-failure.js';

/** A function of PostgreSQL 13, or what it was called before. */
const since13 = (serverVersion: string, now: string, before: string): string =>
  Number.parseInt(serverVersion) >= 13 ? now : before;

/** What a server can say of its transactions. */
export interface TransactionIds {
  /** It also tells on which timeline its WAL is. */
  hasTimeline: boolean;
}

// Statistics survive a clean stop and are reset by crash recovery; there is no nearer thing that every role may read.
const RESET_TIME = 'extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time())';
// A standby that was copied from its primary has them too, and once it is promoted it may give out ids again that have not come to
// it: then its WAL is on a timeline of its own. (`pg_control_checkpoint` would tell of that only after the next checkpoint.)
const TIMELINE = `CASE WHEN NOT pg_is_in_recovery() THEN '-' || left(pg_walfile_name(pg_current_wal_lsn()), 8) END`;

/** Names the server's life between two recoveries, as arguments of `concat`. */
const incarnation = ({ hasTimeline }: TransactionIds): string =>
  hasTimeline ? `${RESET_TIME}, ${TIMELINE}` : RESET_TIME;

const FULL: TransactionIds = { hasTimeline: true };

/** One row, one column: the transaction's id, empty while it has none, and the server's incarnation. */
export const ticketQuery = (serverVersion: string, ids: TransactionIds = FULL): string =>
  `SELECT concat(${since13(serverVersion, 'pg_current_xact_id_if_assigned', 'txid_current_if_assigned')}(), '/', ${incarnation(ids)})`;

/** The same, and a transaction that has no id is given one: for one that will write. A standby gives none. */
export const assigningTicketQuery = (serverVersion: string, ids: TransactionIds = FULL): string =>
  `SELECT concat(CASE WHEN NOT pg_is_in_recovery() THEN ${since13(serverVersion, 'pg_current_xact_id', 'txid_current')}() END, '/', ${incarnation(ids)})`;

/**
 * One row: what became of the transaction with the id $1, as `status`, and the server's incarnation. A standby decides nothing:
 * it may lag, and it may be promoted.
 */
export const statusQuery = (serverVersion: string, ids: TransactionIds = FULL): string => {
  const status = since13(serverVersion, 'pg_xact_status($1::text::xid8)', 'txid_status($1::bigint)');
  return `SELECT ${ids.hasTimeline ? `CASE WHEN pg_is_in_recovery() THEN 'in progress' ELSE ${status} END` : status} AS status,
     concat(${incarnation(ids)}) AS incarnation`;
};

/** It has no such function or type, it is not supported, or not for this role; 42601: it can't even read it. */
const ABSENT = ['0A000', '55000', '42883', '42704', '42501', '42601', '42P01', '42703', '3F000'];

/** An id that is as old as any: nothing is known of it, but it may be asked for. */
const OLDEST_ID = '3';

/**
 * What the server can say of transactions by their ids. Asks the very questions: engines that speak PostgreSQL's language often
 * lack the functions, and services that run it for others refuse those about the WAL.
 *
 * @returns false where it can say nothing; undefined where the answer is about something else: it took too long, the server is
 *   short of something
 * @throws what pg throws when the connection is lost
 */
export async function askTransactionIds(
  client: PoolClient,
  serverVersion: string,
  isLost: (error: unknown) => Promise<boolean>,
): Promise<TransactionIds | false | undefined> {
  let answer: TransactionIds | false | undefined;
  for (const ids of [FULL, { hasTimeline: false }]) {
    try {
      await client.query(ticketQuery(serverVersion, ids));
      await client.query(statusQuery(serverVersion, ids), [OLDEST_ID]);
      return ids;
    } catch (error) {
      if (await isLost(error)) throw error;
      answer = hasSqlState(error, ...ABSENT) ? false : undefined;
    }
  }
  return answer;
}
