import { Logger } from '@nestjs/common';
import { originalOf } from '../errors/error-responses.js';
import { AfterCommitError, ClaimTakenError } from '../transactions/transaction-errors.js';
import type { Delivery } from './delivery.js';
import { classify, describe, type FailureKind, replyErrorOf, retryDelay } from './failure-policy.js';
import { MessageIdConflictError } from './inbox.js';
import type { HandledMessage, MessageAnswer } from './message-answer.js';
import { placeIdOf } from './message-identity.js';
import type { MessageStore } from './message-store.js';
import type { Settle } from './message-lanes.js';

export interface ProcessorSettings {
  store: MessageStore | undefined;
  /** How often a message may fail for no known reason before it is dead-lettered. */
  maxAttempts: number;
  /** Calls the handler. @returns the values it gave */
  call: (delivery: Delivery) => Promise<unknown[]>;
  /** The message is handled: answers it, and lets its offset move. */
  finish: (delivery: Delivery, answer: MessageAnswer) => void;
  /** Sends a dead letter where there is no store to put it into. */
  sendDeadLetter: (delivery: Delivery, error: unknown) => Promise<void>;
  /** True when its partition is another member's by now. */
  isForgotten: (delivery: Delivery) => boolean;
  /** Nothing can be handled at the moment. */
  onInfrastructureFailure: (error: unknown) => void;
}

/** A batch waits for a lock no longer than this: the others of the batch are not to wait for one message. */
const BATCH_LOCK_TIMEOUT_MS = 1000;
const AFTER_INFRASTRUCTURE_MS = 100;

/** Handles messages and decides what becomes of those that fail. */
export class MessageProcessor {
  private readonly logger = new Logger(MessageProcessor.name);

  constructor(private readonly settings: ProcessorSettings) {}

  /** Settles each of the batch, but those behind one of the same lane that is to be tried again. */
  async handle(batch: readonly Delivery[], settle: Settle): Promise<void> {
    const { store } = this.settings;
    const blocked = new Set<string>();
    const run: Run = {
      blocked,
      settle: (delivery, how) => {
        if (how !== 'done') blocked.add(delivery.laneKey);
        settle(delivery, how);
      },
    };
    if (store && batch[0]!.isBatchable) return this.handleTogether(store, batch, run);
    for (const delivery of batch) await this.handleAlone(delivery, run);
  }

  private async handleAlone(delivery: Delivery, run: Run): Promise<void> {
    try {
      this.succeeded(delivery, await this.settings.call(delivery), run);
    } catch (error) {
      await this.failed(delivery, error, run);
    }
  }

  /** In one transaction. The message that fails is handled by itself, and those before and behind it without it. */
  private async handleTogether(store: MessageStore, whole: readonly Delivery[], run: Run): Promise<void> {
    const batch = whole.filter(({ laneKey }) => !run.blocked.has(laneKey));
    if (batch.length === 0) return;
    const reached = { index: 0 };
    try {
      const results = await this.applyTogether(store, batch, reached);
      batch.forEach((delivery, index) => this.succeeded(delivery, results[index]!, run));
    } catch (error) {
      if (error instanceof ClaimTakenError) return this.withoutHandled(store, batch, run);
      if (batch.length === 1) return this.failed(batch[0]!, error, run);
      if (error instanceof AfterCommitError || classify(error) === 'infrastructure') {
        for (const delivery of batch) await this.failed(delivery, error, run);
        return;
      }
      // At COMMIT nobody knows which it was.
      const { index } = reached;
      const half = Math.ceil(batch.length / 2);
      const parts =
        index < batch.length
          ? [batch.slice(0, index), [batch[index]!], batch.slice(index + 1)]
          : [batch.slice(0, half), batch.slice(half)];
      for (const part of parts) await this.handleTogether(store, part, run);
    }
  }

  private applyTogether(
    { transactions, inbox }: MessageStore,
    batch: readonly Delivery[],
    reached: { index: number },
  ): Promise<unknown[][]> {
    const claim = inbox.claim(batch.map(({ message }) => message));
    const options = batch.length > 1 ? { lockTimeoutMs: BATCH_LOCK_TIMEOUT_MS } : {};
    return transactions.run({ ...options, claim }, async (transaction) => {
      const results: unknown[][] = [];
      for (reached.index = 0; reached.index < batch.length; reached.index++)
        results.push(await this.settings.call(batch[reached.index]!));
      const answered = batch.flatMap(({ message, replyTo }, index) =>
        replyTo ? [{ message, answer: { values: results[index]! } }] : [],
      );
      transaction.atCommit(() => inbox.keep(answered));
      return results;
    });
  }

  /** Some were handled before, or stand twice in the batch; the former are answered as they were then. */
  private async withoutHandled(store: MessageStore, batch: readonly Delivery[], run: Run): Promise<void> {
    const handled = await store.inbox
      .find(batch.map(({ message }) => message))
      .catch((error: unknown) => error);
    if (!(handled instanceof Map)) {
      for (const delivery of batch) await this.failed(delivery, handled, run);
      return;
    }
    const rest: Delivery[] = [];
    for (const delivery of batch) {
      const { messageId } = delivery.message;
      const earlier = (handled as Map<string, HandledMessage>).get(messageId);
      if (earlier) await this.handledBefore(delivery, earlier, run);
      else if (rest.some(({ message }) => message.messageId === messageId)) {
        // The second is looked at once the first is handled.
        await this.handleTogether(store, rest.splice(0), run);
        await this.handleTogether(store, [delivery], run);
      } else rest.push(delivery);
    }
    await this.handleTogether(store, rest, run);
  }

