import type { DataSource, QueryRunner } from 'typeorm';
import { beforeAbort, knowServer, type RecyclingMethod } from '../../database/pooled-client.js';
import { KnownServer } from '../../database/known-server.js';
import { failureOf, hasSqlState, isFailureOf } from '../../database/database-failure.js';
import { isInternal } from '../../database/faults.js';
import { IN_FAILED_SQL_TRANSACTION } from '../../database/postgres-errors.js';
import { type CommitOutcome, resolveCommit } from './commit-outcome.js';
import type { OpenSessions } from './open-sessions.js';
import { OutcomeRows } from './outcome-rows.js';
import { describeAttempt, isRetryable } from '../retry-policy.js';
import { clientOf } from './client.js';
import { currentTransaction, runInContext, TransactionContext } from '../transaction-context.js';
import {
  ClaimTakenError,
  TransactionOutcomeUnknownError,
  TransactionRolledBackError,
  TransactionUsageError,
} from '../transaction-errors.js';
import type { TransactionPhase } from '../transaction-events.js';
import { beginStatements } from '../transaction-options.js';
import { RolledBackByServer, TransactionSession } from './session.js';
import { type AttemptOutcome, publishBegin, type Unit } from './unit-of-work.js';

/** How long the outcome of a lost COMMIT is asked for, in ms: a restart of the server is shorter. */
const RESOLVE_MS = 30_000;
/** A budget that is used up still leaves this much to learn what became of its COMMIT. */
const RESOLVE_AT_LEAST_MS = 1000;

export interface AttemptOptions<T> {
  unit: Unit;
  attempt: number;
  dataSource: DataSource;
  recycling: RecyclingMethod;
  work: (transaction: TransactionContext) => Promise<T>;
  sessions: OpenSessions;
}

/** Runs the work once, in a transaction that is committed when it returns and rolled back when it throws. */
export async function attemptTransaction<T>(options: AttemptOptions<T>): Promise<AttemptOutcome<T>> {
  let session: TransactionSession;
  try {
    session = await openSession(options);
  } catch (error) {
    return { committed: false, error, phase: 'begin', failure: failureOf(error) };
  }
  options.sessions.add(session);
  try {
    return await new Attempt(session, options).run();
  } finally {
    options.sessions.delete(session);
    await session.release();
  }
}

async function openSession<T>({ unit, attempt, dataSource, recycling }: AttemptOptions<T>) {
  const { options } = unit;
  const server = KnownServer.of(dataSource);
  if (!server.isKnown) await knowServer(dataSource);
  const { isolationLevel = server.isolationLevel } = options;
  const session = await TransactionSession.open({
    dataSource,
    recycling,
    transactionId: unit.id,
    // Also what the session has by default: a pooler may have handed on another one.
    begin: beginStatements(
      { ...options, ...(isolationLevel && { isolationLevel }) },
      server.settingsPerTransaction,
    ),
    readOnly: options.readOnly ?? false,
    claim: unit.claim,
    statementTimeoutMs: options.statementTimeoutMs,
    tracksXid: !options.readOnly && server.hasTransactionIds && options.commitOutcome !== 'report',
    // A claim is a row already, and whoever made it looks for that.
    outcomeRow:
      options.commitOutcome === 'row' && !options.readOnly && !unit.claim
        ? OutcomeRows.of(dataSource).next()
        : undefined,
    signal: unit.signal,
    remainingMs: () => unit.remainingMs(),
    caller: currentTransaction,
    isRetryable: (error) => repeats(error, unit, attempt),
  });
  publishBegin(unit, attempt, session.poolWaitMs);
  return session;
}

class Attempt<T> {
  private readonly queryRunner: QueryRunner;
  private readonly context: TransactionContext;

  constructor(
    private readonly session: TransactionSession,
    private readonly options: AttemptOptions<T>,
  ) {
    const { unit, attempt, dataSource } = options;
    this.queryRunner = dataSource.createQueryRunner();
    // TypeORM's own words for begin and end go through the session as well, and keep its state and its subscribers right.
    const client = clientOf(session);
    this.queryRunner.connect = () => Promise.resolve(client);
    const { manager } = this.queryRunner;
    this.context = new TransactionContext({ unit, attempt, manager, client, session }, currentTransaction());
  }

  /** In the context also where TypeORM begins and ends, for its subscribers. */
  run(): Promise<AttemptOutcome<T>> {
    return runInContext(this.context, () => this.runInside());
  }

  private async runInside(): Promise<AttemptOutcome<T>> {
    const { session, context, queryRunner } = this;
    let value: T;
    try {
      await queryRunner.startTransaction();
      session.phase = 'working';
      value = await this.work();
    } catch (error) {
      context.close();
      session.phase = 'ending';
      await this.rollBack();
      const atBegin = session.firstFailure !== undefined && !session.hasBegun;
      return this.failed(this.decisive(error), atBegin ? 'begin' : 'statement');
    }
    session.phase = 'ending';
    try {
      session.lastStatements = context.callbacks.atCommit.flatMap((last) => last() ?? []);
      await queryRunner.commitTransaction();
      if (!session.isCommitted)
        throw new TransactionUsageError('The work began a nested transaction and left it open.');
    } catch (error) {
      return this.afterFailedCommit(value, error);
    }
    return this.committed(value);
  }

