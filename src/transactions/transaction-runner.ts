import { type BeforeApplicationShutdown, Inject, Injectable, Logger } from '@nestjs/common';
import type { Span } from '@opentelemetry/api';
import { setMaxListeners } from 'node:events';
import type { QueryResult, QueryResultRow } from 'pg';
import type { DataSource } from 'typeorm';
import { KnownServer } from '../database/known-server.js';
import { knowServer } from '../database/pooled-client.js';
import { inSpan } from '../tracing/spans.js';
import { inFreeTurn, inTurn, isFree } from './unit/conflict-queue.js';
import { type AttemptOptions, attemptTransaction } from './unit/attempt.js';
import { needsBegin } from './unit/begin.js';
import {
  currentTransaction,
  joinContext,
  type Statement,
  type TransactionContext,
} from './transaction-context.js';
import { decideOnRepositories } from './repositories/joining.js';
import { ShuttingDownError, TransactionUsageError } from './transaction-errors.js';
import {
  type TransactionRunnerSettings,
  type UnitOptions,
  validateOptions,
  withDefaults,
} from './transaction-options.js';
import { OutcomeRows } from './unit/outcome-rows.js';
import { repeatUntilCommitted } from './unit/repetition.js';
import { RunningUnits } from './unit/running-units.js';
import { attemptStatement } from './unit/single-statement.js';
import { PIPELINE_DEPTH } from './unit/key-pipeline.js';
import {
  assertCompatible,
  assertConnectionIsFree,
  assertKeyIsFree,
  innermostOn,
  isPartOfUnit,
} from './unit/nesting.js';
import { type AttemptOutcome, Unit } from './unit/unit-of-work.js';

export const TRANSACTIONS_DATA_SOURCE = Symbol.for('nestjs-people:TRANSACTIONS_DATA_SOURCE');
export const TRANSACTION_SETTINGS = Symbol.for('nestjs-people:TRANSACTION_SETTINGS');

export type { UnitOptions } from './transaction-options.js';

const DEFAULT_DRAIN_MS = 20_000;
const DEFAULT_QUEUE_SIZE = 1000;

/**
 * The only place that begins, commits, rolls back and repeats. A unit of work that meets a serialization failure (40001)
 * or a deadlock (40P01), in a statement or at COMMIT, runs again from its start with a connection and a context of its
 * own, after it gave the old connection back and waited.
 */
@Injectable()
export class TransactionRunner implements BeforeApplicationShutdown {
  private readonly logger = new Logger(TransactionRunner.name);
  private readonly units = new RunningUnits();
  /** What all attempts are given. */
  private readonly common: Pick<AttemptOptions<never>, 'dataSource' | 'recycling' | 'sessions'>;
  private readonly stopping = new AbortController();
  private stopsSince: number | undefined;
  private drained: Promise<void> | undefined;
  /** Whether a single statement needs no transaction begun for it with these settings, nor anything else of its own. */
  private readonly isPlain: boolean;

  constructor(
    /** Whose pool it uses. */
    @Inject(TRANSACTIONS_DATA_SOURCE) readonly dataSource: DataSource,
    /** The defaults of every unit of work. */
    @Inject(TRANSACTION_SETTINGS) readonly settings: TransactionRunnerSettings,
  ) {
    validateOptions(settings);
    const { timeoutMs, commitOutcome = 'report', maxAttempts } = settings;
    this.isPlain =
      settings.sharedStatements !== false &&
      !settings.statementComments &&
      maxAttempts !== 1 &&
      !timeoutMs &&
      commitOutcome === 'report' &&
      !needsBegin(settings);
    this.common = { dataSource, recycling: settings.recycling ?? 'fast', sessions: this.units.sessions };
    KnownServer.of(dataSource).configure(settings);
    decideOnRepositories(this);
    // Every unit that waits between attempts listens.
    setMaxListeners(Infinity, this.stopping.signal);
  }

