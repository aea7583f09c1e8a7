import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { DataSource } from 'typeorm';
import { preparedName } from '../database/prepared-name.js';
import { connectBeside } from '../database/pooled-client.js';
import { failureOf, failureOn } from '../database/database-failure.js';
import { faultOf } from '../database/faults.js';

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

// Statistics survive a clean stop and are reset by crash recovery; there is no nearer thing that every role may read.
const INCARNATION = 'extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time())';

const asking = (currentId: string) => `SELECT concat(${currentId}(), '/', ${INCARNATION})`;
const TICKET = asking('pg_current_xact_id_if_assigned');
const TICKET_BEFORE_13 = asking('txid_current_if_assigned');

/** One row, one column: the transaction's id, empty while it has none, and the server's incarnation. */
export const ticketQuery = (serverVersion: string): string =>
  Number.parseInt(serverVersion) >= 13 ? TICKET : TICKET_BEFORE_13;

const NAMES = new Map(
  [TICKET, TICKET_BEFORE_13].map((text) => [text, preparedName('nestjs_people_ticket', text)]),
);

/** `ticketQuery`, to be prepared. */
export function ticketStatement(serverVersion: string): { name: string; text: string } {
  const text = ticketQuery(serverVersion);
  return { name: NAMES.get(text)!, text };
}

/** What `ticketQuery` gave, taken apart. */
export function readTicket(column: string | null): CommitTicket {
  const [xid, incarnation = ''] = (column ?? '').split('/');
  return { xid: xid === '' || xid === undefined ? null : xid, incarnation };
}

/** For one question, also where there is no time left. */
const ASK_AT_LEAST_MS = 1000;
const FIRST_POLL_MS = 10;
const MOST_POLL_MS = 250;

/**
 * Asks the server what became of a transaction whose COMMIT was lost (https://www.postgresql.org/docs/current/functions-info.html,
 * `pg_xact_status`), again and again while it is still in progress or the server is away. A transaction that had written
 * nothing counts as aborted: there is nothing that could be applied twice.
 *
 * It asks on a connection beside the pool: the lost transaction may still hold locks, and every client of the pool wait for
 * them.
 *
 * @param atMostMs how long to ask before giving up; a server that hangs is not waited for any longer
 */
export async function resolveCommit(
  dataSource: DataSource,
  { xid, incarnation }: CommitTicket,
  atMostMs: number,
): Promise<CommitOutcome> {
  if (xid === null) return 'aborted';
  const deadline = performance.now() + atMostMs;
  const over = new AbortController();
  const timer = setTimeout(() => over.abort(), Math.max(atMostMs, ASK_AT_LEAST_MS));
  let client: Client | undefined;
  try {
    for (let wait = FIRST_POLL_MS; ; wait = Math.min(MOST_POLL_MS, wait * 2)) {
      let outcome: CommitOutcome | 'in progress';
      try {
        client ??= await connectBeside(dataSource, over.signal);
        outcome = await outcomeNow(client, dataSource, xid, incarnation);
        if (outcome === 'in progress' && wait >= MOST_POLL_MS) await endIfCommitNeverCame(client, xid);
      } catch (error) {
        // What the server has said of the question itself, it will say again.
        outcome = client && (await isAnswered(client, error)) ? 'unknown' : 'in progress';
        client = end(client);
      }
      if (outcome !== 'in progress') return outcome;
      if (over.signal.aborted || performance.now() + wait > deadline) return 'unknown';
      await sleep(wait);
    }
  } finally {
    clearTimeout(timer);
    end(client);
  }
}

async function isAnswered(client: Client, error: unknown): Promise<boolean> {
  await failureOn(client, error);
  const { postgres, isLost } = failureOf(error) ?? {};
  return postgres !== undefined && !isLost && faultOf(postgres) !== 'server';
}

async function outcomeNow(
  client: Client,
  { driver: { version = '' } }: DataSource,
  xid: string,
  incarnation: string,
): Promise<CommitOutcome | 'in progress'> {
  const status =
    Number.parseInt(version) >= 13 ? 'pg_xact_status($1::text::xid8)' : 'txid_status($1::bigint)';
  const { rows } = await client.query<{ status: CommitOutcome | 'in progress' | null; incarnation: string }>(
    `SELECT ${status} AS status, concat(${INCARNATION}) AS incarnation`,
    [xid],
  );
  const now = rows[0]!;
  if (now.status === 'aborted') return 'aborted';
  // Too old to be told, or of a stranger that a recovery may have given the id to.
  return now.incarnation === incarnation ? (now.status ?? 'unknown') : 'unknown';
}

/**
 * A server that has not noticed the loss of the connection waits for a COMMIT that never comes, and keeps the locks. Ending
 * such a session decides the outcome; one that has its COMMIT is not idle and is left alone.
 */
async function endIfCommitNeverCame(client: Client, xid: string): Promise<void> {
  await client.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE backend_xid::text = ($1::bigint % 4294967296)::text AND state LIKE 'idle in transaction%'`,
    [xid],
  );
}

/** Its farewell may fail, as the connection may be lost. */
function end(client: Client | undefined): undefined {
  client?.end().catch(() => undefined);
}
