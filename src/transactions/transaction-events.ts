import { channel } from 'node:diagnostics_channel';

/** Where a failure showed: before the first statement was done, in a statement or the work, or at COMMIT. */
export type TransactionPhase = 'begin' | 'statement' | 'commit';

/** What every event of a unit of work tells. */
export interface TransactionEvent {
  /** The same for every attempt. */
  readonly transactionId: string;
  /** The attempt it is about; 1 is the first. */
  readonly attempt: number;
}

/** An attempt begins: it has its connection. */
export interface TransactionBegin extends TransactionEvent {
  /** Waited for a free connection, in ms. */
  poolWaitMs: number;
}

/** A failure that is answered with another attempt. */
export interface TransactionRetry extends TransactionEvent {
  /** As in `TransactionRollback`. */
  code: string;
  /** Where it showed. */
  phase: TransactionPhase;
  /** Wait before the next attempt, in ms. */
  delayMs: number;
  /** What ended the attempt. */
  error: unknown;
}

/** A unit of work is committed. */
export interface TransactionCommit extends TransactionEvent {
  /** From its begin to the confirmed commit, all attempts and waits included, in ms. */
  durationMs: number;
  /** Waited for the turn of its `conflictKey`, in ms. */
  queueWaitMs: number;
}

/** An attempt was rolled back, whatever follows. */
export interface TransactionRollback extends TransactionEvent {
  /**
   * SQLSTATE of the failure, also where the work has made something else of it. Where the server gave none, what our error says:
   * `POOL_EXHAUSTED` or `DATABASE_UNAVAILABLE` where there was no connection, or it was lost, `TRANSACTION_TIMEOUT`, and
   * `CONFLICT_QUEUE_FULL` or `CONFLICT_KEY_DEADLOCK` where it had to wait for others of its key. Empty where it was the work's own.
   */
  code: string;
  /** Where it showed. */
  phase: TransactionPhase;
}

/**
 * A unit of work is given up after this attempt, and rolled back. One that has used up its attempts is `exhausted` instead; one
 * that did not have the turn of its `conflictKey` has made none, and its `attempt` is 0.
 */
export type TransactionFailed = TransactionRollback;

/** A unit of work used up its attempts. */
export type TransactionExhausted = TransactionRollback;

/** What became of a COMMIT could not be learnt. */
export interface TransactionOutcomeUnknown extends TransactionEvent {
  /** PostgreSQL's id of the transaction; undefined where it had none, or the server has no such ids. */
  xid: string | undefined;
}

const event = (name: string) => channel(`nestjs-people:transaction:${name}`);

/**
 * The `diagnostics_channel`s of every unit of work in this process; each is named `nestjs-people:transaction:<name>` and
 * costs nothing while nobody listens.
 */
export const transactionChannels = {
  /** TransactionBegin */
  begin: event('begin'),
  /** TransactionRetry */
  retry: event('retry'),
  /** TransactionCommit */
  commit: event('commit'),
  /** TransactionRollback */
  rollback: event('rollback'),
  /** TransactionFailed */
  failed: event('failed'),
  /** TransactionExhausted */
  exhausted: event('exhausted'),
  /** TransactionOutcomeUnknown */
  outcomeUnknown: event('outcome-unknown'),
} as const;

/** Name of the channel on which every failed attempt that will be repeated is published as `TransactionRetry`. */
export const TRANSACTION_RETRY_CHANNEL = transactionChannels.retry.name as string;
