import { AfterCommitError, ClaimTakenError } from '../../transactions/transaction-errors.js';
import { LockTimeoutError } from '../../database/postgres-errors.js';
import type { CrashSuspects } from '../dead-letters/suspects.js';
import type { Delivery } from '../delivery.js';
import { mayBeItsOwn } from '../failure-policy.js';
import { MessageIdConflictError } from '../inbox.js';
import type { KeyQuarantine } from '../dead-letters/quarantine.js';
import type { HandledMessage, MessageAnswer } from '../message-answer.js';
import { isSameMessage } from '../message-identity.js';
import { inTraceOf, inTraceOfBatch } from './message-traces.js';
import { HandledApartError } from './batch-handlers.js';
import { type BatchWork, halvesOf, readTogether, withoutApart } from './batch-work.js';
import type { MessageFailures } from './failures.js';
import { endedInTime } from './handler-time.js';
import type { MessageStore } from '../message-store.js';
import type { Settle } from './lanes.js';

export interface ProcessorSettings {
  store: MessageStore | undefined;
  /** Calls handlers. @returns the values that they gave */
  calls: { call(delivery: Delivery): Promise<unknown[]> };
  /** How long a batch handler is waited for. */
  handlerTimeoutMs: number;
  /** Answers a message whose outcome is safe, and reports it to the broker as done. */
  finish: (delivery: Delivery, answer: MessageAnswer) => void;
  failures: MessageFailures;
  /** Both undefined without a store. */
  quarantine: KeyQuarantine | undefined;
  crashes: CrashSuspects | undefined;
}

/** A batch waits for a lock no longer than this: the others of the batch are not to wait for one message. */
const BATCH_LOCK_TIMEOUT_MS = 1000;

/**
 * A batch is handled so often without the messages that have to be handled apart. Where their effects make others fail, as of many
 * messages about one thing, that could be once for each of them: from then on it is halved.
 */
const PARTED_AT_MOST = 4;

/** How messages are tried together. */
interface Trial {
  /** Rows that others have locked are not waited for. */
  skipsLocked: boolean;
  /** How often the batch that they are of was taken apart. */
  timesParted: number;
}
const FIRST_TRIAL: Trial = { skipsLocked: false, timesParted: 0 };

/** Handles messages, alone or in one transaction. */
export class MessageProcessor {
  constructor(private readonly settings: ProcessorSettings) {}

  /** Settles each message of the batch, except those whose lane waits for an earlier one to be tried again. */
  async handle(batch: readonly Delivery[], settle: Settle): Promise<void> {
    const { crashes, failures } = this.settings;
    const blocked = new Set<string>();
    const run: Run = {
      blocked,
      settle: (delivery, how) => {
        if (how !== 'done') blocked.add(delivery.laneKey);
        settle(delivery, how);
      },
    };
    if (!crashes) return this.handleAll(batch, run);
    await crashes.watch(
      batch,
      (these) => this.handleAll(these, run),
      async (delivery, error) => {
        if (!blocked.has(delivery.laneKey)) await failures.settle(delivery, error, run.settle);
        return !blocked.has(delivery.laneKey);
      },
    );
  }

  private async handleAll(batch: readonly Delivery[], run: Run): Promise<void> {
    const { store } = this.settings;
    if (store && batch[0]?.isBatchable) return this.handleTogether(store, batch, run);
    for (const delivery of batch) await this.handleAlone(delivery, run);
  }

  private async handleAlone(delivery: Delivery, run: Run): Promise<void> {
    if ((await this.admitted([delivery], run)).length === 0) return;
    try {
      this.succeeded(delivery, await inTraceOf(delivery, () => this.settings.calls.call(delivery)), run);
    } catch (error) {
      await this.settings.failures.settle(delivery, error, run.settle);
    }
  }

  /** In one transaction. If a message fails, the ones before it, that one, and the ones behind it are handled apart. */
  private async handleTogether(
    store: MessageStore,
    whole: readonly Delivery[],
    run: Run,
    { skipsLocked, timesParted }: Trial = FIRST_TRIAL,
  ): Promise<void> {
    const batch = await this.admitted(whole, run);
    if (batch.length === 0) return;
    // Whose fault it is where several are handled at once is not known.
    const reached = { index: batch.length };
    let work: BatchWork | undefined;
    try {
      work = await readTogether(batch, skipsLocked);
      const results = await inTraceOfBatch(batch, () => this.applyTogether(store, batch, work, reached));
      batch.forEach((delivery, index) => this.succeeded(delivery, results[index]!, run));
    } catch (error) {
      if (error instanceof ClaimTakenError) return this.withoutHandled(store, batch, run);
      if (error instanceof HandledApartError) {
        const isHalved = timesParted >= PARTED_AT_MOST;
        const parts = isHalved ? halvesOf(batch) : withoutApart(batch, error);
        const next = { skipsLocked: isHalved && skipsLocked, timesParted: timesParted + 1 };
        for (const part of parts) await this.handleTogether(store, part, run, next);
        return;
      }
      if (work && !skipsLocked && error instanceof LockTimeoutError)
        return this.handleTogether(store, batch, run, { skipsLocked: true, timesParted });
      if (batch.length === 1) return this.settings.failures.settle(batch[0]!, error, run.settle);
      const { kind } = await this.settings.failures.causeOf(error);
      if (error instanceof AfterCommitError || kind === 'infrastructure' || !mayBeItsOwn(error)) {
        for (const delivery of batch) await this.settings.failures.settle(delivery, error, run.settle);
        return;
      }
      // Where COMMIT failed, or a batch handler, any of them may be the cause, so each half is tried by itself.
      const { index } = reached;
      const parts =
        index < batch.length
          ? [batch.slice(0, index), [batch[index]!], batch.slice(index + 1)]
          : halvesOf(batch);
      for (const part of parts) await this.handleTogether(store, part, run, { skipsLocked, timesParted });
    }
  }

