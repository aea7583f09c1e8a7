// messaging/dead-letters/: Messages that can't be handled, or wait: dead letters, quarantined keys, what kills the process.
// Promises: a dead letter is written in the transaction that marks its message; what waits for a key stays in order.
// May know: a `Delivery`, transactions/ and the producer of the port; not how messages are handled.

import { Inject, Injectable } from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import type { DataSource } from 'typeorm';
import type { MessageError } from '../errors/error-responses.js';
import type { Statement, TransactionContext } from '../transactions/transaction-context.js';
import { ClaimTakenError } from '../transactions/transaction-errors.js';
import { TransactionRunner, TRANSACTIONS_DATA_SOURCE } from '../transactions/transaction-runner.js';
import type { DeadLetterCause } from './dead-letters/cause.js';
import {
  type Correction,
  type DeadLetter,
  type DeadLetterDetails,
  type DeadLetterState,
  type DetailsRow,
  detailsOf,
  type ShownBytes,
  type ShownHeader,
  type WaitingKey,
} from './dead-letters/letter-details.js';
import { type DeadLetterFilter, letterStatements, PRUNE_AT_ONCE } from './dead-letters/letter.statements.js';
import { type DeadLetterRow, packedHeaders, wholeRecordOf } from './dead-letters/letter.js';
import type { Undeliverable } from './delivery.js';
import { describe } from './failure-policy.js';
import { Inbox, MessageIdConflictError } from './inbox.js';
import {
  conflictIdOf,
  identityAs,
  isSameMessage,
  type MessageIdentity,
  placeIdOf,
} from './message-identity.js';
import { Outbox } from './outbox.js';
import { rawHeadersOf } from './records/limits.js';
import type { RawHeaders } from './records/record.js';

export type {
  Correction,
  DeadLetter,
  DeadLetterCause,
  DeadLetterDetails,
  DeadLetterFilter,
  DeadLetterState,
  ShownBytes,
  ShownHeader,
  WaitingKey,
};

interface AddOptions {
  quarantinesKey?: boolean;
  causes?: readonly DeadLetterCause[];
}

/**
 * Messages that could not be handled: a row in `message_dead_letter`, written in the transaction that marks the message as
 * handled, and sent to `<topic>-dlt` by the relay.
 */
@Injectable()
export class DeadLetters {
  private readonly statements: ReturnType<typeof letterStatements>;

  constructor(
    private readonly transactions: TransactionRunner,
    @Inject(TRANSACTIONS_DATA_SOURCE) dataSource: DataSource,
    private readonly inbox: Inbox,
    private readonly outbox: Outbox,
  ) {
    this.statements = letterStatements(dataSource, outbox.table);
  }

  /**
   * Marks the message as handled and makes it a dead letter; does nothing where it was handled before.
   *
   * @param delivery the message
   * @param error what its sender would be told
   * @param options what else is done
   * @param options.quarantinesKey later messages of its key are parked from the commit on
   * @param options.causes what it failed with, for whoever looks at it
   * @returns false where it was handled before
   */
  async add(
    delivery: Undeliverable,
    error: MessageError,
    { quarantinesKey = false, causes = [] }: AddOptions = {},
  ): Promise<boolean> {
    if (await this.insert(delivery, error, { quarantinesKey, causes })) return true;
    if (await this.wasHandled(delivery.message)) return false;
    // Another message with its id was handled. Once it was marked by its place, which others may claim.
    const { record, message } = delivery;
    const byPlace = identityAs(message, { messageId: placeIdOf(record), isNamedByPlace: true });
    if (await this.wasHandled(byPlace)) return false;
    const conflict = new MessageIdConflictError(message.messageId);
    const byConflict = identityAs(message, { messageId: conflictIdOf(record) });
    const letter = { ...delivery, message: byConflict };
    return this.insert(letter, describe(conflict), { quarantinesKey, causes: [] });
  }

  /**
   * Oldest first; where the filter names no state, those that are neither replayed nor discarded.
   *
   * @param after the `seq` of the last one of the page before
   */
  async list(filter: DeadLetterFilter = {}, atMost = 1000, after = '0'): Promise<DeadLetter[]> {
    const statement = this.statements.list(filter, atMost, after);
    const { rows } = await this.transactions.runStatement<DeadLetter>(statement, { writes: false });
    return rows;
  }