  /**
   * Runs `work` in a transaction and commits it; resolves with what `work` returned, once the commit is confirmed.
   * Inside another unit of work it joins that one (see `propagation`), and only the outermost commits and repeats.
   *
   * `work` may run up to `maxAttempts` times: it must decide everything anew from what it reads, have no effects outside
   * of the database (but for `afterCommit`), leave its arguments as they are, and await (not swallow) its statements.
   *
   * @throws what `work` throws, after a rollback
   * @throws TransactionOutcomeUnknownError the connection was lost during COMMIT, and the server can't tell its outcome; also
   *   in place of any of the following, when that was so of an earlier attempt
   * @throws TransactionRetriesExhaustedError every attempt met a conflict, and is rolled back
   * @throws TransactionTimeoutError `timeoutMs` are over, and it is rolled back
   * @throws TransactionRolledBackError `work` swallowed a failed statement
   * @throws AfterCommitError committed, but an `afterCommit` callback failed
   * @throws PoolExhaustedError, DatabaseUnavailableError no usable connection, or it was lost before COMMIT
   * @throws ConflictQueueFullError, ConflictKeyDeadlockError, ShuttingDownError not begun
   * @throws ClaimTakenError the row of `claim` is there already
   * @throws TransactionUsageError options that contradict each other, or the unit of work around this one
   */
  async run<T>(options: UnitOptions, work: (transaction: TransactionContext) => Promise<T>): Promise<T> {
    const merged = withDefaults(options, this.settings);
    validateOptions(options, merged);
    const { propagation = 'REQUIRED' } = options;
    const outer = innermostOn(this.dataSource);
    if (outer && options.claim && propagation !== 'REQUIRES_NEW')
      throw new TransactionUsageError('A unit of work with a claim can not join another.');
    if (!outer && propagation === 'MANDATORY')
      throw new TransactionUsageError(
        "propagation: 'MANDATORY' needs a unit of work around it, and there is none.",
      );
    if (!outer) return this.begin(merged, work);
    if (propagation === 'REQUIRES_NEW') return this.beginBeside(outer, merged, work);
    if (outer.hasEnded)
      throw new TransactionUsageError(
        `Transaction ${outer.id} has ended: await what runs in it, begin what outlives it in afterCommit, or with propagation: 'REQUIRES_NEW'.`,
      );
    await assertCompatible(options, outer);
    return propagation === 'NESTED' ? outer.nest(work) : joinContext(outer, work);
  }

  /**
   * Runs one statement as a unit of work of its own. PostgreSQL runs a single statement in its own transaction, so where no
   * option asks for more no BEGIN is sent, and repeating the statement is repeating the transaction. Joins like `run`.
   *
   * @param options.writes false when losing the connection leaves nothing unknown
   * @throws as `run`
   */
  async runStatement<Row extends QueryResultRow>(
    statement: Statement,
    options: Omit<UnitOptions, 'claim'> & { writes: boolean },
  ): Promise<QueryResult<Row>> {
    const merged = withDefaults(options, this.settings);
    const server = KnownServer.of(this.dataSource);
    if (!server.isKnown) await this.know();
    const isResolved = options.writes && (merged.commitOutcome ?? 'report') !== 'report';
    const joins = options.propagation !== undefined || currentTransaction() !== undefined;
    if (isResolved || joins || merged.timeoutMs || server.dropsSettings || needsBegin(merged))
      return this.run(options, (transaction) => transaction.query<Row>(statement));
    validateOptions(options, merged);
    return this.unit(merged, PIPELINE_DEPTH, (unit, attempt) =>
      attemptStatement<Row>({ unit, attempt, statement, writes: options.writes, ...this.common }),
    );
  }

  /**
   * Whether a single statement of the calling code may travel with those of others: it is in no unit of work, nothing is asked for
   * that would need a transaction begun for it alone, and nobody has or waits for the turn of its key.
   */
  mayShare(conflictKey?: string): boolean {
    if (!this.isPlain || currentTransaction() !== undefined || this.stopping.signal.aborted) return false;
    const { isKnown, dropsSettings, hasTransactionIds } = KnownServer.of(this.dataSource);
    if (!isKnown || dropsSettings || !hasTransactionIds) return false;
    return conflictKey === undefined || isFree(this.dataSource, conflictKey);
  }

