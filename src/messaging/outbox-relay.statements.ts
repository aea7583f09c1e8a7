import type { DataSource } from 'typeorm';
import type { Statement } from '../transactions/transaction-context.js';
import { tableIn } from '../database/table-name.js';
import type { OutboxRow } from './outbox-record.js';

const SHARDS = 16;
/** Rows that are read, sent and removed together, at most; as many again where lines of waiting rows go on. */
const ROWS_AT_ONCE = 500;
const BYTES_AT_ONCE = 8 * 1024 * 1024;
/** Aggregates whose next attempt is due that are looked at together. */
const LINES_AT_ONCE = 100;
/** Rows that are looked at for having to wait, each time a lease ends. */
const LINED_UP_AT_ONCE = 50_000;
/** How long a shard is its holder's, in ms. An instance that is gone is replaced that late. */
export const LEASE_MS = 10_000;

/** A refused row: which, and what the brokers say. */
export interface Refusal {
  row: OutboxRow;
  reason: string;
}

/**
 * The relay's statements, each a transaction of its own. None waits for a row that somebody else has locked: it leaves that
 * row out (SKIP LOCKED).
 *
 * A row is ready (`next_attempt_at` is null) or in the line of its aggregate: the first, which was refused, has the time of
 * its next attempt, those behind it have `infinity`. So a look at what can be sent reads past nothing that waits.
 */