  private async handledBefore(
    delivery: Delivery,
    { digest, answer }: HandledMessage,
    run: Run,
  ): Promise<void> {
    const { messageId, digest: own } = delivery.message;
    if (digest !== own) return this.failed(delivery, new MessageIdConflictError(messageId), run);
    this.settings.finish(delivery, answer ?? { values: [] });
    run.settle(delivery, 'done');
  }

  private succeeded(delivery: Delivery, values: unknown[], { settle }: Run): void {
    this.settings.finish(delivery, { values });
    settle(delivery, 'done');
  }

  private async failed(delivery: Delivery, error: unknown, run: Run): Promise<void> {
    const { settings } = this;
    if (settings.isForgotten(delivery)) return run.settle(delivery, 'done');
    const kind = await this.kindOf(error, delivery);
    if (kind === 'infrastructure') settings.onInfrastructureFailure(error);
    else delivery.attempts++;
    const isLasting =
      kind === 'permanent' || (kind === 'unexpected' && delivery.attempts >= settings.maxAttempts);
    if (delivery.replyTo) return this.answerError(delivery, error, kind, run);
    if (isLasting) return this.deadLetter(delivery, error, run);
    if (kind !== 'infrastructure') this.report('message waits to be tried again', delivery, error);
    run.settle(delivery, {
      retryInMs: kind === 'infrastructure' ? AFTER_INFRASTRUCTURE_MS : retryDelay(delivery.attempts),
    });
  }

  /** What a handler makes of a database that is away need not look like it, so it is asked. */
  private async kindOf(error: unknown, { message }: Delivery): Promise<FailureKind> {
    const kind = classify(error);
    const { store } = this.settings;
    if (kind !== 'unexpected' || !store) return kind;
    return store.inbox.find([message]).then(
      () => kind,
      (failure: unknown) => (classify(failure) === 'infrastructure' ? 'infrastructure' : kind),
    );
  }

  /** A sender who waits is told at once, and may send again what is worth it. */
  private async answerError(delivery: Delivery, error: unknown, kind: FailureKind, run: Run): Promise<void> {
    const { store, finish } = this.settings;
    let answer: MessageAnswer = { error: replyErrorOf(error) };
    const isOver = kind === 'permanent' || kind === 'unexpected';
    // Somebody else handled the message with this id, and its answer is not to be replaced.
    if (store && isOver && !isIdConflict(error) && !(error instanceof AfterCommitError)) {
      try {
        answer = await this.keepAnswer(store, delivery, answer);
      } catch (failure) {
        this.settings.onInfrastructureFailure(failure);
        return run.settle(delivery, { retryInMs: AFTER_INFRASTRUCTURE_MS });
      }
    }
    finish(delivery, answer);
    run.settle(delivery, 'done');
  }

  /** So that the message, delivered again, is not applied after its sender was told that it was not. */
  private async keepAnswer(
    { transactions, inbox }: MessageStore,
    { message }: Delivery,
    answer: MessageAnswer,
  ): Promise<MessageAnswer> {
    try {
      await transactions.run({ claim: inbox.claim([message]) }, async (transaction) =>
        transaction.atCommit(() => inbox.keep([{ message, answer }])),
      );
      return answer;
    } catch (error) {
      if (!(error instanceof ClaimTakenError)) throw error;
      return (await inbox.find([message])).get(message.messageId)?.answer ?? answer;
    }
  }

  private async deadLetter(delivery: Delivery, error: unknown, run: Run): Promise<void> {
    const { store, sendDeadLetter, finish } = this.settings;
    // By its own id it is marked already: as the other message.
    const dead = isIdConflict(error) ? knownByPlace(delivery) : delivery;
    try {
      await (store ? store.deadLetters.add(dead, describe(error)) : sendDeadLetter(dead, error));
    } catch (failure) {
      // Nothing is marked as handled before its dead letter is safe.
      this.settings.onInfrastructureFailure(failure);
      return run.settle(delivery, { retryInMs: AFTER_INFRASTRUCTURE_MS });
    }
    this.report('message dead-lettered', delivery, error);
    finish(delivery, { values: [] });
    run.settle(delivery, 'done');
  }

  private report(msg: string, { message, record, attempts }: Delivery, error: unknown): void {
    const { topic, partition, offset } = record;
    const { code, message: detail } = describe(error);
    const where = { messageId: message.messageId, topic, partition, offset: String(offset) };
    this.logger.warn({ msg, ...where, attempts, code, detail });
  }
}

const isIdConflict = (error: unknown) => originalOf(error) instanceof MessageIdConflictError;

const knownByPlace = (delivery: Delivery): Delivery => ({
  ...delivery,
  message: { ...delivery.message, messageId: placeIdOf(delivery.record) },
});

/** The handling of one batch. */
interface Run {
  settle: Settle;
  /** Lanes with a message that is to be tried again: what is behind it waits. */
  blocked: Set<string>;
}