  /** One of them with all that is known of it; undefined where there is none of this number. */
  async find(seq: string): Promise<DeadLetterDetails | undefined> {
    const { rows } = await this.transactions.runStatement<DetailsRow>(this.statements.details(seq), {
      writes: false,
    });
    return rows[0] && detailsOf(rows[0]);
  }

  /**
   * Has another message handled in place of a dead letter, at its place where its key is quarantined. It has an id of its own, and what
   * came stays marked as handled: if its sender sends it again nothing happens.
   *
   * @returns the number under which what came is kept, as discarded; undefined where there is no dead letter of this number
   */
  async correct(seq: string, { value, headers }: Correction): Promise<string | undefined> {
    return this.withQuarantinesLocked(async (transaction) => {
      const { rows } = await transaction.query<DeadLetterRow>(this.statements.lockDead(seq));
      if (!rows[0]) return undefined;
      const id = randomUUID();
      const given = headers ?? rawHeadersOf(wholeRecordOf(rows[0]));
      const all: RawHeaders = [
        ...given.filter(([name]) => String(name) !== 'message-id'),
        ['message-id', id],
      ];
      const packed = JSON.stringify(packedHeaders(all));
      const kept = await transaction.query<{ seq: string }>(this.statements.correct(seq, id, value, packed));
      await transaction.query(this.statements.replay({ seq }));
      return kept.rows[0]!.seq;
    });
  }

  /**
   * Keys whose messages wait, by topic and hash.
   *
   * @param after the topic and hash of the last one of the page before
   */
  async waitingKeys(
    topic?: string,
    atMost = 100,
    after: readonly [topic: string, hash: string] = ['', ''],
  ): Promise<WaitingKey[]> {
    const statement = this.statements.keys(topic, atMost, after);
    const { rows } = await this.transactions.runStatement<WaitingKey>(statement, { writes: false });
    return rows;
  }

  /**
   * Has the messages that wait for a key handled, in order, though a dead letter of it is left: that is passed by.
   *
   * @param hash as `waitingKeys` names it
   * @returns whether there was something to release
   */
  async releaseKey(topic: string, hash: string): Promise<boolean> {
    const { rowCount } = await this.transactions.runStatement(this.statements.releaseKey(topic, hash), {
      writes: true,
      idempotent: true,
    });
    return (rowCount ?? 0) > 0;
  }

  /**
   * Has them handled as if they came for the first time, each once. They are sent to the end of the topic they came from, in
   * their order; but those of a quarantined key take their place in its backlog, and the key is released: all that is parked is
   * handled in order, and then what comes.
   *
   * @returns how many
   */
  async replay(filter: DeadLetterFilter): Promise<number> {
    return this.settle(this.statements.replay(filter));
  }

  /** Puts them away for good; a key of which no dead letter is left is released. @returns how many */
  async discard(filter: DeadLetterFilter): Promise<number> {
    return this.settle(this.statements.discard(filter));
  }

  /**
   * Removes those that were replayed or discarded longer than `retentionMs` ago, and have left the outbox.
   *
   * @param goesOn asked before each further statement
   * @returns how many
   */
  async prune(retentionMs: number, goesOn: () => boolean = () => true): Promise<number> {
    const statement = this.statements.prune(retentionMs);
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
    { quarantinesKey, causes }: Required<AddOptions>,
  ): Promise<boolean> {
    const statement = this.statements.add(delivery, error, quarantinesKey, causes);
    try {
      const claim = this.inbox.claim([delivery.message]);
      await this.transactions.run({ claim }, (transaction) => transaction.query(statement));
    } catch (failure) {
      if (failure instanceof ClaimTakenError) return false;
      throw failure;
    }
    this.outbox.wake();
    return true;
  }

  private settle(statement: Statement): Promise<number> {
    return this.withQuarantinesLocked(async (transaction) => {
      const { rows } = await transaction.query<{ settled: number }>(statement);
      return rows[0]!.settled;
    });
  }

  /** Nothing is parked and no key's backlog ends between the look at it and the change; keys without a dead letter are released. */
  private withQuarantinesLocked<T>(change: (transaction: TransactionContext) => Promise<T>): Promise<T> {
    return this.transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      await transaction.query(this.statements.lockQuarantines());
      const result = await change(transaction);
      await transaction.query(this.statements.release());
      // Of the outermost unit of work: before that there is nothing to be sent.
      transaction.afterCommit(() => this.outbox.wake());
      return result;
    });
  }
}
