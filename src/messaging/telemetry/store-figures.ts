import type { Client } from 'pg';
import type { DataSource } from 'typeorm';
import { failureOf } from '../../database/database-failure.js';
import { connectBeside } from '../../database/pooled-client.js';
import { LOCK_NOT_AVAILABLE, QUERY_CANCELED } from '../../database/postgres-errors.js';
import { tableIn } from '../../database/table-name.js';

/** What waits in the database, of all that use its tables. What takes too long to be counted is undefined. */
export interface StoreFigures {
  outbox: OutboxFigures | undefined;
  /** Dead letters and parked messages; of each topic the oldest 1,000. */
  letters: readonly { topic: string; code: string; state: string; letters: number }[] | undefined;
  /** Rows of the inbox as PostgreSQL estimates them; undefined before it has done so for the first time. */
  inboxRows: number | undefined;
  /** Of the inbox with its indexes. */
  inboxBytes: number;
  /** Keys that wait for a dead letter to be replayed or discarded; up to 10,000. */
  keysHeld: number;
  /** Keys whose messages wait in the database to be handled by themselves; up to 10,000. */
  keysWaiting: number;
  /** Instances that have given a sign of life in the last 10 s. */
  instances: number;
}

export interface OutboxFigures {
  /** Events and dead letters: counted up to 10,000, above that as many as PostgreSQL estimates. */
  events: number;
  /** Those of them that were refused, or wait behind one that was; up to 10,000. */
  delayed: number;
  /** Since the oldest of them was written, in s; 0 where there is none. */
  oldestSeconds: number;
}

/** So many rows are counted: of what has piled up, nobody has to know more exactly how much it is. */
const COUNTED = 10_000;
const TOPICS_AT_MOST = 100;
/** Of each topic; they are wide rows. */
const LETTERS = 1000;
const SHARDS = 16;
/** What each of three questions may take. */
const LIMIT_MS = 300;
/** A planner whose statistics are old would read the whole of a table that is large, or was. */
const SETTINGS = [
  ...['statement_timeout', 'lock_timeout'].map((name) => `SET LOCAL ${name} = ${LIMIT_MS}`),
  ...['seqscan', 'bitmapscan', 'sort'].map((plan) => `SET LOCAL enable_${plan} = off`),
];

/**
 * Reads them on a connection of their own: what is short of connections, or waits for locks, is what somebody looks at metrics for.
 *
 * @param signal cuts the connection
 * @throws Error the database can't be reached, or does not answer in time
 */
export async function readStoreFigures(dataSource: DataSource, signal: AbortSignal): Promise<StoreFigures> {
  const client = await connectBeside(dataSource, signal, 'metrics');
  try {
    const rest = await ask<RestRow>(client, restQuestion(dataSource, client));
    const outbox = await ask<OutboxRow>(client, outboxQuestion(dataSource, client)).catch(tooSlow(client));
    const dead = await ask<LettersRow>(client, lettersQuestion(dataSource)).catch(tooSlow(client));
    const { inbox_estimate: rows, inbox_bytes: inboxBytes, held, waiting, instances } = rest;
    return {
      outbox: outbox && outboxFigures(outbox),
      letters: dead?.letters,
      inboxRows: rows < 0 ? undefined : rows,
      ...{ inboxBytes, keysHeld: held, keysWaiting: waiting, instances },
    };
  } finally {
    // Where its connection is cut there is nobody to say good-bye to.
    await client.end().catch(() => undefined);
  }
}

/** In one message and one transaction, so that what is set ends with it, also behind a pooler. */
async function ask<Row>(client: Client, question: string): Promise<Row> {
  const statements = ['BEGIN READ ONLY', ...SETTINGS, question, 'COMMIT'];
  const answers = (await client.query(statements.join('; '))) as unknown as { rows: Row[] }[];
  return answers.at(-2)!.rows[0]!;
}

/** Where rows that were removed are not cleared away yet, or a table is locked, the other figures are of use all the same. */
const tooSlow = (client: Client) => async (error: unknown) => {
  const code = failureOf(error)?.postgres?.code;
  if (code !== QUERY_CANCELED && code !== LOCK_NOT_AVAILABLE) throw error;
  await client.query('ROLLBACK');
  return undefined;
};

