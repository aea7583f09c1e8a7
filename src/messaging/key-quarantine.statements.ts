import type { DataSource } from 'typeorm';
import { tableIn } from '../database/table-name.js';
import type { Statement } from '../transactions/transaction-context.js';
import type { MessageIdentity } from './message-identity.js';
import { ROW_COLUMNS, ROW_PARAMETERS } from './dead-letter.js';

/** A key of which a message is a dead letter, as one consumer has it. */
export interface QuarantinedKey {
  topic: string;
  /** SHA-256 in base64. */
  hash: string;
}

export function quarantineStatements(dataSource: DataSource, consumer: string) {
  const letters = tableIn(dataSource, 'message_dead_letter');
  const quarantines = tableIn(dataSource, 'message_quarantine');
  const inbox = tableIn(dataSource, 'message_inbox');
  const ofKey = `consumer = $1 AND topic = $2 AND key_hash = decode($3, 'base64')`;
  const line = (alias: string) =>
    `SELECT * FROM ${letters} d WHERE (d.consumer, d.topic, d.key_hash) = (${alias}.consumer, ${alias}.topic, ${alias}.key_hash)
       AND d.state = 'parked'`;
  const named = (name: string, text: string) => {
    const statement = { name: `nestjs_people_quarantine_${name}`, text };
    return (...values: unknown[]): Statement => ({ ...statement, values: [consumer, ...values] });
  };
  const all = named(
    'all',
    `SELECT topic, encode(key_hash, 'base64') AS hash FROM ${quarantines} WHERE consumer = $1`,
  );
  const released = named(
    'released',
    `SELECT q.topic, encode(q.key_hash, 'base64') AS hash, d.partition FROM ${quarantines} q
     LEFT JOIN LATERAL (${line('q')} ORDER BY seq LIMIT 1) d ON true
     WHERE q.consumer = $1 AND q.released_at IS NOT NULL ORDER BY q.released_at LIMIT 1000`,
  );
  // The lock orders it with the end of the line; what was handled before, or stands in the line, is not parked again.
  const park = named(
    'park',
    `WITH q AS (
       SELECT * FROM ${quarantines} WHERE consumer = $1 AND topic = $3 AND key_hash = sha256($7::bytea) FOR UPDATE),
     parked AS (
       INSERT INTO ${letters} (${ROW_COLUMNS}, state) SELECT ${ROW_PARAMETERS}, 'parked' FROM q
       WHERE NOT EXISTS (
         SELECT FROM ${inbox} i WHERE i.consumer = $1 AND i.message_id = $2 AND i.digest = $13
           AND (NOT $14::boolean OR (i.topic, i.partition, i."offset") = ($3, $4, $5)))
         AND NOT EXISTS (
           ${line('q')} AND d.message_id = $2 AND d.value IS NOT DISTINCT FROM $8::bytea
             AND d.headers::text = $9::json::text))
     SELECT FROM q`,
  );
  const find = named('find', `SELECT FROM ${quarantines} WHERE ${ofKey}`);
  const lock = named(
    'lock',
    `SELECT FROM ${quarantines} WHERE ${ofKey} AND released_at IS NOT NULL FOR UPDATE`,
  );
  const head = named(
    'head',
    `SELECT seq::text, message_id, topic, partition, "offset"::text, "timestamp", key, value, headers, code, message, attempts
     FROM ${letters} l WHERE ${ofKey} AND state = 'parked' ORDER BY l.seq LIMIT 1`,
  );
  const settle = named(
    'settle',
    `UPDATE ${letters} SET state = 'replayed', settled_at = now() WHERE consumer = $1 AND seq = $2 AND state = 'parked'`,
  );
  const remove = named('remove', `DELETE FROM ${quarantines} WHERE ${ofKey}`);
  return {
    all: () => all(),
    /** Those whose line may go on, with the partition of its head; null for an empty line. */
    released: () => released(),
    /** @returns a row where the key is quarantined still. @param row what `rowValues` gives */
    park: ([, ...row]: unknown[], { digest, isNamedByPlace = false }: MessageIdentity) =>
      park(...row, digest, isNamedByPlace),
    find: ({ topic, hash }: QuarantinedKey) => find(topic, hash),
    /** @returns a row where the line may go on */
    lock: ({ topic, hash }: QuarantinedKey) => lock(topic, hash),
    head: ({ topic, hash }: QuarantinedKey) => head(topic, hash),
    settle: (seq: string) => settle(seq),
    remove: ({ topic, hash }: QuarantinedKey) => remove(topic, hash),
  };
}