  /** Those to be handled now: not those whose lane waits for an earlier message, and not those that have to be parked. */
  private async admitted(batch: readonly Delivery[], run: Run): Promise<readonly Delivery[]> {
    const { quarantine, failures } = this.settings;
    const admitted: Delivery[] = [];
    let known: Promise<void> | undefined;
    for (const delivery of batch) {
      if (run.blocked.has(delivery.laneKey)) continue;
      // An earlier message of its key may be another member's now and not handled yet: this one would overtake it.
      if (failures.isForgotten(delivery)) {
        run.settle(delivery, 'done');
        continue;
      }
      try {
        // Read once for the batch. If that fails, each message of the batch has failed with it.
        await (known ??= quarantine?.fresh.known());
        if (quarantine?.holds(delivery) && (await quarantine.park(delivery))) {
          this.settings.finish(delivery, { values: [] });
          run.settle(delivery, 'done');
        } else admitted.push(delivery);
      } catch (error) {
        await failures.settle(delivery, error, run.settle);
      }
    }
    return admitted;
  }

  private applyTogether(
    { transactions, inbox }: MessageStore,
    batch: readonly Delivery[],
    work: BatchWork | undefined,
    reached: { index: number },
  ): Promise<unknown[][]> {
    const claim = inbox.claim(batch.map(({ message }) => message));
    const options = batch.length > 1 ? { lockTimeoutMs: BATCH_LOCK_TIMEOUT_MS } : {};
    return transactions.run({ ...options, claim }, async (transaction) => {
      const results = work
        ? await endedInTime(batch[0]!.record.topic, this.settings.handlerTimeoutMs, work)
        : await this.oneByOne(batch, reached);
      const answered = batch.flatMap(({ message, replyTo }, index) =>
        replyTo ? [{ message, answer: { values: results[index]! } }] : [],
      );
      transaction.atCommit(() => inbox.keep(answered));
      return results;
    });
  }

  private async oneByOne(batch: readonly Delivery[], reached: { index: number }): Promise<unknown[][]> {
    const results: unknown[][] = [];
    for (reached.index = 0; reached.index < batch.length; reached.index++)
      results.push(await this.callOneOf(batch, reached.index));
    return results;
  }

  private callOneOf(batch: readonly Delivery[], index: number): Promise<unknown[]> {
    const delivery = batch[index]!;
    const call = () => this.settings.calls.call(delivery);
    return batch.length === 1 ? call() : inTraceOf(delivery, call);
  }

  /** Some were handled before, and are answered as they were then; or some have one id and are in the batch twice. */
  private async withoutHandled(store: MessageStore, batch: readonly Delivery[], run: Run): Promise<void> {
    this.settings.quarantine?.fresh.markStale();
    const handled = await store.inbox
      .find(batch.map(({ message }) => message))
      .catch((error: unknown) => error);
    if (!(handled instanceof Map)) {
      for (const delivery of batch) await this.settings.failures.settle(delivery, handled, run.settle);
      return;
    }
    const rest: Delivery[] = [];
    for (const delivery of batch) {
      const { messageId } = delivery.message;
      const earlier = (handled as Map<string, HandledMessage>).get(messageId);
      if (earlier) await this.handledBefore(delivery, earlier, run);
      else if (rest.some(({ message }) => message.messageId === messageId)) {
        // What the second of two with one id is can be told once the first is handled.
        await this.handleTogether(store, rest.splice(0), run);
        await this.handleTogether(store, [delivery], run);
      } else rest.push(delivery);
    }
    await this.handleTogether(store, rest, run);
  }

  private async handledBefore(delivery: Delivery, handled: HandledMessage, run: Run): Promise<void> {
    const { message } = delivery;
    if (!isSameMessage(handled, message))
      return this.settings.failures.settle(
        delivery,
        new MessageIdConflictError(message.messageId),
        run.settle,
      );
    delivery.isRepeated = true;
    this.settings.finish(delivery, handled.answer ?? { values: [] });
    run.settle(delivery, 'done');
  }

  private succeeded(delivery: Delivery, values: unknown[], { settle }: Run): void {
    this.settings.finish(delivery, { values });
    settle(delivery, 'done');
    if (delivery.attempts > 0) this.settings.failures.succeeded();
  }
}

/** The handling of one batch. */
interface Run {
  settle: Settle;
  /** Lanes with a message that is to be tried again: what is behind it waits. */
  blocked: Set<string>;
}
