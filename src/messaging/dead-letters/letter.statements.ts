import type { DataSource } from 'typeorm';
import { tableIn } from '../../database/table-name.js';
import type { MessageError } from '../../errors/error-responses.js';
import type { Statement } from '../../transactions/transaction-context.js';
import type { Undeliverable } from '../delivery.js';
import type { DeadLetterCause } from './cause.js';
import type { DeadLetterState } from './letter-details.js';
import { DEAD_LETTER_SUFFIX, ROW_COLUMNS, ROW_PARAMETERS, rowValues } from './letter.js';

/** Rows that one statement removes. */
export const PRUNE_AT_ONCE = 1000;
/** Of a key so much is listed. */
const SHOWN_KEY = 1000;
/** A longer key is its hash where the order of letters goes by it: an index takes no more than a third of a page. */
const KEY_BYTES = 200;
/** Bytes of a value, and of headers, that are read to be shown. */
const SHOWN_VALUE = 1024 * 1024;
const SHOWN_HEADERS = 256 * 1024;
/** Rows of a key that are counted. */
const COUNTED = 1000;

/** Which dead letters; what is left out does not matter. */
export interface DeadLetterFilter {
  /** The topic they came from. */
  topic?: string;
  /** The key as text. */
  key?: string;
  /** `message-id`, or the number of the dead letter. */
  id?: string;
  /** The error's code. */
  error?: string;
  /** The number of the dead letter alone. */
  seq?: string;
  /** Left out: those that are neither replayed nor discarded. Only for `list`: what is settled stays so. */
  state?: DeadLetterState;
}