  private async work(): Promise<T> {
    const { session, context, options } = this;
    const { signal } = options.unit;
    signal?.throwIfAborted();
    // Also of what waits for something that is no statement: who stops the application waits for no work longer than that.
    const working = Promise.race([options.work(context), session.cutOff]);
    const value = await (signal ? beforeAbort(working, signal) : working);
    context.close();
    if (session.firstFailure !== undefined) throw this.rolledBack(session.firstFailure);
    if (session.isBusy)
      throw new TransactionUsageError('The work returned before its statements had: await each.');
    return value;
  }

  /**
   * The first statement that failed decides: what the work made of it, or met because of it (25P02), is its consequence.
   * An error that the work chose to throw after a failure which is neither repeated nor the loss of the connection stays
   * what it is.
   */
  private decisive(thrown: unknown): unknown {
    const { firstFailure, claimIsTaken } = this.session;
    if (claimIsTaken) return new ClaimTakenError();
    if (firstFailure === undefined) return this.session.explain(thrown);
    if (failureOf(firstFailure)?.isLost || this.isRepeated(firstFailure)) return firstFailure;
    if (hasSqlState(thrown, IN_FAILED_SQL_TRANSACTION)) return this.rolledBack(firstFailure);
    return this.session.explain(thrown);
  }

  private async afterFailedCommit(value: T, thrown: unknown): Promise<AttemptOutcome<T>> {
    const { session } = this;
    // A subscriber of TypeORM's afterTransactionCommit failed.
    if (session.isCommitted) return this.committed(value, [thrown]);
    const error = session.claimIsTaken ? new ClaimTakenError() : (session.commitFailure ?? thrown);
    // Only an answer of a server that lives on says for sure that it has not committed, and of an internal error not even that:
    // some engines answer so when they don't know it themselves.
    const { postgres, isLost = true } = failureOf(error) ?? {};
    if (error instanceof RolledBackByServer)
      return this.failed(this.rolledBack(session.firstFailure), 'commit');
    const isUndecided = isLost || !postgres || isInternal(postgres);
    if (session.commitWasSent && isUndecided && !session.claimIsTaken)
      return this.afterLostCommit(value, error);
    await this.rollBack();
    return this.failed(error, 'commit');
  }

  private async afterLostCommit(value: T, cause: unknown): Promise<AttemptOutcome<T>> {
    const { session, options } = this;
    const { unit, attempt, dataSource } = options;
    // Before anything is asked: who holds a connection while waiting for one may wait for ever.
    session.discard();
    await session.release();
    // A unit that only read has nothing that could be applied twice.
    let outcome: CommitOutcome = unit.options.readOnly ? 'aborted' : 'unknown';
    const atMostMs = Math.max(RESOLVE_AT_LEAST_MS, unit.remainingMs() ?? RESOLVE_MS);
    if (session.outcomeRow)
      outcome = await OutcomeRows.of(dataSource).resolve(session.outcomeRow, session.ticket, atMostMs);
    else if (session.ticket) outcome = await resolveCommit(dataSource, session.ticket, atMostMs);
    if (outcome === 'committed') return this.committed(value);
    if (outcome === 'aborted') return this.failed(cause, 'commit', true);
    const xid = session.ticket?.xid ?? undefined;
    const unknown = { transactionId: unit.id, attempts: attempt, cause, xid };
    return { committed: false, error: new TransactionOutcomeUnknownError(unknown), phase: 'commit' };
  }

  private committed(value: T, errors: readonly unknown[] = []): AttemptOutcome<T> {
    const { afterCommit } = this.context.callbacks;
    return {
      committed: true,
      value,
      afterCommit: async () => [...errors, ...(await callAll(afterCommit))],
    };
  }

  private failed(error: unknown, phase: TransactionPhase, lostCommit = false): AttemptOutcome<T> {
    const { afterRollback } = this.context.callbacks;
    // What the work throws of another connection is its own affair, or another unit's.
    const failure = isFailureOf(this.session.pooledClient, error) ? failureOf(error) : undefined;
    return {
      committed: false,
      error,
      phase,
      failure,
      lostCommit,
      afterRollback: () => callAll(afterRollback),
    };
  }

  private async rollBack(): Promise<void> {
    try {
      await this.queryRunner.rollbackTransaction();
    } catch {
      // Of TypeORM's subscribers: the error that led here is the one to report.
    }
    // A nested transaction that was left open makes TypeORM roll back to its savepoint only.
    if (!this.session.isRolledBack) await this.session.rollBack();
  }

  private rolledBack(cause: unknown): unknown {
    const { unit, attempt } = this.options;
    if (this.isRepeated(cause)) return cause;
    return new TransactionRolledBackError({ transactionId: unit.id, attempts: attempt, cause });
  }

  private isRepeated(error: unknown): boolean {
    const { unit, attempt } = this.options;
    return repeats(error, unit, attempt);
  }
}

/** True for the failure of a statement that makes the whole unit run again. */
function repeats(error: unknown, { options }: Unit, attempt: number): boolean {
  const failure = failureOf(error);
  if (failure?.isOutdated) return true;
  return isRetryable(describeAttempt(error, 'statement', attempt, failure), options.retryOn);
}

/** Calls each, in order, whatever becomes of the others. @returns what they threw */
async function callAll(callbacks: readonly (() => unknown)[]): Promise<unknown[]> {
  const errors: unknown[] = [];
  for (const callback of callbacks) {
    try {
      await callback();
    } catch (error) {
      errors.push(error);
    }
  }
  return errors;
}
