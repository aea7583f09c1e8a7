// messaging/dead-letters/: Messages that can't be handled, or wait: dead letters, quarantined keys, what kills the process.
// Promises: a dead letter is written in the transaction that marks its message; what waits for a key stays in order.
// May know: a `Delivery`, transactions/ and the producer of the port; not how messages are handled.

import { Inject, Injectable } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import type { MessageError } from '../errors/error-responses.js';
import type { Statement } from '../transactions/transaction-context.js';
import { ClaimTakenError } from '../transactions/transaction-errors.js';
import { TransactionRunner, TRANSACTIONS_DATA_SOURCE } from '../transactions/transaction-runner.js';
import { type DeadLetterFilter, letterStatements, PRUNE_AT_ONCE } from './dead-letters/letter.statements.js';
import type { Undeliverable } from './delivery.js';
import { describe } from './failure-policy.js';
import { Inbox, MessageIdConflictError } from './inbox.js';
import { conflictIdOf, isSameMessage, type MessageIdentity, placeIdOf } from './message-identity.js';
import { Outbox } from './outbox.js';

export type { DeadLetterFilter };

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
   * @param quarantinesKey later messages of its key are parked from the commit on
   * @returns false where it was handled before
   */
  async add(
    delivery: Undeliverable,
    error: MessageError,
    { quarantinesKey = false }: { quarantinesKey?: boolean } = {},
  ): Promise<boolean> {
    if (await this.insert(delivery, error, quarantinesKey)) return true;
    if (await this.wasHandled(delivery.message)) return false;
    // Another message with its id was handled. Once it was marked by its place, which others may claim.
    const { record, message } = delivery;
    const byPlace = { ...message, messageId: placeIdOf(record), isNamedByPlace: true };
    if (await this.wasHandled(byPlace)) return false;
    const conflict = new MessageIdConflictError(message.messageId);
    const byConflict = { ...message, messageId: conflictIdOf(record) };
    return this.insert({ ...delivery, message: byConflict }, describe(conflict), quarantinesKey);
  }

  /**
   * Those that are neither replayed nor discarded, oldest first.
   *
   * @param after the `seq` of the last one of the page before
   */
  async list(filter: DeadLetterFilter = {}, atMost = 1000, after = '0'): Promise<DeadLetter[]> {
    const statement = this.statements.list(filter, atMost, after);
    const { rows } = await this.transactions.runStatement<DeadLetter>(statement, { writes: false });
    return rows;
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
    quarantinesKey: boolean,
  ): Promise<boolean> {
    const statement = this.statements.add(delivery, error, quarantinesKey);
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

  private async settle(statement: Statement): Promise<number> {
    const settled = await this.transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      // Nothing is parked and no key's backlog ends between the look at it and the change.
      await transaction.query(this.statements.lockQuarantines());
      const { rows } = await transaction.query<{ settled: number }>(statement);
      await transaction.query(this.statements.release());
      return rows[0]!.settled;
    });
    this.outbox.wake();
    return settled;
  }
}
