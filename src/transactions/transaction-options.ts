import { ISOLATION_LEVELS, type IsolationLevel } from '../database/data-source-options.js';
import { PREPARED_STATEMENTS, type PreparedStatements } from '../database/known-server.js';
import type { RecyclingMethod } from '../database/pooled-client.js';
import type { Backoff, RetryPolicy } from './retry-policy.js';
import type { TransactionRetry } from './transaction-events.js';
import type { PipelinedStatement } from '../database/pg/pipelined-query.js';
import { type TransactionOutcomeUnknownError, TransactionUsageError } from './transaction-errors.js';

const PROPAGATIONS = ['REQUIRED', 'REQUIRES_NEW', 'MANDATORY', 'NESTED'] as const;

/**
 * What a unit of work does where another one runs already.
 *
 * - `REQUIRED` joins it, or begins one. The outermost alone commits and repeats.
 * - `REQUIRES_NEW` is on its own, on a second connection: it commits, repeats and fails without the other.
 * - `MANDATORY` joins it; without one it is a mistake.
 * - `NESTED` joins it behind a savepoint, so that its failure can be caught and leaves what came before it; without one it
 *   begins one. It is never repeated by itself: a savepoint keeps the snapshot that the conflict is about.
 */
export type Propagation = (typeof PROPAGATIONS)[number];

/**
 * How one unit of work is run; what is left out comes from `TransactionsModule.forRoot`. Where the unit joins another, that
 * one's options count: only `propagation`, and what contradicts the other, are looked at.
 */
export interface TransactionOptions {
  /** Without it the session's default (`default_transaction_isolation`). */
  isolationLevel?: IsolationLevel;
  /** True: the server refuses to change anything. False: also where the session's default is read only. */
  readOnly?: boolean;
  /** Waits for a snapshot that can't meet a serialization failure. Only with `SERIALIZABLE` and `readOnly: true`. */
  deferrable?: boolean;
  /** Attempts in all, the first included: 1 to 10. Default 10. */
  maxAttempts?: number;
  /** The wait between attempts, without a connection. Default 25 ms doubling up to 250 ms, half of it random. */
  backoff?: Backoff;
  /**
   * Budget in ms over all attempts, with every wait: for the turn of its `conflictKey`, for a connection, for the server,
   * between attempts. Default none. When it ends while COMMIT is under way, the outcome is asked for as after a lost
   * connection.
   */
  timeoutMs?: number;
  /** How long a statement may wait for a lock, in ms (`lock_timeout`, for this transaction only). */
  lockTimeoutMs?: number;
  /** How long a statement may run, in ms (`statement_timeout`, for this transaction only). */
  statementTimeoutMs?: number;
  /** How long the transaction may wait for its next statement, in ms (`idle_in_transaction_session_timeout`). */
  idleInTransactionTimeoutMs?: number;
  /** Which failures are repeated: SQLSTATEs in place of 40001 and 40P01, or a function that decides. */
  retryOn?: RetryPolicy;
  /** Default `REQUIRED`. */
  propagation?: Propagation;
  /** True when the work may be applied twice: it is then repeated also when the outcome of a COMMIT stays unknown. */
  idempotent?: boolean;
  /**
   * What a lost COMMIT leads to. `resolve` asks the server what became of the transaction (`pg_xact_status`): committed
   * gives the result, aborted is repeated, undecided is TransactionOutcomeUnknownError. `row` writes a row with each COMMIT and
   * looks for it, which works on every engine (table `transaction_outcome`, see `transactionMigrations`). `report` is the error at
   * once, as is `resolve` where the server has no transaction ids. Default `resolve`; a unit of one statement, which needs no COMMIT, resolves only where it is asked for here.
   */
  commitOutcome?: 'resolve' | 'row' | 'report';
  /** Units of work with the same key run one after another in this process, and wait before they take a connection. */
  conflictKey?: string;
  /**
   * Called before each further attempt, after the wait. `false` ends the attempts as if they were used up; what it throws
   * is what the caller gets.
   */
  beforeRetry?: (retry: TransactionRetry) => boolean | void | Promise<boolean | void>;
}

/** Options of one unit of work that no default can be given for. */
export interface UnitOptions extends TransactionOptions {
  /** An INSERT that travels ahead of the first statement; where its row is there already, ClaimTakenError. */
  claim?: PipelinedStatement;
  /** True: part of something that had begun before, which goes on while the application stops, until the deadline. */
  continues?: boolean;
  /** An attempt at the same was made before, and may have been applied: nothing is told as if it was not. */
  doubt?: TransactionOutcomeUnknownError;
}

/**
 * The options of a unit of work, with the defaults behind them: as their prototype, since to copy them into one object takes longer
 * than all else that is done for a single statement.
 */
export const withDefaults = <Options extends UnitOptions>(
  options: Options,
  defaults: TransactionRunnerSettings,
): Options & TransactionRunnerSettings =>
  Object.setPrototypeOf({ ...options }, defaults) as Options & TransactionRunnerSettings;

/** What a query on the pool inside of a unit of work leads to: such a query is no part of the transaction. */
export type PoolQueryMode = 'warn' | 'throw' | 'off';

/**
 * What TypeORM's repositories, managers and DataSource do inside of a unit of work, unless they are the unit's own.
 *
 * - `join`: they run in it. What can't is refused.
 * - `throw`: they are refused.
 * - `warn`: they are outside of it, on a connection of their own, and each statement is told of in the log once.
 * - `off`: they are outside of it.
 */
