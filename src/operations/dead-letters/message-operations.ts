import { Injectable, type OnModuleInit } from '@nestjs/common';
import { ModuleRef } from '@nestjs/core';
import { UnknownElementException } from '@nestjs/core/errors/exceptions/unknown-element.exception.js';
import {
  type Correction,
  type DeadLetter,
  type DeadLetterDetails,
  type DeadLetterFilter,
  DeadLetters,
  type WaitingKey,
} from '../../messaging/dead-letters.js';
import type { RecordWindow } from '../../messaging/kafka-driver.js';
import { KafkaTransport } from '../../messaging/kafka.transport.js';
import type { Replay } from '../../messaging/replaying/replay.statements.js';
import { ReplayUnavailableError, type WindowReplays } from '../../messaging/replaying/window-replays.js';
import type { TransactionContext } from '../../transactions/transaction-context.js';
import { TransactionRunner } from '../../transactions/transaction-runner.js';
import { type Act, type Action, type AuditEntry, type AuditSubject, auditStatements } from './audit.js';
import { DeadLetterNotFoundError, DeadLetterSettledError, WaitingKeyNotFoundError } from './errors.js';

/** What people on call see of messages and do about them; each act is one unit of work with its row in `message_audit`. */
@Injectable()
export class MessageOperations implements OnModuleInit {
  private letters!: DeadLetters;
  private transactions!: TransactionRunner;
  private transport: KafkaTransport | undefined;
  private audit!: ReturnType<typeof auditStatements>;

  constructor(private readonly moduleRef: ModuleRef) {}

  /** Those of whichever module of the application has them. */
  onModuleInit(): void {
    this.letters = this.moduleRef.get(DeadLetters, { strict: false });
    this.transactions = this.moduleRef.get(TransactionRunner, { strict: false });
    this.audit = auditStatements(this.transactions.dataSource);
    try {
      this.transport = this.moduleRef.get(KafkaTransport, { strict: false });
    } catch (error) {
      // Messages are read elsewhere.
      if (!(error instanceof UnknownElementException)) throw error;
    }
  }

  list(filter: DeadLetterFilter, atMost: number, after: string): Promise<DeadLetter[]> {
    return this.letters.list(filter, atMost, after);
  }

  /** @throws DeadLetterNotFoundError */
  async find(seq: string): Promise<DeadLetterDetails> {
    const letter = await this.letters.find(seq);
    if (!letter) throw new DeadLetterNotFoundError(seq);
    return letter;
  }

  /** @throws DeadLetterNotFoundError, DeadLetterSettledError */
  replay(seq: string, act: Act): Promise<void> {
    return this.settle('replay', seq, act);
  }

  /** @throws DeadLetterNotFoundError, DeadLetterSettledError */
  discard(seq: string, act: Act): Promise<void> {
    return this.settle('discard', seq, act);
  }

  /** Those that the filter chooses, together. @returns how many */
  settleAll(action: 'replay' | 'discard', filter: DeadLetterFilter, act: Act): Promise<number> {
    return this.transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      const settled = await this.letters[action](filter);
      if (settled > 0) await this.write(transaction, act, action, { details: { filter, settled } });
      return settled;
    });
  }

  /**
   * Has another message handled in place of a dead letter.
   *
   * @returns the number under which what came is kept
   * @throws DeadLetterNotFoundError, DeadLetterSettledError
   */
  correct(seq: string, correction: Correction, act: Act): Promise<string> {
    return this.transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      const original = await this.letters.correct(seq, correction);
      if (original === undefined) throw await this.whyNot(seq);
      await this.write(transaction, act, 'correct', { deadLetter: seq, details: { original } });
      return original;
    });
  }

  waitingKeys(
    topic: string | undefined,
    atMost: number,
    after: readonly [string, string],
  ): Promise<WaitingKey[]> {
    return this.letters.waitingKeys(topic, atMost, after);
  }

  /** @throws WaitingKeyNotFoundError */
  releaseKey(topic: string, hash: string, act: Act): Promise<void> {
    return this.transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      if (!(await this.letters.releaseKey(topic, hash))) throw new WaitingKeyNotFoundError(topic);
      await this.write(transaction, act, 'release-key', { topic, details: { hash } });
    });
  }

  /**
   * Begins to replay a window of a topic through the inbox.
   *
   * @returns its id
   * @throws what `WindowReplays.find` and `WindowReplays.begin` throw
   */
  async replayWindow(window: RecordWindow, act: Act): Promise<string> {
    const { replays } = this;
    // The brokers are asked before a connection is held.
    const reader = await replays.find(window);
    try {
      return await this.transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
        const id = await replays.begin(window, reader, act.actor);
        const { topic, from, to } = window;
        const details = { id, from: new Date(from), to: new Date(to) };
        await this.write(transaction, act, 'replay-window', { topic, details });
        return id;
      });
    } catch (error) {
      reader.close();
      throw error;
    }
  }

  /** @throws ReplayNotFoundError it does not run */
  cancelReplay(id: string, act: Act): Promise<void> {
    return this.transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      await this.replays.cancel(id);
      await this.write(transaction, act, 'cancel-window', { details: { id } });
    });
  }

  /** Newest first, the running one with how far it is. */
  async listReplays(): Promise<Replay[]> {
    return (await this.transport?.replays?.list()) ?? [];
  }

  /** Newest first. */
  async listAudit(atMost: number, before: string | undefined): Promise<AuditEntry[]> {
    const statement = this.audit.list(atMost, before);
    return (await this.transactions.runStatement<AuditEntry>(statement, { writes: false })).rows;
  }

  /** @throws ReplayUnavailableError no messages are read in this application */
  private get replays(): WindowReplays {
    const { replays } = this.transport ?? {};
    if (!replays) throw new ReplayUnavailableError('messages are not read here');
    return replays;
  }

  private settle(action: 'replay' | 'discard', seq: string, act: Act): Promise<void> {
    return this.transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      if ((await this.letters[action]({ seq })) === 0) throw await this.whyNot(seq);
      await this.write(transaction, act, action, { deadLetter: seq });
    });
  }

  private async whyNot(seq: string): Promise<Error> {
    const letter = await this.letters.find(seq);
    return letter ? new DeadLetterSettledError(letter) : new DeadLetterNotFoundError(seq);
  }

  private async write(
    transaction: TransactionContext,
    act: Act,
    action: Action,
    subject: AuditSubject,
  ): Promise<void> {
    await transaction.query(this.audit.add(act, action, subject));
  }
}
