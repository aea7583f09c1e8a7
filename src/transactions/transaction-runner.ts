import { type BeforeApplicationShutdown, Inject, Injectable, Logger } from '@nestjs/common';
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { QueryResult, QueryResultRow } from 'pg';
import type { DataSource } from 'typeorm';
import { isInternal } from '../database/faults.js';
import { KnownServer } from '../database/known-server.js';
import {
  cutConnection,
  knowServer,
  type Lease,
  poolOf,
  toSend,
  withClient,
} from '../database/pooled-client.js';
import { failureOf } from '../database/database-failure.js';
import { PoolExhaustedError } from '../database/postgres-errors.js';
import type { Companion } from '../database/statement-flight.js';
import { ApplicationError } from '../errors/application-error.js';
import { ConflictQueue } from './unit/conflict-queue.js';
import { type Cuttable, OpenSessions } from './unit/open-sessions.js';
import { attemptTransaction } from './unit/attempt.js';
import { currentTransaction, type Statement, type TransactionContext } from './transaction-context.js';
import {
  ShuttingDownError,
  TransactionOutcomeUnknownError,
  TransactionUsageError,
} from './transaction-errors.js';
import {
  needsBegin,
  type TransactionOptions,
  type TransactionRunnerSettings,
  validateOptions,
} from './transaction-options.js';
import { OutcomeRows } from './unit/outcome-rows.js';
import { LANE_WIDTH, StatementLane } from './unit/statement-lane.js';
import { assertCompatible, assertKeyIsFree } from './unit/nesting.js';
import { noteFailure } from './unit-failures.js';
import { type AttemptOutcome, publishBegin, repeatUntilCommitted, Unit } from './unit/unit-of-work.js';

export const TRANSACTIONS_DATA_SOURCE = Symbol.for('nestjs-people:TRANSACTIONS_DATA_SOURCE');
export const TRANSACTION_SETTINGS = Symbol.for('nestjs-people:TRANSACTION_SETTINGS');

/** Options of one unit of work that no default can be given for. */
export interface UnitOptions extends TransactionOptions {
  /** An INSERT that travels ahead of the first statement; where its row is there already, ClaimTakenError. */
  claim?: Companion;
  /** True: part of something that had begun before, which goes on while the application stops, until the deadline. */
  continues?: boolean;
}

const DEFAULT_DRAIN_MS = 20_000;
/** What was cut has this long to notice. */
const AFTER_CUT_MS = 1000;
const DEFAULT_QUEUE_SIZE = 1000;

/**
 * The only place that begins, commits, rolls back and repeats. A unit of work that meets a serialization failure (40001)
 * or a deadlock (40P01), in a statement or at COMMIT, runs again from its start with a connection and a context of its
 * own, after it gave the old connection back and waited.
 */
@Injectable()
export class TransactionRunner implements BeforeApplicationShutdown {
  private readonly logger = new Logger(TransactionRunner.name);
  private readonly running = new Set<Promise<unknown>>();
  private readonly sessions = new OpenSessions();
  private readonly stopping = new AbortController();
  private stopsSince: number | undefined;
  private left = 0;

  constructor(
    @Inject(TRANSACTIONS_DATA_SOURCE) readonly dataSource: DataSource,
    @Inject(TRANSACTION_SETTINGS) readonly settings: TransactionRunnerSettings,
  ) {
    validateOptions(settings);
    if (settings.preparedStatements === 'unnamed') KnownServer.of(dataSource).useNoNames();
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
    validateOptions({ ...this.settings, ...options });
    const { propagation = 'REQUIRED' } = options;
    const outer = this.outer();
    if (outer && options.claim && propagation !== 'REQUIRES_NEW')
      throw new TransactionUsageError('A unit of work with a claim can not join another.');
    if (!outer && propagation === 'MANDATORY')
      throw new TransactionUsageError(
        "propagation: 'MANDATORY' needs a unit of work around it, and there is none.",
      );
    if (!outer) return this.begin(options, work);
    if (propagation === 'REQUIRES_NEW') return this.beginBeside(outer, options, work);
    if (outer.hasEnded)
      throw new TransactionUsageError(
        `Transaction ${outer.id} has ended: await what runs in it, begin what outlives it in afterCommit, or with propagation: 'REQUIRES_NEW'.`,
      );
    await assertCompatible(options, outer);
    return propagation === 'NESTED' ? outer.nest(work) : work(outer);
  }

