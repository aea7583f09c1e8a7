import type { QueryConfig } from 'pg';
import type { DataSource } from 'typeorm';
import { beforeAbort } from '../../database/before-abort.js';
import type { RecyclingMethod } from '../../database/client-check.js';
import { failureOf, hasSqlState, isFailureOf } from '../../database/database-failure.js';
import { originalOf } from '../../errors/error-responses.js';
import { isInternal } from '../../database/faults.js';
import { IN_FAILED_SQL_TRANSACTION } from '../../database/postgres-errors.js';
import { RolledBackByServer } from '../session/commit.js';
import type { OpenSessions } from './open-sessions.js';
import { currentTransaction, runInContext, TransactionContext } from '../transaction-context.js';
import {
  ClaimTakenError,
  TransactionOutcomeUnknownError,
  TransactionRolledBackError,
  TransactionUsageError,
} from '../transaction-errors.js';
import type { TransactionPhase } from '../transaction-events.js';
import type { TransactionSession } from '../session/session.js';
import { TypeOrm } from '../session/type-orm.js';
import { openSession, repeats } from './attempt-session.js';
import { askForOutcome } from './lost-commit.js';
import { OwnCommit } from './own-commit.js';
import type { AttemptOutcome, Unit } from './unit-of-work.js';

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
    session = await openSession(options.unit, options.attempt, options);
  } catch (error) {
    return { committed: false, error, phase: 'begin', failure: failureOf(error) };
  }
  options.sessions.add(session);
  try {
    return await new Attempt(session, options).run();
  } finally {
    options.sessions.delete(session);
    session.release();
  }
}

class Attempt<T> {
  private readonly typeOrm: TypeOrm;
  private readonly context: TransactionContext;
  /** There where the work has asked for one. */
  private ownCommit: OwnCommit<T> | undefined;

  constructor(
    private readonly session: TransactionSession,
    private readonly options: AttemptOptions<T>,
  ) {
    const { unit, attempt, dataSource } = options;
    const typeOrm = (this.typeOrm = new TypeOrm(dataSource, session));
    const commitWith = (statement: QueryConfig) =>
      (this.ownCommit ??= this.prepareOwnCommit()).send(this.context, statement);
    const parts = { unit, attempt, typeOrm, session, commitWith };
    this.context = new TransactionContext(parts, currentTransaction());
  }

  private prepareOwnCommit(): OwnCommit<T> {
    const { session } = this;
    return new OwnCommit(session, {
      commit: () => this.commit(undefined as T),
      rolledBack: (failure) => this.rolledBack(failure),
      failed: ({ error, phase }, end) => {
        session.sender.firstFailure ??= error;
        return this.failed('thrown' in end ? this.decisive(end.thrown) : this.rolledBack(error), phase);
      },
    });
  }

  /** In the context also where TypeORM begins and ends, for its subscribers. */
  run(): Promise<AttemptOutcome<T>> {
    return runInContext(this.context, () => this.runInside());
  }

  private async runInside(): Promise<AttemptOutcome<T>> {
    const { session, context, typeOrm } = this;
    let value: T;
    try {
      await typeOrm.begin();
      session.state.on('start work');
      value = await this.work();
    } catch (error) {
      if (this.ownCommit?.isAskedFor) return this.ownCommit.after({ thrown: error });
      context.close();
      session.state.on('end work');
      await this.rollBack();
      const atBegin = session.sender.firstFailure !== undefined && !session.state.hasBegun;
      return this.failed(this.decisive(error), atBegin ? 'begin' : 'statement');
    }
    return this.ownCommit?.isAskedFor ? this.ownCommit.after({ value }) : this.commit(value);
  }

  private async commit(value: T): Promise<AttemptOutcome<T>> {
    const { session, context, typeOrm } = this;
    session.state.on('end work');
    try {
      session.lastStatements = context.callbacks.atCommit.flatMap((last) => last() ?? []);
      await typeOrm.commit();
      if (session.state.now.is !== 'committed')
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
    const working = options.work(context);
    const orCut = Promise.race([working, session.connection.cutOff]);
    let value: T;
    try {
      value = await (signal ? beforeAbort(orCut, signal) : orCut);
    } catch (error) {
      if (!this.ownCommit?.isAskedFor) throw error;
      value = await this.ownCommit.orElse(working, error);
    }
    if (this.ownCommit?.isAskedFor) return value;
    context.close();
    const { firstFailure } = session.sender;
    if (firstFailure !== undefined) throw this.rolledBack(firstFailure);
    session.assertIdle();
    return value;
  }

  /**
   * The first statement that failed decides: what the work made of it, or met because of it (25P02), is its consequence.
   * An error that the work chose to throw after a failure which is neither repeated nor the loss of the connection stays
   * what it is.
   */
  private decisive(thrown: unknown): unknown {
    const { sender, connection } = this.session;
    const { firstFailure, claimIsTaken } = sender;
    if (claimIsTaken) return new ClaimTakenError();
    if (firstFailure === undefined) return connection.explain(thrown);
    if (failureOf(firstFailure)?.isLost || this.isRepeated(firstFailure)) return firstFailure;
    if (hasSqlState(thrown, IN_FAILED_SQL_TRANSACTION)) return this.rolledBack(firstFailure);
    return connection.explain(thrown);
  }

  private async afterFailedCommit(value: T, thrown: unknown): Promise<AttemptOutcome<T>> {
    const { now: state } = this.session.state;
    const { firstFailure, claimIsTaken } = this.session.sender;
    // A subscriber of TypeORM's afterTransactionCommit failed.
    if (state.is === 'committed') return this.committed(value, [thrown]);
    const failed = state.is === 'commit failed' ? state : undefined;
    const error = claimIsTaken ? new ClaimTakenError() : (failed?.failure ?? thrown);
    if (error instanceof RolledBackByServer) return this.failed(this.rolledBack(firstFailure), 'commit');
    // Only an answer of a server that lives on says for sure that it has not committed, and of an internal error not even that:
    // some engines answer so when they don't know it themselves.
    const { postgres, isLost = true } = failureOf(error) ?? {};
    const isUndecided = isLost || !postgres || isInternal(postgres);
    if (failed?.isSent && isUndecided && !claimIsTaken) return this.afterLostCommit(value, error);
    await this.rollBack();
    return this.failed(error, this.session.final && failed && !failed.isSent ? 'statement' : 'commit');
  }

  private async afterLostCommit(value: T, cause: unknown): Promise<AttemptOutcome<T>> {
    const { unit, attempt, dataSource } = this.options;
    const outcome = await askForOutcome(this.session, unit, dataSource);
    if (outcome === 'committed') return this.committed(value);
    if (outcome === 'aborted') return this.failed(cause, 'commit', true);
    const xid = this.session.sender.ticket.known?.xid ?? undefined;
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
    const cause = originalOf(error);
    const failure = isFailureOf(this.session.connection.client, cause) ? failureOf(cause) : undefined;
    return {
      committed: false,
      error,
      phase,
      failure,
      firstFailure: failureOf(this.session.sender.firstFailure),
      lostCommit,
      afterRollback: () => callAll(afterRollback),
    };
  }

  private async rollBack(): Promise<void> {
    try {
      await this.typeOrm.rollBack();
    } catch {
      // Of TypeORM's subscribers: the error that led here is the one to report.
    }
    // Behind a COMMIT that failed TypeORM is not heard, and a nested transaction that was left open makes it roll back to its
    // savepoint only.
    const { is } = this.session.state.now;
    if (is === 'ending' || is === 'commit failed') await this.session.rollBack();
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