interface RestRow {
  inbox_estimate: number;
  inbox_bytes: number;
  held: number;
  waiting: number;
  instances: number;
}

interface OutboxRow {
  ready: number;
  delayed: number;
  oldest_seconds: number | null;
  estimate: number;
}

interface LettersRow {
  letters: NonNullable<StoreFigures['letters']>;
}

function outboxFigures({ ready, delayed, oldest_seconds: oldest, estimate }: OutboxRow): OutboxFigures {
  const events = ready + delayed;
  const areMore = ready > COUNTED || delayed > COUNTED;
  return {
    events: areMore ? Math.max(events, estimate) : events,
    delayed: Math.min(delayed, COUNTED),
    oldestSeconds: Math.max(0, oldest ?? 0),
  };
}

// Each reads little, whatever has piled up: rows in the order of an index, from its beginning on.

const upTo = (rows: string) => `(SELECT ${rows} LIMIT ${COUNTED + 1})`;
const counted = (rows: string) => `(SELECT count(*)::int FROM ${upTo(rows)} counted)`;
const estimate = (relation: string) =>
  `(SELECT reltuples::float8 FROM pg_class WHERE oid = ${relation}::regclass)`;

function restQuestion(dataSource: DataSource, client: Client): string {
  const inbox = client.escapeLiteral(tableIn(dataSource, 'message_inbox'));
  const quarantines = tableIn(dataSource, 'message_quarantine');
  const instances = tableIn(dataSource, 'message_instance');
  return `SELECT ${estimate(inbox)} AS inbox_estimate, pg_total_relation_size(${inbox}::regclass)::float8 AS inbox_bytes,
      ${counted(`FROM ${quarantines} WHERE released_at IS NULL`)} AS held,
      ${counted(`FROM ${quarantines} WHERE released_at IS NOT NULL`)} AS waiting,
      (SELECT count(*)::int FROM ${instances} WHERE seen_at > now() - interval '10 s') AS instances`;
}

/** Events that are ready are read as the relay reads them, which leaves no long stretches of removed ones there. */
function outboxQuestion(dataSource: DataSource, client: Client): string {
  const outbox = tableIn(dataSource, 'message_outbox');
  const ready = `FROM ${outbox} WHERE next_attempt_at IS NULL`;
  const line = `FROM ${outbox} WHERE next_attempt_at IS NOT NULL ORDER BY shard::int, aggregateid, seq`;
  return `WITH delayed AS (SELECT count(*)::int AS events, min(created_at) AS oldest FROM ${upTo(`created_at ${line}`)} d),
    heads AS (SELECT min(o.created_at) AS oldest FROM generate_series(0, ${SHARDS - 1}) s,
      LATERAL (SELECT created_at ${ready} AND shard::int = s ORDER BY shard::int, seq LIMIT 1) o)
    SELECT ${counted(`${ready} ORDER BY shard::int, seq`)} AS ready, delayed.events AS delayed,
      extract(epoch FROM clock_timestamp() - least(delayed.oldest, heads.oldest))::float8 AS oldest_seconds,
      ${estimate(client.escapeLiteral(outbox))} AS estimate FROM delayed, heads`;
}

function lettersQuestion(dataSource: DataSource): string {
  const waiting = `FROM ${tableIn(dataSource, 'message_dead_letter')} WHERE state IN ('dead', 'parked')`;
  return `WITH RECURSIVE topics AS (
      (SELECT topic, 1 AS place ${waiting} ORDER BY topic, seq LIMIT 1) UNION ALL
      SELECT n.topic, t.place + 1 FROM topics t,
        LATERAL (SELECT topic ${waiting} AND topic > t.topic ORDER BY topic, seq LIMIT 1) n
      WHERE t.place < ${TOPICS_AT_MOST}),
    letters AS (SELECT t.topic, d.code, d.state, count(*)::int AS letters FROM topics t,
      LATERAL (SELECT code, state ${waiting} AND topic = t.topic ORDER BY topic, seq LIMIT ${LETTERS}) d
      GROUP BY t.topic, d.code, d.state)
    SELECT (SELECT coalesce(json_agg(l ORDER BY letters DESC), '[]') FROM letters l) AS letters`;
}