  /**
   * Runs one statement as a unit of work of its own. PostgreSQL runs a single statement in its own transaction, so where no
   * option asks for more no BEGIN is sent, and repeating the statement is repeating the transaction. Joins like `run`.
   *
   * @param writes false when losing the connection leaves nothing unknown
   * @throws as `run`
   */
  async runStatement<Row extends QueryResultRow>(
    statement: Statement,
    { writes, ...options }: TransactionOptions & { writes: boolean; continues?: boolean },
  ): Promise<QueryResult<Row>> {
    const merged = { ...this.settings, ...options };
    const isResolved = writes && ['resolve', 'row'].includes(merged.commitOutcome ?? '');
    const { propagation } = options;
    const server = KnownServer.of(this.dataSource);
    if (!server.isKnown) await this.know();
    const joins = propagation !== undefined || currentTransaction() !== undefined;
    if (isResolved || joins || merged.timeoutMs || server.dropsSettings || needsBegin(merged))
      return this.run(options, (transaction) => transaction.query<Row>(statement));
    validateOptions(merged);
    return this.unit(options, LANE_WIDTH, (unit, attempt) =>
      this.attemptStatement<Row>(statement, writes, unit, attempt),
    );
  }

  /** Learns what decides how statements are sent. Where it can't be asked they can't be sent either, and say so. */
  async know(): Promise<void> {
    await knowServer(this.dataSource).catch(() => undefined);
  }

  /** Units of work that did not end before the deadline of stopping. */
  get unfinished(): number {
    return this.sessions.cut + this.left;
  }

  /** The application begins to stop: the deadline for what runs counts from now. Until Nest says so units are begun. */
  stopsSoon(): void {
    this.stopsSince ??= performance.now();
  }

  /**
   * Begins nothing any more, waits until what runs has ended, and cuts the connections of what does not end in time: Nest
   * closes the pool next, and a connection that is given back with an open transaction would reach whoever waits for one.
   * Ends soon after its deadline, whatever a unit of work waits for.
   */
  async beforeApplicationShutdown(): Promise<void> {
    this.stopping.abort();
    this.stopsSoon();
    const { drainTimeoutMs = DEFAULT_DRAIN_MS } = this.settings;
    const left = Math.max(0, drainTimeoutMs - (performance.now() - this.stopsSince!));
    // Also where all has ended here: a unit on another DataSource, which runs still, may begin one.
    setTimeout(() => this.sessions.cutAll(), left).unref();
    if (await this.isIdleWithin(left)) return;
    this.logger.error('Units of work did not end in time; their connections are cut.');
    this.sessions.cutAll();
    // Those that have no connection to be cut: they wait for one, or for what follows their commit.
    if (!(await this.isIdleWithin(AFTER_CUT_MS)))
      this.left = Math.max(0, this.running.size - this.sessions.size);
  }

  private async isIdleWithin(milliseconds: number): Promise<boolean> {
    const over = new AbortController();
    const late = sleep(milliseconds, false, { signal: over.signal }).catch(() => false);
    const isIdle = await Promise.race([this.untilIdle().then(() => true), late]);
    over.abort();
    return isIdle;
  }

  private async untilIdle(): Promise<void> {
    while (this.running.size > 0) await Promise.allSettled(this.running);
  }

  /** The innermost unit of work on this DataSource that the calling code runs in. */
  private outer(): TransactionContext | undefined {
    let context = currentTransaction();
    while (context && context.dataSource !== this.dataSource) context = context.parent;
    return context;
  }

  private begin<T>(options: UnitOptions, work: (transaction: TransactionContext) => Promise<T>): Promise<T> {
    const { dataSource, sessions } = this;
    const recycling = this.settings.recycling ?? 'fast';
    return this.unit(options, 1, (unit, attempt) =>
      attemptTransaction({ unit, attempt, dataSource, recycling, work, sessions }),
    );
  }

  /** Whoever holds a connection must not wait for another one that those may hold who wait for it. */
  private beginBeside<T>(
    outer: TransactionContext,
    options: UnitOptions,
    work: (transaction: TransactionContext) => Promise<T>,
  ): Promise<T> {
    assertKeyIsFree(options, outer);
    const { totalCount, idleCount, waitingCount, options: pool } = poolOf(this.dataSource);
    const isExhausted = pool.max - totalCount + idleCount <= waitingCount;
    if (isExhausted && !outer.hasEnded)
      throw new PoolExhaustedError(
        new TransactionUsageError(
          `propagation: 'REQUIRES_NEW' needs a second connection, and the pool (${pool.max}) has none free. Make it larger than the number of units of work that run at once.`,
        ),
      );
    return this.begin(options, work);
  }

