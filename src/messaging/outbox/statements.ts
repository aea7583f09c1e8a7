import type { DataSource } from 'typeorm';
import type { Statement } from '../../transactions/transaction-context.js';
import { preparedName } from '../../database/prepared-name.js';
import { tableIn } from '../../database/table-name.js';
import type { OutboxRow } from './record.js';

const SHARDS = 16;
/** Rows that are read, sent and removed together, at most; as many again where lines of waiting rows go on. */
const ROWS_AT_ONCE = 500;
const BYTES_AT_ONCE = 8 * 1024 * 1024;
/** Rows that are due to be tried again that are looked at together. */
const DUE_AT_ONCE = 1000;
/** Aggregates whose next attempt is due that are looked at together. */
const LINES_AT_ONCE = 100;
/** Rows that are looked at for having to wait, each time a lease ends. */
const LINED_UP_AT_ONCE = 50_000;
/** How long a lease of a shard lasts, in ms: so long its rows may wait when the instance that has it is gone. */
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
 *
 * @param hasTrace whether the table of events has the column `trace`
 */
export function relayStatements(dataSource: DataSource, hasTrace = false) {
  const outbox = tableIn(dataSource, 'message_outbox');
  const dead = tableIn(dataSource, 'message_dead_letter');
  const lease = tableIn(dataSource, 'message_outbox_lease');
  const named = (name: string, text: string) => {
    const statement = { name: preparedName(`nestjs_people_relay_${name}`, text), text };
    return (...values: unknown[]): Statement => ({ ...statement, values });
  };
  // The indexes have casts of `shard`, as those of a plain one look as good to a planner whose statistics are old, and read past
  // all that waits. For the same reason rows are asked for by ANY of an array and not by a join, and with ORDER BY and LIMIT.
  const readyRows = (shard: string) =>
    `FROM ${outbox} o WHERE o.shard::int = ${shard} AND o.next_attempt_at IS NULL`;
  const readyOrder = 'o.shard::int, o.seq';
  const lineRows = (row: string, aggregate: string) =>
    `FROM ${outbox} ${row} WHERE ${row}.shard::int = $1 AND ${row}.aggregateid = ${aggregate} AND ${row}.next_attempt_at IS NOT NULL`;
  const lineOrder = (row: string) => `${row}.shard::int, ${row}.aggregateid, ${row}.seq`;
  const anyOf = (rows: string) => `ANY (ARRAY (SELECT seq FROM ${rows}))`;
  const soonest = `soonest AS MATERIALIZED (SELECT shard, aggregateid, seq FROM ${outbox}
    WHERE isfinite(next_attempt_at) AND next_attempt_at <= now() ORDER BY next_attempt_at LIMIT ${DUE_AT_ONCE})`;
  const canBeSent = `((SELECT true ${readyRows('l.shard')} ORDER BY ${readyOrder} LIMIT 1)
    OR l.shard IN (SELECT shard FROM soonest))`;
  const isOver = 'l.leased_until <= clock_timestamp()';
  // A lease of this relay's own is there still if giving it back has failed.
  const isFree = `(${isOver} OR l.holder = $1)`;
  const anyLine = `(SELECT EXISTS (SELECT FROM ${outbox} WHERE shard::int = $1 AND next_attempt_at IS NOT NULL))`;
  /**
   * Whether an earlier row of its aggregate is in the line; asks for no row's where there is no line. First for one that has a
   * time, as each line's head has: of heads there are few, and of the rows behind them there may be very many.
   */
  const waits = (row: string) =>
    `${anyLine} AND coalesce(
       (SELECT true FROM ${outbox} h WHERE h.shard::bigint = $1::bigint AND h.aggregateid = ${row}.aggregateid AND h.seq < ${row}.seq
         AND isfinite(h.next_attempt_at) ORDER BY h.shard::bigint, h.aggregateid, h.seq LIMIT 1),
       (SELECT true ${lineRows('b', `${row}.aggregateid`)} AND b.seq < ${row}.seq ORDER BY ${lineOrder('b')} LIMIT 1), false)`;
  const free = `SELECT seq FROM ${outbox} WHERE shard = $1 AND seq = ANY ($2::bigint[]) FOR UPDATE SKIP LOCKED`;

  const pending = named(
    'pending',
    `WITH ${soonest} SELECT l.shard FROM ${lease} l WHERE ${isOver} AND ${canBeSent}`,
  );
  const take = named(
    'take',
    `WITH ${soonest},
       open AS MATERIALIZED (SELECT l.shard FROM ${lease} l WHERE l.shard <> ALL ($2::int[]) AND ${isFree} AND ${canBeSent}),
       free AS MATERIALIZED (SELECT l.shard FROM ${lease} l WHERE l.shard IN (SELECT shard FROM open) AND ${isFree}
         ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED),
       taken AS (UPDATE ${lease} l SET holder = $1::uuid, leased_until = clock_timestamp() + ${LEASE_MS} * interval '1 ms'
         FROM free f WHERE l.shard = f.shard RETURNING l.shard)
     SELECT (SELECT shard FROM taken) AS taken, (SELECT coalesce(array_agg(shard), '{}') FROM open) AS open`,
  );
  const trace = hasTrace ? ', trace' : '';
  const columns = `seq, shard, id, aggregatetype, aggregateid, type, topic, payload${trace}, created_at, attempts, dead_letter`;
  const select = named(
    'select',
    `WITH ${soonest}
     SELECT * FROM (
       SELECT o.seq::text, o.shard, o.id, o.aggregatetype, o.aggregateid, o.type, o.topic, o.payload::text${hasTrace ? ', o.trace::text' : ''}, o.created_at,
         o.attempts, o.dead_letter::text, d.dead, d.key AS dead_key, d.value AS dead_value,
         sum(coalesce(octet_length(o.payload::text), 0)${hasTrace ? ' + coalesce(octet_length(o.trace::text), 0)' : ''} + coalesce(octet_length(d.value), 0))
           OVER (ORDER BY o.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
       FROM (
         (SELECT ${columns} ${readyRows('$1')} AND NOT (${waits('o')}) ORDER BY ${readyOrder} LIMIT ${ROWS_AT_ONCE})
         UNION ALL
         (SELECT l.* FROM (SELECT DISTINCT aggregateid FROM soonest WHERE shard = $1 LIMIT ${LINES_AT_ONCE}) due,
             LATERAL (SELECT attempts, next_attempt_at ${lineRows('h', 'due.aggregateid')} ORDER BY ${lineOrder('h')} LIMIT 1) head,
             LATERAL (SELECT ${columns} ${lineRows('l', 'due.aggregateid')} ORDER BY ${lineOrder('l')}
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
    `WITH free AS (${free}),
       removed AS (DELETE FROM ${outbox} WHERE shard = $1 AND seq = ${anyOf('free')}
         RETURNING seq, aggregateid, next_attempt_at),
       next AS (SELECT n.seq FROM (
           SELECT aggregateid, max(seq) AS last FROM removed WHERE next_attempt_at IS NOT NULL GROUP BY aggregateid) line,
         LATERAL (SELECT n.seq ${lineRows('n', 'line.aggregateid')} AND n.seq > line.last
           ORDER BY ${lineOrder('n')} LIMIT 1 FOR UPDATE SKIP LOCKED) n),
       due AS (UPDATE ${outbox} SET next_attempt_at = now()
         WHERE shard = $1 AND seq = ${anyOf('next')} AND NOT isfinite(next_attempt_at))
     SELECT seq::text FROM ${outbox} WHERE shard = $1 AND seq = ANY ($2::bigint[]) AND seq NOT IN (SELECT seq FROM removed)`,
  );
  const delay = named(
    'delay',
    `WITH free AS (${free})
     UPDATE ${outbox} o SET attempts = o.attempts + 1, last_error = ($3::text[])[array_position($2::bigint[], o.seq)],
       next_attempt_at = now() + least(300, power(2, least(o.attempts, 20))) * interval '1 s'
     WHERE o.shard = $1 AND o.seq = ${anyOf('free')}`,
  );
  const release = named(
    'release',
    `WITH ${soonest},
       mine AS MATERIALIZED (SELECT shard FROM ${lease} WHERE shard = $1 AND holder = $2 FOR UPDATE SKIP LOCKED),
       waiting AS (
         SELECT seq FROM (SELECT o.seq, o.aggregateid ${readyRows('$1')} ORDER BY ${readyOrder}
           LIMIT ${LINED_UP_AT_ONCE}) r WHERE ${waits('r')}
         UNION ALL SELECT seq FROM soonest s WHERE shard = $1 AND ${waits('s')}),
       free AS (SELECT seq FROM ${outbox} WHERE EXISTS (SELECT FROM mine) AND shard = $1 AND seq = ${anyOf('waiting')}
         FOR UPDATE SKIP LOCKED),
       lined_up AS (UPDATE ${outbox} SET next_attempt_at = 'infinity' WHERE shard = $1 AND seq = ${anyOf('free')} RETURNING seq),
       released AS (UPDATE ${lease} l SET leased_until = '-infinity' FROM mine m WHERE l.shard = m.shard)
     SELECT count(*)::int AS lined_up FROM lined_up`,
  );
  const head = (more: string) =>
    `SELECT h.shard::int AS shard, h.aggregateid, h.seq, h.next_attempt_at FROM ${outbox} h
     WHERE h.next_attempt_at IS NOT NULL ${more} ORDER BY ${lineOrder('h')} LIMIT 1`;
  const repair = named(
    'repair',
    `WITH RECURSIVE heads AS (
         (${head('')}) UNION ALL
         SELECT n.* FROM heads b, LATERAL (${head('AND (h.shard::int, h.aggregateid) > (b.shard, b.aggregateid)')}) n),
       shards AS (INSERT INTO ${lease} (shard) SELECT s FROM generate_series(0, ${SHARDS - 1}) s
         WHERE NOT EXISTS (SELECT FROM ${lease} l WHERE l.shard = s) ON CONFLICT (shard) DO NOTHING),
       orphans AS (SELECT o.shard, o.seq FROM heads h, ${outbox} o
         WHERE NOT isfinite(h.next_attempt_at) AND o.shard = h.shard AND o.seq = h.seq AND NOT isfinite(o.next_attempt_at)
         FOR UPDATE OF o SKIP LOCKED)
     UPDATE ${outbox} o SET next_attempt_at = now() FROM orphans WHERE o.shard = orphans.shard AND o.seq = orphans.seq`,
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
