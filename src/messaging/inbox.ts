// messaging/inbox/: What was handled, and what the answer was.
// Promises: a message that comes again changes nothing and is answered as the first time.
// May know: transactions/ and the identity of a message; no broker.

import { Inject, Injectable } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import type { PipelinedStatement } from '../database/pg/pipelined-query.js';
import { ApplicationError, unchanged } from '../errors/application-error.js';
import { type HandlerClaim, runClaimed } from '../transactions/handler-claims.js';
import type { TransactionContext } from '../transactions/transaction-context.js';
import type { TransactionOptions } from '../transactions/transaction-options.js';
import { TransactionRunner, TRANSACTIONS_DATA_SOURCE } from '../transactions/transaction-runner.js';
import type { HandledCall } from './consuming/handled-call.js';
import { inboxStatements } from './inbox/statements.js';
import type { HandledMessage, MessageAnswer } from './message-answer.js';
import { isSameMessage, type MessageIdentity } from './message-identity.js';

/** A message with this id was handled before, and it was another one; this one was not. HTTP 409. */
export class MessageIdConflictError extends ApplicationError {
  constructor(
    /** The id that both have. */
    readonly messageId: string,
  ) {
    super(
      `${unchanged(`Another message with the id ${messageId} was handled before`)} Send this one with an id of its own.`,
      { type: 'message-id-conflict', status: 409 },
    );
  }
}

const PRUNE_AT_ONCE = 10_000;

/**
 * What was handled, and what the answer was: one row per consumer and message, written in the transaction of the message's
 * effect. So a message that is delivered again meets the row, changes nothing, and is answered as it was the first time.
 *
 * Rows are found by `consumer` and `messageId`; the table is `message_inbox`.
 */
@Injectable()
export class Inbox {
  private readonly statements: ReturnType<typeof inboxStatements>;

  constructor(
    private readonly transactions: TransactionRunner,
    @Inject(TRANSACTIONS_DATA_SOURCE) dataSource: DataSource,
  ) {
    this.statements = inboxStatements(dataSource);
  }

  /** The INSERT that claims messages: for the option `claim` of `TransactionRunner.run`. */
  claim(messages: readonly MessageIdentity[]): PipelinedStatement {
    return this.statements.claim(messages);
  }

  /** Keeps the answers of messages that were claimed; for `TransactionContext.atCommit`. */
  keep(
    answers: readonly { message: MessageIdentity; answer: MessageAnswer }[],
  ): PipelinedStatement | undefined {
    return answers.length === 0 ? undefined : this.statements.keep(answers);
  }

  /** Those of the messages that were handled, by their ids. */
  async find(messages: readonly MessageIdentity[]): Promise<Map<string, HandledMessage>> {
    const { rows } = await this.transactions.runStatement<InboxRow>(this.statements.find(messages), {
      writes: false,
    });
    return new Map(rows.map((row) => [row.message_id, handledOf(row)]));
  }

  /**
   * Runs `work` in a unit of work of its own, once for all calls with this identity.
   *
   * @returns what `work` gave: the first time as it is, later as JSON keeps it, with `isFirst` false
   * @throws MessageIdConflictError the id was used for something else
   * @throws what `TransactionRunner.run` throws; then nothing is kept, and another call runs `work` again
   */
  async once<T>(
    message: MessageIdentity,
    options: TransactionOptions,
    work: (transaction: TransactionContext) => Promise<T>,
  ): Promise<{ value: T; isFirst: boolean }> {
    const claim = this.claimOf({ message, isAnswered: true });
    let isFirst = true;
    const find = async () => {
      const kept = await claim.find();
      isFirst = false;
      return kept;
    };
    const [value] = await runClaimed(this.transactions, options, { ...claim, find }, async (transaction) => [
      await work(transaction),
    ]);
    return { value: value as T, isFirst };
  }

  /**
   * Removes rows that are older than `retentionMs`: of messages below the offsets committed for their partitions, which can
   * only be delivered again when somebody sets the group back, and of what is no Kafka message, whatever its consumer.
   *
   * @param goesOn asked before each further statement
   * @returns how many
   */
  async prune(
    consumer: string,
    committed: readonly { topic: string; partition: number; offset: bigint }[],
    retentionMs: number,
    goesOn: () => boolean = () => true,
  ): Promise<number> {
    let removed = 0;
    for (;;) {
      const statement = this.statements.prune(consumer, committed, retentionMs, PRUNE_AT_ONCE);
      const { rowCount } = await this.transactions.runStatement(statement, {
        writes: true,
        idempotent: true,
      });
      removed += rowCount ?? 0;
      if ((rowCount ?? 0) < PRUNE_AT_ONCE || !goesOn()) return removed;
    }
  }

  /** What keeps a handler's call from being applied twice. */
  claimOf({ message, isAnswered, onRepeated, onConflict }: HandledCall): HandlerClaim {
    return {
      statement: this.claim([message]),
      keep: (values) => (isAnswered ? this.keep([{ message, answer: { values } }]) : undefined),
      find: async () => {
        const handled = (await this.find([message])).get(message.messageId);
        if (!handled) return undefined;
        return () => {
          onRepeated?.();
          try {
            return valuesOf(handled, message);
          } catch (error) {
            if (error instanceof MessageIdConflictError) onConflict?.(error);
            throw error;
          }
        };
      },
    };
  }
}

/** The values that the handler of a handled message gave. @throws MessageIdConflictError, or its MessageError */
function valuesOf(handled: HandledMessage, message: MessageIdentity): unknown[] {
  if (!isSameMessage(handled, message)) throw new MessageIdConflictError(message.messageId);
  const { answer } = handled;
  // The description of the error that the first call was answered with.
  if (answer && 'error' in answer) throw answer.error;
  return [...(answer?.values ?? [])];
}

interface InboxRow {
  message_id: string;
  digest: string;
  topic: string | null;
  partition: number;
  offset: string;
  reply: string | null;
}

function handledOf({ digest, topic, partition, offset, reply }: InboxRow): HandledMessage {
  const answer = reply === null ? undefined : (JSON.parse(reply) as MessageAnswer);
  return { digest, answer, ...(topic !== null && { place: { topic, partition, offset } }) };
}