  /**
   * Runs a unit of work of its own: in its turn, until it is committed, known to whoever stops the application.
   *
   * @param share how many like it may have the turn of their key together
   */
  private async unit<T>(
    { claim, continues = false, ...options }: UnitOptions,
    share: number,
    attemptOnce: (unit: Unit, attempt: number) => Promise<AttemptOutcome<T>>,
  ): Promise<T> {
    if (this.stopping.signal.aborted && !continues && !isPartOfUnit()) throw new ShuttingDownError();
    const unit = new Unit({ ...this.settings, ...options }, this.stopping.signal, claim);
    const done = this.inTurn(unit, share, () =>
      repeatUntilCommitted(unit, (attempt) => attemptOnce(unit, attempt)),
    );
    this.running.add(done);
    try {
      const value = await done;
      noteFailure(undefined);
      if (unit.options.commitOutcome === 'row') this.pruneOutcomes();
      return value;
    } catch (error) {
      noteFailure(error);
      throw error;
    } finally {
      this.running.delete(done);
      unit.end();
    }
  }

  private pruneOutcomes(): void {
    const rows = OutcomeRows.of(this.dataSource);
    if (!rows.isDueToPrune()) return;
    const pruning = rows
      .prune()
      .catch((err: unknown) => this.logger.debug({ msg: 'old outcomes could not be removed', err }))
      .finally(() => this.running.delete(pruning));
    this.running.add(pruning);
  }

  private async inTurn<T>(unit: Unit, share: number, use: () => Promise<T>): Promise<T> {
    const { conflictKey } = unit.options;
    if (conflictKey === undefined) return use();
    const queue = ConflictQueue.of(this.dataSource);
    const { conflictQueueSize: atMost = DEFAULT_QUEUE_SIZE } = this.settings;
    const turn = queue.take(conflictKey, {
      owner: unit,
      within: unitsAround(),
      share,
      atMost,
      signal: unit.signal,
    });
    if (turn) await turn;
    unit.queueWaitMs = performance.now() - unit.startedAt;
    try {
      return await use();
    } finally {
      queue.leave(conflictKey, unit);
    }
  }

  private async attemptStatement<Row extends QueryResultRow>(
    statement: Statement,
    writes: boolean,
    unit: Unit,
    attempt: number,
  ): Promise<AttemptOutcome<QueryResult<Row>>> {
    // A client that died while idle: there are at most as many of them as the pool is large.
    let dead = writes ? 0 : poolOf(this.dataSource).options.max;
    for (;;) {
      try {
        return { committed: true, value: await this.send<Row>(statement, writes, unit, attempt) };
      } catch (error) {
        const failure = failureOf(error);
        // There was no client to send it on.
        if (error instanceof ApplicationError) return { committed: false, error, phase: 'begin', failure };
        if (dead-- > 0 && failure?.isLost && !this.sessions.isOver) continue;
        // Where the server has no transaction ids, it is one that may answer so when it does not know what became of the commit.
        const { hasTransactionIds } = KnownServer.of(this.dataSource);
        const isUndecided =
          failure?.isLost || (!hasTransactionIds && failure?.postgres && isInternal(failure.postgres));
        if (!writes || !isUndecided) return { committed: false, error, phase: 'statement', failure };
        const unknown = { transactionId: unit.id, attempts: attempt, cause: error };
        return { committed: false, error: new TransactionOutcomeUnknownError(unknown), phase: 'commit' };
      }
    }
  }

  private async send<Row extends QueryResultRow>(
    statement: Statement,
    writes: boolean,
    unit: Unit,
    attempt: number,
  ): Promise<QueryResult<Row>> {
    const { dataSource, sessions } = this;
    const { recycling = 'fast' } = this.settings;
    const { conflictKey } = unit.options;
    const since = performance.now();
    let session: Cuttable | undefined;
    const onLease = (lease: Lease) => {
      publishBegin(unit, attempt, performance.now() - since);
      sessions.add((session = { cut: () => cutConnection(lease) }));
    };
    try {
      if (conflictKey !== undefined)
        return await StatementLane.of(dataSource, conflictKey, recycling).query<Row>(statement, onLease);
      const send = (lease: Lease) => {
        onLease(lease);
        return lease.client.query<Row>(toSend(lease, statement) as { text: string });
      };
      return await withClient(dataSource, recycling, send, writes ? 'write' : 'read');
    } finally {
      if (session) sessions.delete(session);
    }
  }
}

/** The ids of the units of work that the calling code runs in, on whatever DataSource. */
function unitsAround(): string[] {
  const ids: string[] = [];
  for (let context = currentTransaction(); context; context = context.parent) ids.push(context.id);
  return ids;
}

/** True in a unit of work that runs, on whatever DataSource: what it needs is part of it, also while the application stops. */
function isPartOfUnit(): boolean {
  for (let context = currentTransaction(); context; context = context.parent)
    if (!context.hasEnded) return true;
  return false;
}
