// messaging/dead-letters/: Messages that can't be handled, or wait: dead letters, quarantined keys, what kills the process.
// Promises: a dead letter is written in the transaction that marks its message; what waits for a key stays in order.
// May know: a `Delivery`, transactions/ and the producer of the port; not how messages are handled.

import { Inject, Injectable } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import type { MessageError } from '../errors/error-responses.js';
import { ClaimTakenError } from '../transactions/transaction-errors.js';
import { TransactionRunner, TRANSACTIONS_DATA_SOURCE } from '../transactions/transaction-runner.js';
import { DEAD_LETTER_SUFFIX, ROW_COLUMNS, ROW_PARAMETERS, rowValues } from './dead-letters/letter.js';
import type { Undeliverable } from './delivery.js';
import { describe } from './failure-policy.js';
import { Inbox, MessageIdConflictError } from './inbox.js';
import { conflictIdOf, isSameMessage, type MessageIdentity, placeIdOf } from './message-identity.js';
import { tableIn } from '../database/table-name.js';
import { Outbox } from './outbox.js';

const PRUNE_AT_ONCE = 1000;
/** Of a key so much is listed. */
const SHOWN_KEY = 1000;
/** A longer key is its hash where the order of letters goes by it: an index takes no more than a third of a page. */
const KEY_BYTES = 200;

/** Which dead letters; what is left out does not matter. */
export interface DeadLetterFilter {
  topic?: string;
  /** The key as text. */
  key?: string;
  /** `message-id`, or the number of the dead letter. */
  id?: string;
  /** The error's code. */
  error?: string;
}

/** A message that could not be handled, or waits behind one. */
export interface DeadLetter {
  seq: string;
  /** `parked`: it waits behind a dead letter of its key, or for an earlier message that is tried again, or is one that was replayed. */
  state: 'dead' | 'parked';
  messageId: string;
  topic: string;
  partition: number;
  offset: string;
  /** Of one with more than 1,000 bytes the first of them. */
  key: string | null;
  code: string;
  message: string;
  attempts: number;
  createdAt: Date;
}

/**
 * Messages that could not be handled: a row in `message_dead_letter`, written in the transaction that marks the message as
 * handled, and sent to `<topic>-dlt` by the relay.
 */
@Injectable()
export class DeadLetters {
  constructor(
    private readonly transactions: TransactionRunner,
    @Inject(TRANSACTIONS_DATA_SOURCE) private readonly dataSource: DataSource,
    private readonly inbox: Inbox,
    private readonly outbox: Outbox,
  ) {}

  /**
   * Marks the message as handled and puts it aside; does nothing where it was handled before.
   *
   * @param quarantinesKey later messages of its key are parked from the commit on
   * @returns false where it was handled before
   */
  async add(
    delivery: Undeliverable,
    error: MessageError,
    options: { quarantinesKey?: boolean } = {},
  ): Promise<boolean> {
    if (await this.insert(delivery, error, options)) return true;
    if (await this.wasHandled(delivery.message)) return false;
    // By its own id it is marked already: as the other message. Once it was marked by its place, which others may claim.
    const { record, message } = delivery;
    const byPlace = { ...message, messageId: placeIdOf(record), isNamedByPlace: true };
    if (await this.wasHandled(byPlace)) return false;
    const conflict = new MessageIdConflictError(message.messageId);
    const byConflict = { ...message, messageId: conflictIdOf(record) };
    return this.insert({ ...delivery, message: byConflict }, describe(conflict), options);
  }

  /**
   * Those that are neither replayed nor discarded, oldest first.
   *
   * @param after the `seq` of the last one of the page before
   */
  async list(filter: DeadLetterFilter = {}, atMost = 1000, after = '0'): Promise<DeadLetter[]> {
    const { condition, values } = conditionOf(filter);
    const { rows } = await this.transactions.runStatement<DeadLetter>(
      {
        text: `SELECT seq::text, state, message_id AS "messageId", topic, partition, "offset"::text,
            encode(substring(key FROM 1 FOR ${SHOWN_KEY}), 'escape') || CASE WHEN octet_length(key) > ${SHOWN_KEY} THEN '…' ELSE '' END AS key,
            code, message, attempts, created_at AS "createdAt"
          FROM ${this.table} d WHERE ${condition} AND d.seq > ${BigInt(after)} ORDER BY d.seq LIMIT ${Math.trunc(atMost)}`,
        values,
      },
      { writes: false },
    );
    return rows;
  }

