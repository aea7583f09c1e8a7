import type { DataSource } from 'typeorm';
import type { RecyclingMethod } from '../../database/client-check.js';
import type { PipelinedStatement } from '../../database/pg/pipelined-query.js';

/** The unit of work in which somebody sends a statement. */
export interface Caller {
  readonly parent: Caller | undefined;
  /** True for a nested one that is over: what it still sends would be the outer one's, which goes on. */
  readonly isLeftOver: boolean;
}

/** A row that a transaction writes together with its COMMIT: it is there if and only if that was done. */
export interface OutcomeRow {
  readonly id: string;
  readonly statement: PipelinedStatement;
}

/** What `TransactionSession.open` is told. */
export interface SessionOptions {
  dataSource: DataSource;
  recycling: RecyclingMethod;
  /** Made when something first has to name the unit. */
  transactionId: () => string;
  /** True where its statements have spans. */
  isTraced: boolean;
  /** The statements that begin the transaction. */
  begin: readonly string[];
  /** True where it is not to write. */
  readOnly: boolean;
  /** Sent behind them, ahead of the first statement; see `ClaimTakenError`. */
  claim: PipelinedStatement | undefined;
  /** Written with COMMIT, to know afterwards whether that was done. */
  outcomeRow: OutcomeRow | undefined;
  /** True to learn the transaction's id before COMMIT, so that a lost COMMIT can be asked for. */
  tracksXid: boolean;
  /** True to have the id given with the first statement, for a unit that will write: then its last one may travel with COMMIT. */
  assignsXid: boolean;
  /** Ends every wait; its reason is thrown. */
  signal: AbortSignal | undefined;
  statementTimeoutMs: number | undefined;
  /** Ms left of the unit's budget; undefined without one. */
  remainingMs: () => number | undefined;
  /** In which unit of work a statement is sent; undefined for code that runs in none. */
  caller: () => Caller | undefined;
  /** True for a failure that repeats the whole unit, also where the work rolls back to a savepoint. */
  isRetryable: (error: unknown) => boolean;
}
