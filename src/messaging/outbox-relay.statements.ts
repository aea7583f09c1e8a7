import type { DataSource } from 'typeorm';
import type { Statement } from '../transactions/transaction-context.js';
import { tableIn } from '../database/table-name.js';
import type { OutboxRow } from './outbox-record.js';

const SHARDS = 16;
const ROWS_AT_ONCE = 500;
const BYTES_AT_ONCE = 8 * 1024 * 1024;
/** Any number, as long as nothing else uses it: the first key of the shards' advisory locks. */
const LOCK = 1_886_547_311;

export function relayStatements(dataSource: DataSource) {
  const outbox = tableIn(dataSource, 'message_outbox');
  const dead = tableIn(dataSource, 'message_dead_letter');
  const named = (name: string, text: string) => {
    const statement = { name: `nestjs_people_relay_${name}`, text };
    return (...values: unknown[]): Statement => ({ ...statement, values });
  };
  const pending = named(
    'pending',
    `SELECT shard FROM generate_series(0, ${SHARDS - 1}) shard
     WHERE EXISTS (SELECT FROM ${outbox} o WHERE o.shard = shard.shard
       AND (o.next_attempt_at IS NULL OR o.next_attempt_at <= now())) ORDER BY random()`,
  );
  const select = named(
    'select',
    `SELECT * FROM (
       SELECT o.seq::text, o.shard, o.id, o.aggregatetype, o.aggregateid, o.type, o.topic, o.payload::text, o.created_at,
         o.attempts, o.dead_letter::text, d.dead, d.key AS dead_key, d.value AS dead_value,
         sum(coalesce(octet_length(o.payload::text), 0) + coalesce(octet_length(d.value), 0))
           OVER (ORDER BY o.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
       FROM ${outbox} o
       LEFT JOIN LATERAL (SELECT json_build_object('message_id', message_id, 'topic', topic, 'partition', partition,
           'offset', "offset"::text, 'timestamp', "timestamp", 'headers', headers, 'code', code, 'message', message,
           'attempts', attempts) AS dead, key, value
         FROM ${dead} d WHERE d.seq = o.dead_letter) d ON true
       WHERE o.shard = $1 AND (o.next_attempt_at IS NULL OR o.next_attempt_at <= now())
         AND NOT EXISTS (SELECT FROM ${outbox} b WHERE b.shard = o.shard AND b.aggregateid = o.aggregateid AND b.seq < o.seq
           AND b.next_attempt_at IS NOT NULL AND b.next_attempt_at > now())
       ORDER BY o.seq LIMIT ${ROWS_AT_ONCE}) rows
     WHERE bytes_before IS NULL OR bytes_before < ${BYTES_AT_ONCE} ORDER BY seq::bigint`,
  );
  const lock = named('lock', `SELECT pg_try_advisory_xact_lock(${LOCK}, $1::int) AS locked`);
  const remove = named('remove', `DELETE FROM ${outbox} WHERE shard = $1 AND seq = ANY ($2::bigint[])`);
  const delay = named(
    'delay',
    `UPDATE ${outbox} SET attempts = attempts + 1, last_error = $3,
       next_attempt_at = now() + least(300, power(2, least(attempts, 20))) * interval '1 s'
     WHERE shard = $1 AND seq = $2`,
  );
  return {
    pending: () => pending(),
    lock: (shard: number) => lock(shard),
    select: (shard: number) => select(shard),
    remove: (shard: number, rows: readonly OutboxRow[]) =>
      remove(
        shard,
        rows.map(({ seq }) => seq),
      ),
    delay: ({ shard, seq }: OutboxRow, error: string) => delay(shard, seq, error),
  };
}
