import type { Client } from 'pg';
import type { DataSource } from 'typeorm';
import { connectBeside } from '../../database/pooled-client.js';
import { tableIn } from '../../database/table-name.js';

/** What waits in the database, of all that use its tables. */
export interface StoreFigures {
  /** Events and dead letters in the outbox: counted up to 10,000, above that as many as PostgreSQL estimates. */
  outboxEvents: number;
  /** Those of them that were refused, or wait behind one that was; up to 10,000. */
  outboxDelayed: number;
  /** Since the oldest of them was written, in s; 0 where there is none. */
  outboxOldestSeconds: number;
  /** Rows of the inbox as PostgreSQL estimates them; undefined before it has done so for the first time. */
  inboxRows: number | undefined;
  /** Of the inbox with its indexes. */
  inboxBytes: number;
  /** Of each topic the oldest 10,000 are counted. */
  deadLetters: readonly { topic: string; code: string; state: string; letters: number }[];
  /** Keys that wait for a dead letter to be replayed or discarded; up to 10,000. */
  keysHeld: number;
  /** Keys whose messages wait in the database to be handled by themselves; up to 10,000. */
  keysWaiting: number;
  /** Instances that have given a sign of life in the last 10 s. */
  instances: number;
}

/** So many rows are counted: of what has piled up, nobody has to know more exactly how much it is. */
const COUNTED = 10_000;
const TOPICS_AT_MOST = 100;
const LIMIT_MS = 1000;

/**
 * Reads them on a connection of their own: what is short of connections, or waits for locks, is what somebody looks at metrics for.
 *
 * @param signal cuts the connection
 * @throws Error the database can't be reached, or does not answer within a second
 */
export async function readStoreFigures(dataSource: DataSource, signal: AbortSignal): Promise<StoreFigures> {
  const client = await connectBeside(dataSource, signal);
  try {
    // In one message and one transaction, so that the limits end with it, also behind a pooler.
    const answers = (await client.query(
      `BEGIN READ ONLY; SET LOCAL statement_timeout = ${LIMIT_MS}; SET LOCAL lock_timeout = ${LIMIT_MS}; ${question(dataSource, client)}; COMMIT`,
    )) as unknown as { rows: unknown[] }[];
    const [row] = answers.at(-2)!.rows as [FiguresRow];
    return {
      outboxEvents: row.outbox > COUNTED ? Math.max(row.outbox, row.outbox_estimate) : row.outbox,
      outboxDelayed: Math.min(row.delayed, COUNTED),
      outboxOldestSeconds: Math.max(0, row.oldest_seconds ?? 0),
      inboxRows: row.inbox_estimate < 0 ? undefined : row.inbox_estimate,
      inboxBytes: row.inbox_bytes,
      deadLetters: row.letters,
      keysHeld: row.held,
      keysWaiting: row.waiting,
      instances: row.instances,
    };
  } finally {
    // Where its connection is cut there is nobody to say good-bye to.
    await client.end().catch(() => undefined);
  }
}

interface FiguresRow {
  outbox: number;
  outbox_estimate: number;
  delayed: number;
  oldest_seconds: number | null;
  inbox_estimate: number;
  inbox_bytes: number;
  letters: StoreFigures['deadLetters'];
  held: number;
  waiting: number;
  instances: number;
}

/**
 * One statement that reads little, whatever has piled up. Rows are looked for in the order of an index: a table that was emptied
 * may be large all the same, and reading it from its beginning takes long.
 */
function question(dataSource: DataSource, client: Pick<Client, 'escapeLiteral'>): string {
  const outbox = tableIn(dataSource, 'message_outbox');
  const inbox = tableIn(dataSource, 'message_inbox');
  const letters = tableIn(dataSource, 'message_dead_letter');
  const quarantines = tableIn(dataSource, 'message_quarantine');
  const instances = tableIn(dataSource, 'message_instance');
  const counted = (rows: string) =>
    `(SELECT count(*)::int FROM (SELECT ${rows} LIMIT ${COUNTED + 1}) counted)`;
  const literal = (text: string) => client.escapeLiteral(text);
  const estimate = (table: string) =>
    `(SELECT reltuples::float8 FROM pg_class WHERE oid = ${literal(table)}::regclass)`;
  const waits = `state IN ('dead', 'parked')`;
  return `WITH RECURSIVE topics AS (
      (SELECT topic, 1 AS place FROM ${letters} WHERE ${waits} ORDER BY topic LIMIT 1) UNION ALL
      SELECT n.topic, t.place + 1 FROM topics t,
        LATERAL (SELECT topic FROM ${letters} WHERE ${waits} AND topic > t.topic ORDER BY topic LIMIT 1) n
      WHERE t.place < ${TOPICS_AT_MOST}),
    letters AS (SELECT t.topic, d.code, d.state, count(*)::int AS letters FROM topics t,
      LATERAL (SELECT code, state FROM ${letters} WHERE ${waits} AND topic = t.topic ORDER BY topic, seq LIMIT ${COUNTED}) d
      GROUP BY t.topic, d.code, d.state)
    SELECT ${counted(`FROM ${outbox} ORDER BY shard, seq`)} AS outbox, ${estimate(outbox)} AS outbox_estimate,
      ${counted(`FROM ${outbox} WHERE next_attempt_at IS NOT NULL`)} AS delayed,
      (SELECT extract(epoch FROM clock_timestamp() - min(o.created_at))::float8 FROM generate_series(0, 15) s,
        LATERAL (SELECT created_at FROM ${outbox} WHERE shard = s::smallint ORDER BY shard, seq LIMIT 1) o) AS oldest_seconds,
      ${estimate(inbox)} AS inbox_estimate, pg_total_relation_size(${literal(inbox)}::regclass)::float8 AS inbox_bytes,
      (SELECT coalesce(json_agg(l ORDER BY letters DESC), '[]') FROM letters l) AS letters,
      ${counted(`FROM ${quarantines} WHERE released_at IS NULL`)} AS held,
      ${counted(`FROM ${quarantines} WHERE released_at IS NOT NULL`)} AS waiting,
      (SELECT count(*)::int FROM ${instances} WHERE seen_at > now() - interval '10 s') AS instances`;
}
