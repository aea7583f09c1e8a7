import type { DataSource } from 'typeorm';
import { preparedName } from '../../database/prepared-name.js';
import { tableIn } from '../../database/table-name.js';
import type { Statement } from '../../transactions/transaction-context.js';
import { ROW_COLUMNS, ROW_PARAMETERS, rowValues } from './letter.js';
import type { Delivery } from '../delivery.js';
import type { TopicPartition } from '../records/record.js';
import type { MessageIdentity } from '../message-identity.js';
import type { QuarantinedKey } from './quarantined-key.js';

/** What a parked message says where no dead letter is before it. */
const KEY_WAITS = {
  code: 'KEY_WAITS',
  message: 'An earlier message of its key waits to be tried again.',
};

const BACKLOGS_AT_ONCE = 1000;

export function quarantineStatements(dataSource: DataSource, consumer: string) {
  const letters = tableIn(dataSource, 'message_dead_letter');
  const quarantines = tableIn(dataSource, 'message_quarantine');
  const inbox = tableIn(dataSource, 'message_inbox');
  const ofKey = `consumer = $1 AND topic = $2 AND key_hash = decode($3, 'base64')`;
  /** The first rows of the backlog of quarantine `q`, by the index for those with a key and for those without. */
  const backlog = (columns: string, atMost: string) => {
    const rows = (hash: string) =>
      `(SELECT ${columns}, seq FROM ${letters} d WHERE d.consumer = q.consumer AND d.topic = q.topic AND d.state = 'parked'
         AND ${hash} ORDER BY seq LIMIT ${atMost})`;
    return `SELECT * FROM (${rows('d.key_hash = q.key_hash')} UNION ALL
      ${rows('octet_length(q.key_hash) = 4 AND d.key_hash IS NULL AND int4send(d.partition) = q.key_hash')}) l
      ORDER BY seq LIMIT ${atMost}`;
  };
  /** What was handled before, or stands in the backlog, is not parked again. */
  const isNew = (m: string) =>
    `NOT EXISTS (SELECT FROM ${inbox} i WHERE i.consumer = $1 AND i.message_id = ${m}.message_id AND i.digest = ${m}.digest
       AND (NOT ${m}.by_place OR (i.topic, i.partition, i."offset") = (${m}.topic, ${m}.partition, ${m}."offset")))
     AND NOT EXISTS (SELECT FROM ${letters} d WHERE d.consumer = $1 AND d.message_id = ${m}.message_id AND d.state = 'parked'
       AND (d.topic, d.key, d.value, d.headers::text) IS NOT DISTINCT FROM (${m}.topic, ${m}.key, ${m}.value, ${m}.headers::text))`;
  const named = (name: string, text: string) => {
    const statement = { name: preparedName(`nestjs_people_quarantine_${name}`, text), text };
    return (...values: unknown[]): Statement => ({ ...statement, values: [consumer, ...values] });
  };
  /** Planned each time: a plan that was made for an empty table reads all of a long backlog. */
  const planned =
    (text: string) =>
    (...values: unknown[]): Statement => ({ text, values: [consumer, ...values] });
  const all = named(
    'all',
    `SELECT topic, encode(key_hash, 'base64') AS hash FROM ${quarantines} WHERE consumer = $1`,
  );
  const released = planned(`SELECT q.topic, encode(q.key_hash, 'base64') AS hash FROM ${quarantines} q
     LEFT JOIN LATERAL (${backlog('partition', '1')}) d ON true
     WHERE q.consumer = $1 AND q.released_at <= clock_timestamp() AND (d.partition IS NULL OR (q.topic, d.partition) IN
       (SELECT topic, partition FROM json_to_recordset($2) o (topic text, partition int)))
     ORDER BY q.released_at LIMIT ${BACKLOGS_AT_ONCE}`);
  // The lock keeps the backlog from ending between the look at it and the insert.
  const park = planned(`WITH q AS (
       SELECT * FROM ${quarantines} WHERE consumer = $1 AND topic = $3
         AND key_hash = coalesce(sha256($7::bytea), int4send($4::int)) FOR UPDATE),
     m (${ROW_COLUMNS}, digest, by_place, waits_code, waits_message) AS (
       SELECT ${ROW_PARAMETERS}, $13::text, $14::boolean, $15::text, $16::text),
     parked AS (
       INSERT INTO ${letters} (${ROW_COLUMNS}, state)
       SELECT m.consumer, m.message_id, m.topic, m.partition, m."offset", m."timestamp", m.key, m.value, m.headers,
         CASE WHEN q.released_at IS NULL THEN m.code ELSE m.waits_code END,
         CASE WHEN q.released_at IS NULL THEN m.message ELSE m.waits_message END, m.attempts, 'parked'
       FROM q, m WHERE ${isNew('m')})
     SELECT FROM q`);
  const find = named('find', `SELECT released_at IS NOT NULL AS waits FROM ${quarantines} WHERE ${ofKey}`);
  const lock = named(
    'lock',
    `SELECT FROM ${quarantines} WHERE ${ofKey} AND released_at <= clock_timestamp() FOR UPDATE`,
  );
  const head =
    planned(`SELECT seq::text, message_id, topic, partition, "offset"::text, "timestamp", key, value, headers, code, message, attempts
     FROM (SELECT l.*, sum(coalesce(octet_length(value), 0)) OVER (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
         AS bytes_before
       FROM (SELECT * FROM ${quarantines} WHERE ${ofKey}) q, LATERAL (${backlog('d.message_id, d.topic, d.partition, d."offset", d."timestamp", d.key, d.value, d.headers, d.code, d.message, d.attempts', '$4::int')}) l) l
     WHERE bytes_before IS NULL OR bytes_before < $5::int ORDER BY l.seq`);
  // A message that was parked only because its key waited is removed; a dead letter that was replayed stays for a while.
  const markHandled =
    planned(`WITH gone AS (DELETE FROM ${letters} WHERE consumer = $1 AND seq = ANY ($2::bigint[]) AND state = 'parked' AND code = $3)
     UPDATE ${letters} SET state = 'replayed', settled_at = now()
     WHERE consumer = $1 AND seq = ANY ($2::bigint[]) AND state = 'parked' AND code <> $3`);
  const remove = named('remove', `DELETE FROM ${quarantines} WHERE ${ofKey}`);
  // A key that is quarantined until a dead letter is replayed stays so.
  const postpone = named(
    'postpone',
    `INSERT INTO ${quarantines} AS held (consumer, topic, key_hash, released_at)
     VALUES ($1, $2, decode($3, 'base64'), clock_timestamp() + $4::int * interval '1 ms')
     ON CONFLICT (consumer, topic, key_hash) DO UPDATE
       SET released_at = CASE WHEN held.released_at IS NULL THEN NULL ELSE EXCLUDED.released_at END`,
  );
  const attempts = named(
    'attempts',
    `UPDATE ${letters} SET attempts = $3 WHERE consumer = $1 AND seq = $2 AND state = 'parked'`,
  );
  const parkAll = planned(`INSERT INTO ${letters} (${ROW_COLUMNS}, state)
     SELECT $1::text, m.message_id, m.topic, m.partition, m."offset", m."timestamp", m.key, m.value, m.headers::json, $11::text, $12::text, m.attempts,
       'parked'
     FROM unnest($2::text[], $3::text[], $4::int[], $5::bigint[], $6::text[], $7::bytea[], $8::bytea[], $9::text[], $10::int[],
       $13::text[], $14::boolean[]) WITH ORDINALITY
       m (message_id, topic, partition, "offset", "timestamp", key, value, headers, attempts, digest, by_place, place)
     WHERE ${isNew('m')} ORDER BY m.place RETURNING seq::text, "offset"::text, "timestamp"`);
  return {
    all: () => all(),
    /** Keys whose backlog may go on now: of these partitions, or with an empty backlog, which any member may end. */
    released: (partitions: readonly TopicPartition[]) => released(JSON.stringify(partitions)),
    /** @returns a row where the key is quarantined still. @param row what `rowValues` gives */
    park: ([, ...row]: unknown[], { digest, isNamedByPlace = false }: MessageIdentity) =>
      park(...row, digest, isNamedByPlace, KEY_WAITS.code, KEY_WAITS.message),
    /** @returns a row where it is quarantined; `waits`: not for somebody to replay a dead letter */
    find: ({ topic, hash }: QuarantinedKey) => find(topic, hash),
    /** @returns a row where the backlog may go on */
    lock: ({ topic, hash }: QuarantinedKey) => lock(topic, hash),
    /** The first messages of the backlog: one, and more as long as these have not so many bytes. */
    head: ({ topic, hash }: QuarantinedKey, atMost: number, bytes: number) =>
      head(topic, hash, atMost, bytes),
    /** They are handled. */
    markHandled: (seqs: readonly string[]) => markHandled(seqs, KEY_WAITS.code),
    remove: ({ topic, hash }: QuarantinedKey) => remove(topic, hash),
    /** The key's backlog goes on in so many ms. */
    postpone: ({ topic, hash }: QuarantinedKey, waitMs: number) => postpone(topic, hash, Math.ceil(waitMs)),
    attempts: (seq: string, count: number) => attempts(seq, count),
    /** Parks messages of one partition, in their order. @returns those that are new, with their places */
    parkAll: (deliveries: readonly Delivery[]) => {
      const rows = deliveries.map((delivery) => rowValues(delivery, KEY_WAITS));
      const column = (index: number) => rows.map((row) => row[index]);
      const digests = deliveries.map(({ message }) => message.digest);
      const byPlace = deliveries.map(({ message }) => message.isNamedByPlace ?? false);
      const { code, message } = KEY_WAITS;
      return parkAll(...[1, 2, 3, 4, 5, 6, 7, 8, 11].map(column), code, message, digests, byPlace);
    },
  };
}