/** @param outbox the table of events that are to be sent */
export function letterStatements(dataSource: DataSource, outbox: string) {
  const letters = tableIn(dataSource, 'message_dead_letter');
  const quarantines = tableIn(dataSource, 'message_quarantine');
  const inbox = tableIn(dataSource, 'message_inbox');
  const trials = tableIn(dataSource, 'message_trial');
  /** Rows of dead letters on their way to Kafka; those of one key keep their order. */
  const enqueue = (type: string, topic: string, rows: string) =>
    `INSERT INTO ${outbox} (aggregatetype, aggregateid, type, topic, dead_letter)
      SELECT '${type}', topic || ' ' || coalesce(
          CASE WHEN octet_length(key) > ${KEY_BYTES} THEN encode(key_hash, 'hex') ELSE encode(key, 'base64') END,
          partition::text), '${type}', ${topic}, seq
      FROM ${rows} ORDER BY seq`;
  const shownKey = `encode(substring(key FROM 1 FOR ${SHOWN_KEY}), 'escape') || CASE WHEN octet_length(key) > ${SHOWN_KEY} THEN '…' ELSE '' END AS key`;
  const listed = `seq::text, state, message_id AS "messageId", topic, partition, "offset"::text, ${shownKey},
            code, message, attempts, created_at AS "createdAt"`;
  return {
    /** @param after the `seq` of the last one of the page before */
    list(filter: DeadLetterFilter, atMost: number, after: string): Statement {
      const { condition, values } = conditionOf(filter);
      return {
        text: `SELECT ${listed}
          FROM ${letters} d WHERE ${condition} AND d.seq > ${BigInt(after)} ORDER BY d.seq LIMIT ${Math.trunc(atMost)}`,
        values,
      };
    },
    details: (seq: string): Statement => ({
      text: `SELECT ${listed}, consumer, "timestamp", settled_at AS "settledAt", substring(key FROM 1 FOR ${SHOWN_VALUE}) AS "keyBytes",
          CASE WHEN octet_length(value) <= ${SHOWN_VALUE} THEN value END AS value, octet_length(value) AS "valueLength",
          CASE WHEN octet_length(headers::text) <= ${SHOWN_HEADERS} THEN headers ELSE '[]' END AS headers,
          octet_length(headers::text) <= ${SHOWN_HEADERS} AS "hasAllHeaders", cause AS causes,
          EXISTS (SELECT FROM ${quarantines} q WHERE ${isOfKey('d', 'q')} AND q.released_at IS NULL) AS "isQuarantined"
        FROM ${letters} d WHERE seq = $1`,
      values: [seq],
    }),
    /** What is to be corrected: nobody else changes it meanwhile. */
    lockDead: (seq: string): Statement => ({
      text: `SELECT message_id, topic, partition, "offset"::text, "timestamp", key, headers, code, message, attempts
        FROM ${letters} WHERE seq = $1 AND state = 'dead' FOR UPDATE`,
      values: [seq],
    }),
    /**
     * Keeps what came under a number of its own, as discarded, and changes the row itself, which has its place in the backlog of its key.
     * What is to be sent to the dead letter topic still is what came.
     */
    correct: (seq: string, messageId: string, value: Buffer | null, headers: string): Statement => ({
      text: `WITH original AS (
          INSERT INTO ${letters} (${ROW_COLUMNS}, cause, state, created_at, settled_at)
          SELECT ${ROW_COLUMNS}, cause, 'discarded', created_at, now() FROM ${letters} WHERE seq = $1 RETURNING seq),
        sent AS (UPDATE ${outbox} o SET dead_letter = n.seq FROM original n WHERE o.dead_letter = $1 AND o.type = 'dead-letter'),
        edited AS (UPDATE ${letters} SET message_id = $2, value = $3, headers = $4::json WHERE seq = $1)
        SELECT seq::text FROM original`,
      values: [seq, messageId, value, headers],
    }),
    /** @param after the topic and hash of the last one of the page before */
    keys(
      topic: string | undefined,
      atMost: number,
      [afterTopic, afterHash]: readonly [string, string],
    ): Statement {
      const rows = (columns: string, hash: string, atMost: number) =>
        `(SELECT ${columns}, seq FROM ${letters} d WHERE d.consumer = q.consumer AND d.topic = q.topic AND d.state IN ('dead', 'parked')
           AND ${hash} ORDER BY seq LIMIT ${atMost})`;
      const ofKey = (columns: string, atMost: number) =>
        `(${rows(columns, 'd.key_hash = q.key_hash', atMost)} UNION ALL
          ${rows(columns, 'octet_length(q.key_hash) = 4 AND d.key_hash IS NULL AND int4send(d.partition) = q.key_hash', atMost)})`;
      return {
        text: `SELECT q.consumer, q.topic, encode(q.key_hash, 'hex') AS hash, q.created_at AS "since", q.released_at AS "releasedAt",
            head.key, head.partition, head.seq::text AS "first", counts.dead, counts.parked
          FROM ${quarantines} q
            LEFT JOIN LATERAL (SELECT partition, seq, ${shownKey} FROM ${ofKey('key, partition', 1)} d ORDER BY seq LIMIT 1) head ON true,
            LATERAL (SELECT count(*) FILTER (WHERE state = 'dead')::int AS dead, count(*) FILTER (WHERE state = 'parked')::int AS parked
              FROM ${ofKey('state', COUNTED)} d) counts
          WHERE ($1::text IS NULL OR q.topic = $1) AND (q.topic, q.key_hash) > ($2, decode($3, 'hex'))
          ORDER BY q.topic, q.key_hash, q.consumer LIMIT ${Math.trunc(atMost)}`,
        values: [topic ?? null, afterTopic, afterHash],
      };
    },
    /** @param hash in hex */
    releaseKey: (topic: string, hash: string): Statement => ({
      text: `UPDATE ${quarantines} SET released_at = now()
        WHERE topic = $1 AND key_hash = decode($2, 'hex') AND (released_at IS NULL OR released_at > now())`,
      values: [topic, hash],
    }),
    /** Adds a dead letter, or makes one of a message that was parked; the relay sends it. */
    add(
      delivery: Undeliverable,
      error: MessageError,
      quarantinesKey: boolean,
      causes: readonly DeadLetterCause[],
    ): Statement {
      const { record, parkedAs } = delivery;
      // One that was parked keeps its place in the backlog.
      const dead =
        parkedAs === undefined
          ? `INSERT INTO ${letters} (${ROW_COLUMNS}, cause) VALUES (${ROW_PARAMETERS}, $13::json) RETURNING *`
          : `UPDATE ${letters} d SET message_id = n.message_id, code = n.code, message = n.message, attempts = n.attempts, state = 'dead',
             cause = n.cause
           FROM (VALUES (${ROW_PARAMETERS}, $13::json)) n (${ROW_COLUMNS}, cause)
           WHERE d.seq = ${BigInt(parkedAs)} AND d.state = 'parked' RETURNING d.*`;
      const quarantined =
        quarantinesKey && record.key !== null
          ? `, quarantined AS (INSERT INTO ${quarantines} (consumer, topic, key_hash)
             SELECT consumer, topic, key_hash FROM dead
             ON CONFLICT (consumer, topic, key_hash) DO UPDATE SET released_at = NULL)`
          : '';
      const text = `WITH dead AS (${dead}) ${quarantined}
      ${enqueue('dead-letter', `topic || '${DEAD_LETTER_SUFFIX}'`, 'dead')}`;
      return { text, values: [...rowValues(delivery, error), JSON.stringify(causes)] };
    },
    /** Removes the marks that they were handled. The relay sends a message at least once, and its id keeps that to one effect. */
    replay(filter: DeadLetterFilter): Statement {
      const { condition, values } = conditionOf(unsettled(filter));
      const text = `WITH chosen AS (
        SELECT d.seq, d.state, q.consumer IS NOT NULL AS is_quarantined
        FROM ${letters} d LEFT JOIN ${quarantines} q ON ${isOfKey('d', 'q')} WHERE ${condition} FOR UPDATE OF d),
      settled AS (
        UPDATE ${letters} d SET state = CASE WHEN is_quarantined THEN 'parked' ELSE 'replayed' END,
          settled_at = CASE WHEN is_quarantined THEN NULL ELSE now() END, attempts = CASE WHEN is_quarantined THEN 0 ELSE attempts END
        FROM chosen c WHERE d.seq = c.seq RETURNING d.*, c.state AS state_before, is_quarantined),
      unmarked AS (
        DELETE FROM ${inbox} i USING settled s
        WHERE i.consumer = s.consumer AND i.message_id = s.message_id AND s.state_before = 'dead'),
      untried AS (
        DELETE FROM ${trials} t USING settled s
        WHERE t.consumer = s.consumer AND t.message_id = s.message_id),
      released AS (
        UPDATE ${quarantines} q SET released_at = now() FROM settled s WHERE ${isOfKey('s', 'q')}),
      replayed AS (${enqueue('replay', 'topic', 'settled WHERE NOT is_quarantined')})
      SELECT count(*)::int AS settled FROM settled`;
      return { text, values };
    },
    discard(filter: DeadLetterFilter): Statement {
      const { condition, values } = conditionOf(unsettled(filter));
      const text = `WITH settled AS (
        UPDATE ${letters} d SET state = 'discarded', settled_at = now() WHERE ${condition} RETURNING d.*),
      released AS (
        UPDATE ${quarantines} q SET released_at = now() FROM settled s WHERE ${isOfKey('s', 'q')} AND q.released_at > now())
      SELECT count(*)::int AS settled FROM settled`;
      return { text, values };
    },
    lockQuarantines: (): Statement => ({ text: `LOCK TABLE ${quarantines} IN EXCLUSIVE MODE` }),
    /** Keys of which no dead letter is left. */
    release: (): Statement => ({
      text: `UPDATE ${quarantines} q SET released_at = now() WHERE released_at IS NULL AND NOT EXISTS (
      SELECT FROM ${letters} d WHERE (d.consumer, d.topic, d.key_hash) = (q.consumer, q.topic, q.key_hash) AND d.state = 'dead')`,
    }),
    /** Those that were replayed or discarded, and have left the outbox. */
    prune: (retentionMs: number): Statement => ({
      text: `DELETE FROM ${letters} WHERE seq = ANY (ARRAY(
          SELECT d.seq FROM ${letters} d WHERE settled_at < now() - $1::bigint * interval '1 ms'
            AND NOT EXISTS (SELECT FROM ${outbox} o WHERE o.dead_letter = d.seq)
          LIMIT ${PRUNE_AT_ONCE} FOR UPDATE SKIP LOCKED))`,
      values: [String(retentionMs)],
    }),
  };
}

/** A row of dead letters and the quarantine whose backlog it may stand in. */
const isOfKey = (row: string, quarantine: string) =>
  `(${quarantine}.consumer, ${quarantine}.topic, ${quarantine}.key_hash)
    = (${row}.consumer, ${row}.topic, coalesce(${row}.key_hash, int4send(${row}.partition)))`;

const unsettled = ({ state: _settled, ...filter }: DeadLetterFilter) => filter;

function conditionOf({ topic, key, id, error, seq, state }: DeadLetterFilter) {
  const values: unknown[] = [];
  const parameter = (value: unknown) => `$${values.push(value)}`;
  const conditions = [
    state === undefined ? `state IN ('dead', 'parked')` : `state = ${parameter(state)}`,
    ...(topic === undefined ? [] : [`topic = ${parameter(topic)}`]),
    ...(key === undefined ? [] : [`key = ${parameter(Buffer.from(key))}`]),
    ...(id === undefined ? [] : [`${parameter(id)} IN (message_id, seq::text)`]),
    ...(error === undefined ? [] : [`code = ${parameter(error)}`]),
    ...(seq === undefined ? [] : [`d.seq = ${parameter(seq)}::bigint`]),
  ];
  return { condition: conditions.join(' AND '), values };
}
