import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { DataSource } from 'typeorm';
import { connectBeside } from '../../database/pooled-client.js';
import { failureOf, failureOn } from '../../database/database-failure.js';
import { type Fault, faultOf } from '../../database/faults.js';
import { KnownServer } from '../../database/known-server.js';
import { statusQuery } from '../../database/transaction-ids.js';
import type { CommitTicket } from '../session/commit-ticket.js';

export type CommitOutcome = 'committed' | 'aborted' | 'unknown';

/** For one question, also where there is no time left. */
const ASK_AT_LEAST_MS = 1000;
const FIRST_POLL_MS = 10;
const MOST_POLL_MS = 250;

type Answer = CommitOutcome | 'in progress';

/**
 * Asks the server what became of a transaction whose COMMIT was lost (https://www.postgresql.org/docs/current/functions-info.html,
 * `pg_xact_status`). A transaction that had written nothing counts as aborted: there is nothing that could be applied twice.
 *
 * @param atMostMs how long to ask before giving up; a server that hangs is not waited for any longer
 */
export async function resolveCommit(
  dataSource: DataSource,
  ticket: CommitTicket,
  atMostMs: number,
): Promise<CommitOutcome> {
  const { xid } = ticket;
  if (xid === null) return 'aborted';
  return askUntilKnown(dataSource, atMostMs, async (client, isLate) => {
    const { status, isOurs } = await statusNow(client, dataSource, ticket);
    if (status === 'aborted') return 'aborted';
    // Of a stranger that a recovery may have given the id to, or of a standby, which can't decide yet.
    if (!isOurs) return status === 'in progress' ? 'in progress' : 'unknown';
    if (status === 'in progress' && isLate) await endIfCommitNeverCame(client, xid);
    // Null: too old to be told.
    return status ?? 'unknown';
  });
}

/** What the server says of an id now, and whether it is still the one that gave it out. */
async function statusNow(
  client: Client,
  dataSource: DataSource,
  { xid, incarnation }: CommitTicket,
): Promise<{ status: Answer | null; isOurs: boolean }> {
  const { transactionIds } = KnownServer.of(dataSource);
  const question = statusQuery(dataSource.driver.version ?? '', transactionIds || undefined);
  const { rows } = await client.query<{ status: Answer | null; incarnation: string }>(question, [xid]);
  const now = rows[0]!;
  return { status: now.status, isOurs: now.incarnation === incarnation };
}

/**
 * Ends the session of a transaction whose COMMIT never came, where the server is still the one that gave it its id, and has not
 * noticed that the session's client is gone.
 */
export async function endLeftSession(
  client: Client,
  dataSource: DataSource,
  ticket: CommitTicket,
): Promise<void> {
  if (ticket.xid === null) return;
  const { status, isOurs } = await statusNow(client, dataSource, ticket);
  if (isOurs && status === 'in progress') await endIfCommitNeverCame(client, ticket.xid);
}

/**
 * Asks again and again while the answer is that the transaction is still in progress, or the server is away: on a connection
 * beside the pool, as the lost transaction may still hold locks, and every client of the pool wait for them.
 *
 * @param ask is told whether the transaction has had its time to end by itself
 */
export async function askUntilKnown(
  dataSource: DataSource,
  atMostMs: number,
  ask: (client: Client, isLate: boolean) => Promise<Answer>,
): Promise<CommitOutcome> {
  const deadline = performance.now() + atMostMs;
  const over = new AbortController();
  const timer = setTimeout(() => over.abort(), Math.max(atMostMs, ASK_AT_LEAST_MS));
  let client: Client | undefined;
  try {
    for (let wait = FIRST_POLL_MS; ; wait = Math.min(MOST_POLL_MS, wait * 2)) {
      let answer: Answer;
      try {
        client ??= await connectBeside(dataSource, over.signal);
        answer = await ask(client, wait >= MOST_POLL_MS);
      } catch (error) {
        // What the server has said of the question itself, it will say again.
        answer = client && (await isAnswered(client, error)) ? 'unknown' : 'in progress';
        client = end(client);
      }
      if (answer !== 'in progress') return answer;
      if (over.signal.aborted || performance.now() + wait > deadline) return 'unknown';
      await sleep(wait);
    }
  } finally {
    clearTimeout(timer);
    end(client);
  }
}

const MAY_PASS: readonly Fault[] = ['server', 'conflict', 'timeout'];

async function isAnswered(client: Client, error: unknown): Promise<boolean> {
  await failureOn(client, error);
  const { postgres, isLost } = failureOf(error) ?? {};
  return postgres !== undefined && !isLost && !MAY_PASS.includes(faultOf(postgres));
}

/**
 * A server that has not noticed the loss of the connection waits for a COMMIT that never comes, and keeps the locks. Ending
 * such a session decides the outcome; one that has its COMMIT is not idle and is left alone.
 */
async function endIfCommitNeverCame(client: Client, xid: string): Promise<void> {
  const ending = client.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE backend_xid::text = ($1::bigint % 4294967296)::text AND state LIKE 'idle in transaction%'`,
    [xid],
  );
  // Where it may not be ended, or can't, it is waited for.
  await ending.catch(async (error: unknown) => {
    if ((await failureOn(client, error))?.isLost ?? true) throw error;
  });
}

/** Its farewell may fail, as the connection may be lost. */
function end(client: Client | undefined): undefined {
  client?.end().catch(() => undefined);
}
