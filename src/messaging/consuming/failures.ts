import { Logger } from '@nestjs/common';
import { whyNoWrites } from '../../database/pooled-client.js';
import { DatabaseUnavailableError } from '../../database/postgres-errors.js';
import { originalOf } from '../../errors/error-responses.js';
import { AfterCommitError, ClaimTakenError } from '../../transactions/transaction-errors.js';
import { originOf } from '../../transactions/unit-failures.js';
import { type Delivery, loggedPlace } from '../delivery.js';
import {
  classify,
  describe,
  type FailureKind,
  mayBeItsOwn,
  replyErrorOf,
  retryDelay,
} from '../failure-policy.js';
import { MessageIdConflictError } from '../inbox.js';
import type { MessageAnswer } from '../message-answer.js';
import { isSameMessage } from '../message-identity.js';
import type { HeldMessages } from './held-messages.js';
import type { InfrastructureWait } from './infrastructure-wait.js';
import { afterTraceOf } from './message-traces.js';
import type { Settle } from './lanes.js';
import type { MessageStore } from '../message-store.js';
import { ToldOnce } from '../telling.js';
import { publishHandled } from '../telemetry/message-events.js';

export interface FailureSettings {
  store: MessageStore | undefined;
  /** How often a message may fail for no known reason before it is dead-lettered. */
  maxAttempts: number;
  /** The same for a reason that may pass. */
  maxTransientAttempts: number;
  /** Answers a message whose outcome is safe, and reports it to the broker as done. */
  finish: (delivery: Delivery, answer: MessageAnswer) => void;
  /** Makes the message a dead letter. @throws that could not be written */
  writeDeadLetter: (delivery: Delivery, error: unknown) => Promise<void>;
  held: HeldMessages;
  infrastructure: InfrastructureWait;
}

const AFTER_INFRASTRUCTURE_MS = 100;
/** A database that has not answered for so long counts as away. */
const ANSWER_MS = 5000;

/** Decides what becomes of messages that fail. */
export class MessageFailures {
  private readonly logger = new Logger(MessageFailures.name);
  private readonly surroundings = new ToldOnce(this.logger, 'messages that waited are handled again');
  private asking: Promise<unknown> | undefined;

  constructor(private readonly settings: FailureSettings) {}

  /** True when it is not to be handled: it is another member's by now, it comes again, or it has been handled. */
  isForgotten(delivery: Delivery): boolean {
    const { held } = this.settings;
    return held.isForgotten(delivery) || held.wasHandledBefore(delivery);
  }

  /** Settles it: as done, or to be tried again. */
  async settle(delivery: Delivery, thrown: unknown, settle: Settle): Promise<void> {
    const { settings } = this;
    if (settings.held.isForgotten(delivery)) return settle(delivery, 'done');
    const { kind, error } = await this.causeOf(thrown);
    if (kind === 'infrastructure') settings.infrastructure.waitFor(error);
    else delivery.attempts++;
    await afterTraceOf(delivery, () => this.decide(delivery, error, kind, settle));
  }

  private async decide(delivery: Delivery, error: unknown, kind: FailureKind, settle: Settle): Promise<void> {
    const { settings } = this;
    const isLasting =
      kind === 'permanent' ||
      (kind === 'unexpected' && delivery.attempts >= settings.maxAttempts) ||
      (kind === 'transient' && delivery.attempts >= settings.maxTransientAttempts);
    // One that is refused for its reply address is a dead letter as well: its answer may not be where the sender reads.
    if (delivery.replyTo && !delivery.refusal) return this.answerError(delivery, error, kind, settle);
    if (isLasting) return this.deadLetter(delivery, error, settle);
    if (kind !== 'infrastructure') this.reportWait('message waits to be tried again', delivery, error, kind);
    const retryInMs = kind === 'infrastructure' ? AFTER_INFRASTRUCTURE_MS : retryDelay(delivery.attempts);
    this.tryAgain(delivery, error, retryInMs, settle);
  }

  /**
   * What a failure means, as far as the database has to be asked: a handler may make anything of one that is away, and one
   * that answers right after is not to blame for a connection that was lost.
   */
  async causeOf(error: unknown): Promise<{ kind: FailureKind; error: unknown }> {
    const kind = classify(error);
    if (kind !== 'unexpected' && kind !== 'infrastructure') return { kind, error };
    const failure = await this.reasonOfSilence();
    if (failure !== undefined) return { kind: 'infrastructure', error: failure };
    if (kind === 'unexpected') return { kind, error };
    return { kind: this.settings.store && mayBeItsOwn(error) ? 'unexpected' : 'transient', error };
  }

