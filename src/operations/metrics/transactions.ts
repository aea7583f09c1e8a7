import type { Registry } from 'prom-client';
import {
  type TransactionBegin,
  transactionChannels,
  type TransactionCommit,
  type TransactionFailed,
  type TransactionRetry,
  type TransactionRollback,
} from '../../transactions/transaction-events.js';
import { type ChannelListeners, listenTo } from './channels.js';
import { Counts } from './counts.js';
import { Histogram } from './histogram.js';

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/**
 * Counts what units of work do, from their `diagnostics_channel`s: the process's, whichever application runs them.
 *
 * @returns ends that
 */
export function countTransactions(registry: Registry): () => void {
  const name = (text: string) => `people_transaction${text}`;
  const outcomes = new Counts({
    name: name('s_total'),
    help:
      'Units of work that ended, by outcome: committed, failed (rolled back and given up), exhausted (every attempt met a conflict), ' +
      'unknown (of each COMMIT whose answer was lost).',
    labelNames: ['outcome'],
    registry,
  });
  // So that a rate begins with the first of them.
  for (const outcome of ['committed', 'failed', 'exhausted', 'unknown']) outcomes.add(0, outcome);
  const attempts = new Histogram({
    name: name('_attempts'),
    help: 'Attempts of a unit of work that was committed.',
    buckets: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    registry,
  }).labels();
  const duration = new Histogram({
    name: name('_duration_seconds'),
    help: 'Time of a unit of work that was committed, all attempts and waits included.',
    buckets: SECONDS,
    registry,
  }).labels();
  const labelNames = ['code', 'phase'] as const;
  const retries = new Counts({
    name: name('_retries_total'),
    help: 'Attempts that failed and were repeated, by code and by where it showed: begin, statement, commit.',
    ...{ labelNames, registry },
  });
  const rollbacks = new Counts({
    name: name('_rollbacks_total'),
    help: 'Attempts that were rolled back, by code (empty for the work’s own errors) and by where it showed.',
    ...{ labelNames, registry },
  });
  const failures = new Counts({
    name: name('_failures_total'),
    help:
      'Units of work that failed, by the code of their last attempt and by where it showed: an SQLSTATE, POOL_EXHAUSTED, ' +
      'DATABASE_UNAVAILABLE, TRANSACTION_TIMEOUT, or empty for the work’s own errors.',
    ...{ labelNames, registry },
  });
  const poolWait = new Histogram({
    name: 'people_pool_wait_seconds',
    help: 'Time that an attempt waited for a connection of the pool.',
    buckets: SECONDS,
    registry,
  }).labels();
  const queueWait = new Histogram({
    name: name('_queue_wait_seconds'),
    help: 'Time that a unit of work waited for others with its conflict key.',
    buckets: SECONDS,
    registry,
  }).labels();
  const listeners: ChannelListeners<typeof transactionChannels> = {
    begin: ({ poolWaitMs }: TransactionBegin) => poolWait.observe(poolWaitMs / 1000),
    retry: ({ code, phase }: TransactionRetry) => retries.add(1, code, phase),
    rollback: ({ code, phase }: TransactionRollback) => rollbacks.add(1, code, phase),
    commit: ({ attempt, durationMs, queueWaitMs }: TransactionCommit) => {
      outcomes.add(1, 'committed');
      attempts.observe(attempt);
      duration.observe(durationMs / 1000);
      if (queueWaitMs > 0) queueWait.observe(queueWaitMs / 1000);
    },
    failed: ({ code, phase }: TransactionFailed) => {
      outcomes.add(1, 'failed');
      failures.add(1, code, phase);
    },
    exhausted: ({ code, phase }: TransactionFailed) => {
      outcomes.add(1, 'exhausted');
      failures.add(1, code, phase);
    },
    outcomeUnknown: () => outcomes.add(1, 'unknown'),
  };
  return listenTo(transactionChannels, listeners);
}
