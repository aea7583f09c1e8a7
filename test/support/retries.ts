import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import {
  TRANSACTION_RETRY_CHANNEL,
  type TransactionRetry,
} from '../../src/transactions/transaction-events.js';

/** The retries that happen while `work` runs, with what `atRetry` saw at each. */
export async function watchRetries<T>(
  work: () => Promise<T>,
  atRetry: (retry: TransactionRetry) => void = () => undefined,
): Promise<{ result: PromiseSettledResult<T>; retries: TransactionRetry[] }> {
  const retries: TransactionRetry[] = [];
  const listener = (event: unknown) => {
    retries.push(event as TransactionRetry);
    atRetry(event as TransactionRetry);
  };
  subscribe(TRANSACTION_RETRY_CHANNEL, listener);
  try {
    const [result] = await Promise.allSettled([work()]);
    return { result, retries };
  } finally {
    unsubscribe(TRANSACTION_RETRY_CHANNEL, listener);
  }
}

/** Waits for the next retry of anything. */
export function nextRetry(): Promise<TransactionRetry> {
  return new Promise((resolve) => {
    const listener = (event: unknown) => {
      unsubscribe(TRANSACTION_RETRY_CHANNEL, listener);
      resolve(event as TransactionRetry);
    };
    subscribe(TRANSACTION_RETRY_CHANNEL, listener);
  });
}