  /** Asks whether the database takes writes, for all who want to know at that time. @returns why it doesn't */
  private reasonOfSilence(): Promise<unknown> {
    const { store } = this.settings;
    if (!store) return Promise.resolve(undefined);
    this.asking ??= whyNoWrites(store.transactions.dataSource, ANSWER_MS)
      .then((reason) => (reason === undefined ? undefined : new DatabaseUnavailableError(new Error(reason))))
      .finally(() => (this.asking = undefined));
    return this.asking;
  }

  /** A sender who waits for a reply gets the error at once, and decides whether to send again. */
  private async answerError(
    delivery: Delivery,
    error: unknown,
    kind: FailureKind,
    settle: Settle,
  ): Promise<void> {
    const { store, finish } = this.settings;
    let answer = answerOf(error);
    // A failure that may pass is not remembered as the answer, so the message can be sent again under its id.
    const isOver = (kind === 'permanent' || kind === 'unexpected') && classify(error) !== 'infrastructure';
    // Somebody else handled the message with this id, and its answer is not to be replaced.
    if (store && isOver && !isIdConflict(error) && !(error instanceof AfterCommitError)) {
      try {
        answer = await this.keepAnswer(store, delivery, answer);
      } catch (failure) {
        return this.againWhenWritable(delivery, failure, settle);
      }
    }
    delivery.isRejected = true;
    finish(delivery, answer);
    settle(delivery, 'done');
  }

  /** So that the message, delivered again, is not applied after its sender was told that it was not. */
  private async keepAnswer(
    { transactions, inbox }: MessageStore,
    delivery: Delivery,
    answer: MessageAnswer,
  ): Promise<MessageAnswer> {
    const { message } = delivery;
    try {
      await transactions.run({ claim: inbox.claim([message]) }, async (transaction) =>
        transaction.atCommit(() => inbox.keep([{ message, answer }])),
      );
      return answer;
    } catch (error) {
      if (!(error instanceof ClaimTakenError)) throw error;
      const handled = (await inbox.find([message])).get(message.messageId);
      // The id may be another message's: then the answer is not for this sender.
      if (!handled || !isSameMessage(handled, message)) return answer;
      delivery.isRepeated = true;
      return handled.answer ?? answer;
    }
  }

  private async deadLetter(delivery: Delivery, error: unknown, settle: Settle): Promise<void> {
    const { writeDeadLetter, finish } = this.settings;
    try {
      await writeDeadLetter(delivery, error);
    } catch (failure) {
      // The message must not count as handled before its dead letter is written.
      return this.againWhenWritable(delivery, failure, settle);
    }
    this.report('message dead-lettered', delivery, error);
    finish(delivery, { error: replyErrorOf(error) });
    settle(delivery, 'done');
  }

  /** What became of the message could not be written. It is tried again; if the database is away, all other messages wait too. */
  private async againWhenWritable(delivery: Delivery, failure: unknown, settle: Settle): Promise<void> {
    const { kind, error } = await this.causeOf(failure);
    if (kind === 'infrastructure') {
      this.settings.infrastructure.waitFor(error);
      return this.tryAgain(delivery, error, AFTER_INFRASTRUCTURE_MS, settle);
    }
    this.reportWait(
      'what became of a message could not be written; it waits to be tried again',
      delivery,
      error,
      kind,
    );
    this.tryAgain(delivery, error, retryDelay(delivery.attempts), settle);
  }

  private tryAgain(delivery: Delivery, error: unknown, retryInMs: number, settle: Settle): void {
    publishHandled(delivery, 'retried', () => describe(error).code);
    settle(delivery, { retryInMs });
  }

  /** A message that had failed is handled. */
  succeeded(): void {
    this.surroundings.isOver();
  }

  private report(msg: string, delivery: Delivery, error: unknown): void {
    this.logger.warn(reportOf(msg, delivery, error));
  }

  /** What may pass keeps many messages from being handled, again and again: each such state is told, and not each attempt. */
  private reportWait(msg: string, delivery: Delivery, error: unknown, kind: FailureKind): void {
    if (kind !== 'transient') return this.report(msg, delivery, error);
    // The cause as well: where many messages share a unit of work, nobody else has told it.
    const report = { ...reportOf(msg, delivery, error), err: originalOf(error) };
    if (!this.surroundings.is(`${msg} ${report.code} ${report.detail}`, report)) this.logger.debug(report);
  }
}

function reportOf(msg: string, { message, record, attempts }: Delivery, error: unknown) {
  const { code, message: detail } = describe(error);
  return { msg, messageId: message.messageId, ...loggedPlace(record), attempts, code, detail };
}

/** What a filter of the host has given in place of the error is how its senders are told of it. */
function answerOf(error: unknown): MessageAnswer {
  const given = originOf(error).given as unknown[] | undefined;
  return given && given.length > 0 ? { values: given } : { error: replyErrorOf(error) };
}

const isIdConflict = (error: unknown) => originalOf(error) instanceof MessageIdConflictError;
