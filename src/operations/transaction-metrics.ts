import { Counter, type Registry } from 'prom-client';
import {
  type TransactionBegin,
  transactionChannels,
  type TransactionCommit,
  type TransactionRetry,
  type TransactionRollback,
} from '../transactions/transaction-events.js';
import { Histogram } from './histogram.js';

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
type Channels = typeof transactionChannels;
type Listener = (event: unknown) => void;

/** What units of work do, counted from their `diagnostics_channel`s. The process's, whichever application runs them. */
export class TransactionMetrics {
  private readonly listeners: Record<keyof Channels, Listener>;

  constructor(registry: Registry) {
    const registers = [registry];
    const name = (text: string) => `people_transaction${text}`;
    const outcomes = new Counter({
      name: name('s_total'),
      help: 'Units of work that ended, by outcome: committed, exhausted (every attempt met a conflict), unknown.',
      labelNames: ['outcome'],
      registers,
    });
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
    const retries = new Counter({
      name: name('_retries_total'),
      help: 'Attempts that failed and were repeated, by SQLSTATE and by where it showed: begin, statement, commit.',
      labelNames: ['code', 'phase'],
      registers,
    });
    const rollbacks = new Counter({
      name: name('_rollbacks_total'),
      help: 'Attempts that were rolled back, by SQLSTATE (empty for the work’s own errors) and by where it showed.',
      labelNames: ['code', 'phase'],
      registers,
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
    this.listeners = {
      begin: (event) => poolWait.observe((event as TransactionBegin).poolWaitMs / 1000),
      retry: (event) => {
        const { code, phase } = event as TransactionRetry;
        retries.inc({ code, phase });
      },
      rollback: (event) => {
        const { code, phase } = event as TransactionRollback;
        rollbacks.inc({ code, phase });
      },
      commit: (event) => {
        const { attempt, durationMs, queueWaitMs } = event as TransactionCommit;
        outcomes.inc({ outcome: 'committed' });
        attempts.observe(attempt);
        duration.observe(durationMs / 1000);
        if (queueWaitMs > 0) queueWait.observe(queueWaitMs / 1000);
      },
      exhausted: (_: unknown) => outcomes.inc({ outcome: 'exhausted' }),
      outcomeUnknown: (_: unknown) => outcomes.inc({ outcome: 'unknown' }),
    };
  }

  watch(): void {
    for (const [name, listener] of Object.entries(this.listeners)) {
      transactionChannels[name as keyof Channels].subscribe(listener);
    }
  }

  unwatch(): void {
    for (const [name, listener] of Object.entries(this.listeners)) {
      transactionChannels[name as keyof Channels].unsubscribe(listener);
    }
  }
}