  /**
   * Has them handled as if they came for the first time, each once. They are sent to the end of the topic they came from, in
   * their order; but those of a quarantined key take their place in its line, and the key is released: all that is parked is
   * handled in order, and then what comes.
   *
   * @returns how many
   */
  async replay(filter: DeadLetterFilter): Promise<number> {
    const { condition, values } = conditionOf(filter);
    const { table, quarantines } = this;
    const inbox = tableIn(this.dataSource, 'message_inbox');
    // What was marked as handled is so no more; the relay sends a message again at least once, its id keeps that one effect.
    const text = `WITH chosen AS (
        SELECT d.seq, d.state, q.consumer IS NOT NULL AS is_quarantined
        FROM ${table} d LEFT JOIN ${quarantines} q ON ${isOfKey('d', 'q')} WHERE ${condition} FOR UPDATE OF d),
      settled AS (
        UPDATE ${table} d SET state = CASE WHEN is_quarantined THEN 'parked' ELSE 'replayed' END,
          settled_at = CASE WHEN is_quarantined THEN NULL ELSE now() END, attempts = CASE WHEN is_quarantined THEN 0 ELSE attempts END
        FROM chosen c WHERE d.seq = c.seq RETURNING d.*, c.state AS state_before, is_quarantined),
      unmarked AS (
        DELETE FROM ${inbox} i USING settled s
        WHERE i.consumer = s.consumer AND i.message_id = s.message_id AND s.state_before = 'dead'),
      untried AS (
        DELETE FROM ${tableIn(this.dataSource, 'message_trial')} t USING settled s
        WHERE t.consumer = s.consumer AND t.message_id = s.message_id),
      released AS (
        UPDATE ${quarantines} q SET released_at = now() FROM settled s WHERE ${isOfKey('s', 'q')}),
      replayed AS (${this.enqueue('replay', 'topic', 'settled WHERE NOT is_quarantined')})
      SELECT count(*)::int AS settled FROM settled`;
    return this.settle(text, values);
  }

  /** Puts them away for good; a key of which no dead letter is left is released. @returns how many */
  async discard(filter: DeadLetterFilter): Promise<number> {
    const { condition, values } = conditionOf(filter);
    const text = `WITH settled AS (
        UPDATE ${this.table} d SET state = 'discarded', settled_at = now() WHERE ${condition} RETURNING d.*),
      released AS (
        UPDATE ${this.quarantines} q SET released_at = now() FROM settled s WHERE ${isOfKey('s', 'q')} AND q.released_at > now())
      SELECT count(*)::int AS settled FROM settled`;
    return this.settle(text, values);
  }

  /**
   * Removes those that were replayed or discarded longer than `retentionMs` ago, and have left the outbox.
   *
   * @param goesOn asked before each further statement
   * @returns how many
   */
  async prune(retentionMs: number, goesOn: () => boolean = () => true): Promise<number> {
    const statement = {
      text: `DELETE FROM ${this.table} WHERE seq = ANY (ARRAY(
          SELECT d.seq FROM ${this.table} d WHERE settled_at < now() - $1::bigint * interval '1 ms'
            AND NOT EXISTS (SELECT FROM ${this.outbox.table} o WHERE o.dead_letter = d.seq)
          LIMIT ${PRUNE_AT_ONCE} FOR UPDATE SKIP LOCKED))`,
      values: [String(retentionMs)],
    };
    for (let removed = 0; ;) {
      const { rowCount } = await this.transactions.runStatement(statement, {
        writes: true,
        idempotent: true,
      });
      removed += rowCount ?? 0;
      if ((rowCount ?? 0) < PRUNE_AT_ONCE || !goesOn()) return removed;
    }
  }

  private async wasHandled(message: MessageIdentity): Promise<boolean> {
    const handled = (await this.inbox.find([message])).get(message.messageId);
    return handled !== undefined && isSameMessage(handled, message);
  }

