import { Inject, Injectable } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import type { MessageError } from '../errors/error-responses.js';
import { ClaimTakenError } from '../transactions/transaction-errors.js';
import { TransactionRunner, TRANSACTIONS_DATA_SOURCE } from '../transactions/transaction-runner.js';
import { DEAD_LETTER_SUFFIX } from './dead-letter.js';
import type { Delivery } from './delivery.js';
import { Inbox } from './inbox.js';
import { tableIn } from '../database/table-name.js';
import type { IncomingRecord, RecordHeaders } from './kafka-driver.js';
import { Outbox } from './outbox.js';

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

/** A message that could not be handled. */
export interface DeadLetter {
  seq: string;
  messageId: string;
  topic: string;
  partition: number;
  offset: string;
  key: string | null;
  code: string;
  message: string;
  attempts: number;
  createdAt: Date;
}

/** Columns of a dead letter as the relay reads them. */
export interface DeadLetterRow {
  message_id: string;
  topic: string;
  partition: number;
  offset: string;
  timestamp: string;
  key: Buffer | null;
  value: Buffer | null;
  headers: [name: string, base64: string | string[] | null][];
  code: string;
  message: string;
  attempts: number;
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

  /** Marks the message as handled and puts it aside, or does nothing where it was handled before. */
  async add({ record, message, attempts }: Delivery, { code, message: text }: MessageError): Promise<void> {
    const { topic, partition, offset, timestamp, key, value, headers } = record;
    const claim = this.inbox.claim([message]);
    const statement = {
      text: `WITH dead AS (
          INSERT INTO ${this.table} (consumer, message_id, topic, partition, "offset", "timestamp", key, value, headers, code, message, attempts)
          VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING *)
        ${this.enqueue('dead-letter', `topic || '${DEAD_LETTER_SUFFIX}'`, 'dead')}`,
      values: [
        ...[message.consumer, message.messageId, topic, partition, String(offset), timestamp, key, value],
        ...[JSON.stringify(packHeaders(headers)), code, text.replaceAll('\0', '�'), attempts],
      ],
    };
    try {
      await this.transactions.run({ claim }, (transaction) => transaction.query(statement));
      this.outbox.wake();
    } catch (error) {
      if (!(error instanceof ClaimTakenError)) throw error;
    }
  }

  /** Those that are neither replayed nor discarded, oldest first. */
  async list(filter: DeadLetterFilter = {}, atMost = 1000): Promise<DeadLetter[]> {
    const { condition, values } = conditionOf(filter);
    const { rows } = await this.transactions.runStatement<DeadLetter & { key: string | null }>(
      {
        text: `SELECT seq::text, message_id AS "messageId", topic, partition, "offset"::text, encode(key, 'escape') AS key,
            code, message, attempts, created_at AS "createdAt"
          FROM ${this.table} WHERE ${condition} ORDER BY seq LIMIT ${Math.trunc(atMost)}`,
        values,
      },
      { writes: false },
    );
    return rows;
  }

  /**
   * Sends them to the topic they came from, each once, in their order; they are handled as if they came for the first time.
   *
   * @returns how many
   */
  async replay(filter: DeadLetterFilter): Promise<number> {
    const { condition, values } = conditionOf(filter);
    const inbox = tableIn(this.dataSource, 'message_inbox');
    // What was marked as handled is so no more; the relay sends a message again at least once, its id keeps that one effect.
    const text = `WITH settled AS (
        UPDATE ${this.table} SET state = 'replayed', settled_at = now() WHERE ${condition} RETURNING *),
      unmarked AS (
        DELETE FROM ${inbox} i USING settled s WHERE i.consumer = s.consumer AND i.message_id = s.message_id),
      replayed AS (${this.enqueue('replay', 'topic', 'settled')})
      SELECT count(*)::int AS settled FROM settled`;
    return this.settle(text, values);
  }

  /** Puts them away for good. @returns how many */
  async discard(filter: DeadLetterFilter): Promise<number> {
    const { condition, values } = conditionOf(filter);
    const text = `WITH settled AS (
        UPDATE ${this.table} SET state = 'discarded', settled_at = now() WHERE ${condition} RETURNING seq)
      SELECT count(*)::int AS settled FROM settled`;
    return this.settle(text, values);
  }

  private async settle(text: string, values: unknown[]): Promise<number> {
    const result = await this.transactions.run({}, (transaction) =>
      transaction.query<{ settled: number }>({ text, values }),
    );
    this.outbox.wake();
    return result.rows[0]!.settled;
  }

  private get table(): string {
    return tableIn(this.dataSource, 'message_dead_letter');
  }

  /** Rows of dead letters on their way to Kafka; those of one key keep their order. */
  private enqueue(type: string, topic: string, rows: string): string {
    return `INSERT INTO ${this.outbox.table} (aggregatetype, aggregateid, type, topic, dead_letter)
      SELECT '${type}', topic || ' ' || coalesce(encode(key, 'base64'), partition::text), '${type}', ${topic}, seq
      FROM ${rows} ORDER BY seq`;
  }
}

/** The record that was put aside. */
export function recordOf(row: DeadLetterRow): IncomingRecord {
  const { topic, partition, offset, timestamp, key, value } = row;
  const headers = unpackHeaders(row.headers);
  return { topic, partition, offset: BigInt(offset), timestamp, key, value, headers };
}

function conditionOf({ topic, key, id, error }: DeadLetterFilter) {
  const values: unknown[] = [];
  const parameter = (value: unknown) => `$${values.push(value)}`;
  const conditions = [
    `state = 'dead'`,
    ...(topic === undefined ? [] : [`topic = ${parameter(topic)}`]),
    ...(key === undefined ? [] : [`key = ${parameter(Buffer.from(key))}`]),
    ...(id === undefined ? [] : [`${parameter(id)} IN (message_id, seq::text)`]),
    ...(error === undefined ? [] : [`code = ${parameter(error)}`]),
  ];
  return { condition: conditions.join(' AND '), values };
}

/** Bytes as JSON can hold them. An array of pairs, as a header may be called `__proto__`. */
function packHeaders(headers: RecordHeaders): DeadLetterRow['headers'] {
  const pack = (value: Buffer | string) => Buffer.from(value).toString('base64');
  return Object.entries(headers).map(([name, value]) => [
    name,
    value === undefined || value === null ? null : Array.isArray(value) ? value.map(pack) : pack(value),
  ]);
}

function unpackHeaders(packed: DeadLetterRow['headers']): RecordHeaders {
  const unpack = (text: string) => Buffer.from(text, 'base64');
  return Object.fromEntries(
    packed.map(([name, value]) => [
      name,
      value === null ? undefined : Array.isArray(value) ? value.map(unpack) : unpack(value),
    ]),
  );
}
