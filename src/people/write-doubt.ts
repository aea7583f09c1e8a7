import { setTimeout as sleep } from 'node:timers/promises';
import { ApplicationError } from '../errors/application-error.js';
import { ShuttingDownError, TransactionOutcomeUnknownError } from '../transactions/transaction-errors.js';
import type { TransactionRetry } from '../transactions/transaction-events.js';

/** How long the database is asked what became of a write. */
const ASK_FOR_MS = 10_000;
const ASK_EVERY_MS = 250;

/**
 * Whether an attempt at a single write may have been applied without an answer. From there on the caller hears of success, or
 * that the outcome is unknown: never of a refusal that the write itself may have brought about.
 */
export class WriteDoubt {
  error: TransactionOutcomeUnknownError | undefined;

  /** For the write's options. */
  readonly beforeRetry = ({ error }: TransactionRetry): void => {
    if (error instanceof TransactionOutcomeUnknownError) this.error ??= error;
  };

  /** What `write` gives; undefined where its outcome is unknown. @throws what it throws else */
  async of<T>(write: Promise<T>): Promise<T | undefined> {
    try {
      return await write;
    } catch (error) {
      if (!(error instanceof TransactionOutcomeUnknownError)) throw error;
      this.error = error;
      return undefined;
    }
  }

  /**
   * Asks what is there, in doubt until the database answers.
   *
   * @param ask is told whether it is to prove something, so that a server which takes no writes is no one to ask
   * @throws what `ask` throws, in doubt that the outcome is unknown
   */
  async ask<T>(ask: (isProof: boolean) => Promise<T>): Promise<T> {
    const since = performance.now();
    for (;;) {
      try {
        return await ask(this.error !== undefined);
      } catch (error) {
        if (!this.error) throw error;
        const mayPass = error instanceof ApplicationError && error.retryable;
        const isOver = error instanceof ShuttingDownError || performance.now() - since > ASK_FOR_MS;
        if (!mayPass || isOver) throw this.error;
      }
      await sleep(ASK_EVERY_MS);
    }
  }
}