export type RepositoryMode = 'join' | PoolQueryMode;

/** Options of a `TransactionRunner`: defaults for every unit of work, and what concerns all of them together. */
export interface TransactionRunnerSettings extends Omit<
  TransactionOptions,
  'propagation' | 'conflictKey' | 'beforeRetry' | 'idempotent'
> {
  /**
   * How long a connection is waited for, in ms, where the DataSource does not say it (`connectTimeoutMS`): TypeORM's pool would have a
   * unit of work wait for ever. Then PoolExhaustedError. Default 10,000.
   */
  acquireTimeoutMs?: number;
  /** What is checked when a client leaves the pool. Default `fast`. */
  recycling?: RecyclingMethod;
  /**
   * `unnamed`: nothing depends on what a connection has prepared, as behind a pooler whose connections change from one transaction
   * to the next. `named`, the default, is faster, and falls back to the other where names are seen not to hold. For all units of the
   * DataSource.
   */
  preparedStatements?: PreparedStatements;
  /**
   * False: each single statement of `PeopleService` travels by itself. Otherwise those that are ready together share a statement and
   * its commit, where nothing is asked for that would need a transaction begun for one alone. Default true.
   */
  sharedStatements?: boolean;
  /**
   * True: statements carry a comment that names their request and their trace (sqlcommenter), for the server's log and
   * `pg_stat_activity`. Each is then a text of its own, so it is parsed and planned anew and shared with no others. Default false.
   */
  statementComments?: boolean;
  /**
   * What a repository of `@InjectRepository`, `dataSource.manager` or `dataSource.query` does while the code that asks for it runs in
   * a unit of work. Holds for the DataSource, whoever runs units on it. Default `warn`.
   */
  repositories?: RepositoryMode;
  /** The same setting by its older name, without `join`. */
  poolQueries?: PoolQueryMode;
  /** How long stopping waits for units of work that run, in ms; then their connections are cut. Default 20,000. */
  drainTimeoutMs?: number;
  /** Units of work of one `conflictKey` that may wait at most. Default 1,000. */
  conflictQueueSize?: number;
}

const MOST_MS = 2 ** 31 - 1;
const WHOLE_NUMBERS = new Map<string, readonly [number, number]>([
  ['maxAttempts', [1, 10]],
  ['timeoutMs', [1, MOST_MS]],
  ['acquireTimeoutMs', [1, MOST_MS]],
  ['lockTimeoutMs', [1, MOST_MS]],
  ['statementTimeoutMs', [1, MOST_MS]],
  ['idleInTransactionTimeoutMs', [1, MOST_MS]],
  ['drainTimeoutMs', [0, MOST_MS]],
  ['conflictQueueSize', [1, MOST_MS]],
]);
const CHOICES = new Map<string, readonly string[]>([
  ['isolationLevel', ISOLATION_LEVELS],
  ['propagation', PROPAGATIONS],
  ['commitOutcome', ['resolve', 'row', 'report']],
  ['repositories', ['join', 'throw', 'warn', 'off']],
  ['poolQueries', ['warn', 'throw', 'off']],
  ['preparedStatements', PREPARED_STATEMENTS],
]);

/**
 * Refuses options that are out of range or contradict each other, before anything is begun.
 *
 * @param merged the same with their defaults, which are in range
 * @throws TransactionUsageError names the option and what is accepted
 */
export function validateOptions(
  options: TransactionOptions & TransactionRunnerSettings,
  merged = options,
): void {
  // A unit of work has few options of its own, so those are looked at and not all that there might be.
  for (const [name, value] of Object.entries(options)) if (value !== undefined) assertInRange(name, value);
  const { deferrable, isolationLevel, readOnly, conflictKey } = merged;
  if (merged.repositories && merged.poolQueries)
    throw new TransactionUsageError(
      'repositories and poolQueries are the same setting: leave out poolQueries',
    );
  if (deferrable && !(isolationLevel === 'SERIALIZABLE' && readOnly))
    throw new TransactionUsageError(
      "deferrable: true has an effect only with isolationLevel: 'SERIALIZABLE' and readOnly: true",
    );
  if (conflictKey !== undefined && (typeof conflictKey !== 'string' || conflictKey === ''))
    throw new TransactionUsageError(
      `conflictKey must be a text that is not empty, not ${JSON.stringify(conflictKey)}`,
    );
}

function assertInRange(name: string, value: unknown): void {
  const [least, most] = WHOLE_NUMBERS.get(name) ?? [];
  if (least !== undefined && !(Number.isInteger(value) && Number(value) >= least && Number(value) <= most!))
    throw new TransactionUsageError(
      `${name} must be a whole number from ${least} to ${most}, not ${String(value)}`,
    );
  const accepted = CHOICES.get(name);
  if (accepted && !accepted.includes(value as string))
    throw new TransactionUsageError(`${name} must be one of ${accepted.join(', ')}, not ${String(value)}`);
}

/**
 * As `validateOptions`, for options whose defaults are not known yet: refuses what no default could make right.
 *
 * @throws TransactionUsageError
 */
export function validateOwnOptions(options: TransactionOptions): void {
  validateOptions({ isolationLevel: 'SERIALIZABLE', readOnly: true, ...options });
}