  private async insert(
    delivery: Undeliverable,
    error: MessageError,
    { quarantinesKey = false }: { quarantinesKey?: boolean },
  ): Promise<boolean> {
    const { table, quarantines } = this;
    const { message, record, parkedAs } = delivery;
    // One that was parked keeps its place in the line.
    const dead =
      parkedAs === undefined
        ? `INSERT INTO ${table} (${ROW_COLUMNS}) VALUES (${ROW_PARAMETERS}) RETURNING *`
        : `UPDATE ${table} d SET message_id = n.message_id, code = n.code, message = n.message, attempts = n.attempts, state = 'dead'
           FROM (VALUES (${ROW_PARAMETERS})) n (${ROW_COLUMNS})
           WHERE d.seq = ${BigInt(parkedAs)} AND d.state = 'parked' RETURNING d.*`;
    const quarantined =
      quarantinesKey && record.key !== null
        ? `, quarantined AS (INSERT INTO ${quarantines} (consumer, topic, key_hash)
             SELECT consumer, topic, key_hash FROM dead
             ON CONFLICT (consumer, topic, key_hash) DO UPDATE SET released_at = NULL)`
        : '';
    const text = `WITH dead AS (${dead}) ${quarantined}
      ${this.enqueue('dead-letter', `topic || '${DEAD_LETTER_SUFFIX}'`, 'dead')}`;
    try {
      const claim = this.inbox.claim([message]);
      await this.transactions.run({ claim }, (transaction) =>
        transaction.query({ text, values: rowValues(delivery, error) }),
      );
    } catch (failure) {
      if (failure instanceof ClaimTakenError) return false;
      throw failure;
    }
    this.outbox.wake();
    return true;
  }

  private async settle(text: string, values: unknown[]): Promise<number> {
    const { table, quarantines } = this;
    const release = `UPDATE ${quarantines} q SET released_at = now() WHERE released_at IS NULL AND NOT EXISTS (
      SELECT FROM ${table} d WHERE (d.consumer, d.topic, d.key_hash) = (q.consumer, q.topic, q.key_hash) AND d.state = 'dead')`;
    const settled = await this.transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      // Nothing is parked and no key's line ends between the look at it and the change.
      await transaction.query({ text: `LOCK TABLE ${quarantines} IN EXCLUSIVE MODE` });
      const { rows } = await transaction.query<{ settled: number }>({ text, values });
      await transaction.query({ text: release });
      return rows[0]!.settled;
    });
    this.outbox.wake();
    return settled;
  }

  private get table(): string {
    return tableIn(this.dataSource, 'message_dead_letter');
  }

  private get quarantines(): string {
    return tableIn(this.dataSource, 'message_quarantine');
  }

  /** Rows of dead letters on their way to Kafka; those of one key keep their order. */
  private enqueue(type: string, topic: string, rows: string): string {
    return `INSERT INTO ${this.outbox.table} (aggregatetype, aggregateid, type, topic, dead_letter)
      SELECT '${type}', topic || ' ' || coalesce(
          CASE WHEN octet_length(key) > ${KEY_BYTES} THEN encode(key_hash, 'hex') ELSE encode(key, 'base64') END,
          partition::text), '${type}', ${topic}, seq
      FROM ${rows} ORDER BY seq`;
  }
}

/** A row of dead letters and the quarantine whose line it may stand in. */
const isOfKey = (row: string, quarantine: string) =>
  `(${quarantine}.consumer, ${quarantine}.topic, ${quarantine}.key_hash)
    = (${row}.consumer, ${row}.topic, coalesce(${row}.key_hash, int4send(${row}.partition)))`;

function conditionOf({ topic, key, id, error }: DeadLetterFilter) {
  const values: unknown[] = [];
  const parameter = (value: unknown) => `$${values.push(value)}`;
  const conditions = [
    `state IN ('dead', 'parked')`,
    ...(topic === undefined ? [] : [`topic = ${parameter(topic)}`]),
    ...(key === undefined ? [] : [`key = ${parameter(Buffer.from(key))}`]),
    ...(id === undefined ? [] : [`${parameter(id)} IN (message_id, seq::text)`]),
    ...(error === undefined ? [] : [`code = ${parameter(error)}`]),
  ];
  return { condition: conditions.join(' AND '), values };
}