export function relayStatements(dataSource: DataSource) {
  const outbox = tableIn(dataSource, 'message_outbox');
  const dead = tableIn(dataSource, 'message_dead_letter');
  const lease = tableIn(dataSource, 'message_outbox_lease');
  const named = (name: string, text: string) => {
    const statement = { name: `nestjs_people_relay_${name}`, text };
    return (...values: unknown[]): Statement => ({ ...statement, values });
  };
  // With LIMIT, or the planner may read the whole table for a join.
  const first = (condition: string, order: string) =>
    `(SELECT true FROM ${outbox} o WHERE ${condition} ORDER BY ${order} LIMIT 1)`;
  const hasRows = `(${first('o.shard = l.shard AND o.next_attempt_at IS NULL', 'o.shard, o.seq')}
    OR ${first('o.shard = l.shard AND o.next_attempt_at <= now()', 'o.shard, o.next_attempt_at')})`;
  const isOver = 'l.leased_until <= clock_timestamp()';
  // One's own is left where it could not be given back.
  const isFree = `(${isOver} OR l.holder = $1)`;
  const anyLine = `(SELECT EXISTS (SELECT FROM ${outbox} WHERE shard = $1 AND next_attempt_at IS NOT NULL))`;
  /** Whether an earlier row of its aggregate is in the line; asks for no row's where there is no line. */
  const waits = (row: string) =>
    `${anyLine} AND coalesce((SELECT true FROM ${outbox} b WHERE b.shard = $1 AND b.aggregateid = ${row}.aggregateid
       AND b.seq < ${row}.seq AND b.next_attempt_at IS NOT NULL LIMIT 1), false)`;

  const pending = named('pending', `SELECT l.shard FROM ${lease} l WHERE ${isOver} AND ${hasRows}`);
  const take = named(
    'take',
    `WITH open AS MATERIALIZED (SELECT l.shard FROM ${lease} l WHERE l.shard <> ALL ($2::int[])
         AND ${isFree} AND ${hasRows}),
       free AS MATERIALIZED (SELECT l.shard FROM ${lease} l
         WHERE l.shard IN (SELECT shard FROM open) AND ${isFree}
         ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED),
       taken AS (UPDATE ${lease} l SET holder = $1::uuid, leased_until = clock_timestamp() + ${LEASE_MS} * interval '1 ms'
         FROM free f WHERE l.shard = f.shard RETURNING l.shard)
     SELECT (SELECT shard FROM taken) AS taken, (SELECT coalesce(array_agg(shard), '{}') FROM open) AS open`,
  );
  const columns = 'seq, shard, id, aggregatetype, aggregateid, type, topic, payload, created_at, attempts, next_attempt_at, dead_letter'; // prettier-ignore
  const select = named(
    'select',
    `SELECT * FROM (
       SELECT o.seq::text, o.shard, o.id, o.aggregatetype, o.aggregateid, o.type, o.topic, o.payload::text, o.created_at,
         o.attempts, o.dead_letter::text, d.dead, d.key AS dead_key, d.value AS dead_value,
         sum(coalesce(octet_length(o.payload::text), 0) + coalesce(octet_length(d.value), 0))
           OVER (ORDER BY o.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
       FROM (
         (SELECT ${columns} FROM ${outbox} o WHERE shard = $1 AND next_attempt_at IS NULL AND NOT (${waits('o')})
           ORDER BY o.shard, o.seq LIMIT ${ROWS_AT_ONCE})
         UNION ALL
         (SELECT l.* FROM (SELECT DISTINCT aggregateid FROM (
               SELECT aggregateid FROM ${outbox} WHERE shard = $1 AND next_attempt_at <= now()
               ORDER BY shard, next_attempt_at LIMIT ${LINES_AT_ONCE}) soonest) due,
             LATERAL (SELECT attempts, next_attempt_at FROM ${outbox} h
               WHERE h.shard = $1 AND h.aggregateid = due.aggregateid AND h.next_attempt_at IS NOT NULL
               ORDER BY h.shard, h.aggregateid, h.seq LIMIT 1) head,
             LATERAL (SELECT ${columns} FROM ${outbox} l
               WHERE l.shard = $1 AND l.aggregateid = due.aggregateid AND l.next_attempt_at IS NOT NULL
               ORDER BY l.shard, l.aggregateid, l.seq
               LIMIT CASE WHEN head.attempts > 0 THEN 1 ELSE ${ROWS_AT_ONCE} END) l
           WHERE head.next_attempt_at <= now() ORDER BY l.seq LIMIT ${ROWS_AT_ONCE})) o
       LEFT JOIN LATERAL (SELECT json_build_object('message_id', message_id, 'topic', topic, 'partition', partition,
           'offset', "offset"::text, 'timestamp', "timestamp", 'headers', headers, 'code', code, 'message', message,
           'attempts', attempts) AS dead, key, value
         FROM ${dead} d WHERE d.seq = o.dead_letter) d ON true) rows
     WHERE bytes_before IS NULL OR bytes_before < ${BYTES_AT_ONCE} ORDER BY seq::bigint`,
  );
  const remove = named(
    'remove',
    `WITH free AS (SELECT seq FROM ${outbox} WHERE shard = $1 AND seq = ANY ($2::bigint[]) FOR UPDATE SKIP LOCKED),
       removed AS (DELETE FROM ${outbox} o USING free f WHERE o.shard = $1 AND o.seq = f.seq
         RETURNING o.seq, o.aggregateid, o.next_attempt_at),
       next AS (SELECT n.seq FROM (
           SELECT aggregateid, max(seq) AS last FROM removed WHERE next_attempt_at IS NOT NULL GROUP BY aggregateid) line,
         LATERAL (SELECT seq FROM ${outbox} n WHERE n.shard = $1 AND n.aggregateid = line.aggregateid AND n.seq > line.last
           AND n.next_attempt_at IS NOT NULL ORDER BY n.shard, n.aggregateid, n.seq LIMIT 1 FOR UPDATE SKIP LOCKED) n),
       due AS (UPDATE ${outbox} o SET next_attempt_at = now() FROM next n
         WHERE o.shard = $1 AND o.seq = n.seq AND o.next_attempt_at = 'infinity')
     SELECT seq::text FROM ${outbox} WHERE shard = $1 AND seq = ANY ($2::bigint[]) AND seq NOT IN (SELECT seq FROM removed)`,
  );
  const delay = named(
    'delay',
    `UPDATE ${outbox} o SET attempts = o.attempts + 1, last_error = r.reason,
       next_attempt_at = now() + least(300, power(2, least(o.attempts, 20))) * interval '1 s'
     FROM unnest($2::bigint[], $3::text[]) r (seq, reason)
     WHERE o.shard = $1 AND o.seq = r.seq AND o.seq IN (
       SELECT seq FROM ${outbox} WHERE shard = $1 AND seq = ANY ($2::bigint[]) FOR UPDATE SKIP LOCKED)`,
  );
  const release = named(
    'release',
    `WITH mine AS MATERIALIZED (
         SELECT shard FROM ${lease} WHERE shard = $1 AND holder = $2 FOR UPDATE SKIP LOCKED),
       waiting AS (
         SELECT seq FROM ${outbox} w WHERE EXISTS (SELECT FROM mine) AND w.shard = $1 AND w.seq IN (
           SELECT seq FROM (SELECT seq, aggregateid FROM ${outbox} WHERE shard = $1 AND next_attempt_at IS NULL
             ORDER BY shard, seq LIMIT ${LINED_UP_AT_ONCE}) c WHERE ${waits('c')}
           UNION ALL
           SELECT seq FROM (SELECT seq, aggregateid FROM ${outbox} WHERE shard = $1 AND next_attempt_at <= now()
             ORDER BY shard, next_attempt_at LIMIT ${LINED_UP_AT_ONCE}) c WHERE ${waits('c')})
         FOR UPDATE SKIP LOCKED),
       lined_up AS (UPDATE ${outbox} o SET next_attempt_at = 'infinity' FROM waiting w
         WHERE o.shard = $1 AND o.seq = w.seq RETURNING o.seq),
       released AS (UPDATE ${lease} l SET leased_until = '-infinity' FROM mine m WHERE l.shard = m.shard)
     SELECT count(*)::int AS lined_up FROM lined_up`,
  );
  const repair = named(
    'repair',
    `WITH RECURSIVE heads AS (
         (SELECT shard, aggregateid, seq, next_attempt_at FROM ${outbox} WHERE next_attempt_at IS NOT NULL
           ORDER BY shard, aggregateid, seq LIMIT 1)
         UNION ALL
         SELECT n.* FROM heads h, LATERAL (SELECT shard, aggregateid, seq, next_attempt_at FROM ${outbox} o
           WHERE o.next_attempt_at IS NOT NULL AND (o.shard, o.aggregateid) > (h.shard, h.aggregateid)
           ORDER BY shard, aggregateid, seq LIMIT 1) n),
       shards AS (INSERT INTO ${lease} (shard) SELECT s FROM generate_series(0, ${SHARDS - 1}) s
         WHERE NOT EXISTS (SELECT FROM ${lease} l WHERE l.shard = s) ON CONFLICT (shard) DO NOTHING)
     UPDATE ${outbox} o SET next_attempt_at = now() WHERE next_attempt_at = 'infinity' AND (shard, seq) IN (
       SELECT o.shard, o.seq FROM ${outbox} o JOIN heads h ON o.shard = h.shard AND o.seq = h.seq
       WHERE h.next_attempt_at = 'infinity' AND o.next_attempt_at = 'infinity' FOR UPDATE OF o SKIP LOCKED)`,
  );
  return {
    /** The shards that somebody could take now. */
    pending: () => pending(),
    /** Takes one of them for `LEASE_MS`, but of `without`. Gives `taken`, null where there is none, and all that are `open`. */
    take: (holder: string, without: readonly number[]) => take(holder, without),
    /**
     * What of a shard can be sent now, in its order; of an aggregate never a row without those before it. Of a line the first
     * row alone while it was refused, and many once it has been taken.
     */
    select: (shard: number) => select(shard),
    /** Removes what was sent, and has the lines behind it go on. Gives the rows that are there still: somebody locks them. */
    remove: (shard: number, seqs: readonly string[]) => remove(shard, seqs),
    /** The next attempts at rows that were refused: after 1 s, doubling up to 300 s. */
    delay: (shard: number, refusals: readonly Refusal[]) =>
      delay(
        shard,
        refusals.map(({ row }) => row.seq),
        refusals.map(({ reason }) => reason),
      ),
    /** Gives the shard back, and has rows behind one that was refused wait in its line. Gives how many are new there. */
    release: (shard: number, holder: string) => release(shard, holder),
    /** Makes good what others have removed: the first row of a line, whose place the next takes, and leases. */
    repair: () => repair(),
  };
}