  /**
   * Sends what travels with the statements of others, as a unit of work of the calling code. Only where it `mayShare`.
   *
   * @param send what it resolves with is committed; is given the unit's span, where there is one
   * @throws what `send` throws
   */
  share<T>(send: (span?: Span) => Promise<T>, conflictKey?: string): Promise<T> {
    const run = () => inSpan('shareable statement', {}, send);
    return this.units.of(conflictKey === undefined ? run() : inFreeTurn(this.dataSource, conflictKey, run));
  }

  /** Learns what decides how statements are sent. Where it can't be asked they can't be sent either, and say so. */
  async know(): Promise<void> {
    await knowServer(this.dataSource).catch(() => undefined);
  }

  /** Units of work that did not end before the deadline of stopping. */
  get unfinished(): number {
    return this.units.unfinished;
  }

  /** The application begins to stop: the deadline for what runs counts from now. Until Nest says so units are begun. */
  stopsSoon(): void {
    this.stopsSince ??= performance.now();
  }

  /**
   * Begins nothing any more, waits until what runs has ended, and cuts the connections of what does not end in time: Nest
   * closes the pool next, and a connection that is given back with an open transaction would reach whoever waits for one.
   * Ends soon after its deadline, whatever a unit of work waits for. Nest calls it for each module that gives the runner on.
   */
  beforeApplicationShutdown(): Promise<void> {
    this.stopping.abort();
    this.stopsSoon();
    const { drainTimeoutMs = DEFAULT_DRAIN_MS } = this.settings;
    const leftMs = drainTimeoutMs - (performance.now() - this.stopsSince!);
    return (this.drained ??= this.units.drain(Math.max(0, leftMs)));
  }

  private begin<T>(options: UnitOptions, work: (transaction: TransactionContext) => Promise<T>): Promise<T> {
    return this.unit(options, 1, (unit, attempt) =>
      attemptTransaction({ unit, attempt, work, ...this.common }),
    );
  }

  private beginBeside<T>(
    outer: TransactionContext,
    options: UnitOptions,
    work: (transaction: TransactionContext) => Promise<T>,
  ): Promise<T> {
    assertKeyIsFree(options, outer);
    assertConnectionIsFree(this.dataSource, outer);
    return this.begin(options, work);
  }

  /**
   * Runs a unit of work of its own, defaults in its options: in its turn, until committed, known to whoever stops the application.
   *
   * @param atOnce how many like it may have the turn of their key together
   */
  private async unit<T>(
    options: UnitOptions,
    atOnce: number,
    attemptOnce: (unit: Unit, attempt: number) => Promise<AttemptOutcome<T>>,
  ): Promise<T> {
    if (this.stopping.signal.aborted && !options.continues && !isPartOfUnit()) throw new ShuttingDownError();
    const unit = new Unit(options, this.stopping.signal);
    const { conflictQueueSize = DEFAULT_QUEUE_SIZE } = this.settings;
    const done = inTurn(this.dataSource, unit, { atOnce, atMost: conflictQueueSize }, () =>
      repeatUntilCommitted(unit, (attempt) => attemptOnce(unit, attempt)),
    );
    try {
      const value = await this.units.of(done);
      if (unit.options.commitOutcome === 'row') this.pruneOutcomes();
      return value;
    } finally {
      unit.end();
    }
  }

  private pruneOutcomes(): void {
    const rows = OutcomeRows.of(this.dataSource);
    if (!rows.isDueToPrune()) return;
    const pruning = rows
      .prune()
      .catch((err: unknown) => this.logger.debug({ msg: 'old outcomes could not be removed', err }));
    this.units.add(pruning);
  }
}
