import { setImmediate as nextTurn } from 'node:timers/promises';
import type { QueryConfig, QueryResult } from 'pg';
import type { TransactionSession } from '../session/session.js';
import type { TransactionContext } from '../transaction-context.js';
import { AfterCommitError, TransactionOutcomeUnknownError } from '../transaction-errors.js';
import type { AttemptOutcome } from './unit-of-work.js';

/** How the work has ended. */
type WorkEnd<T> = { value: T } | { thrown: unknown };

interface Ends<T> {
  /** COMMIT, and what became of it. */
  commit: () => Promise<AttemptOutcome<T>>;
  /** The attempt's failure where nothing was committed, and the work has ended so. */
  failed: (outcome: AttemptOutcome<T> & { committed: false }, end: WorkEnd<T>) => AttemptOutcome<T>;
  /** What the caller gets where the work had swallowed a failure before it asked for COMMIT. */
  rolledBack: (failure: unknown) => unknown;
}

/** COMMIT that the work of an attempt asks for itself, with its last statement: `TransactionContext.commitWith`. */
export class OwnCommit<T> {
  private outcome: Promise<AttemptOutcome<T>> | undefined;
  /** Committed, but what the statement gave is lost with the connection. */
  private lostResult: AfterCommitError | undefined;

  constructor(
    private readonly session: TransactionSession,
    private readonly ends: Ends<T>,
  ) {}

  /** True once COMMIT was asked for: the attempt's outcome is that one's. */
  get isAskedFor(): boolean {
    return this.outcome !== undefined;
  }

  /** @throws what ended it, AfterCommitError where the statement's result alone is lost */
  async send(context: TransactionContext, statement: QueryConfig): Promise<QueryResult> {
    const { session, ends } = this;
    await session.settle();
    if (context.hasEnded) throw session.ended();
    context.close();
    const { firstFailure } = session.sender;
    if (firstFailure !== undefined) throw ends.rolledBack(firstFailure);
    let result: QueryResult | undefined;
    if (session.mayTravelWithCommit(statement)) session.final = { statement };
    else result = await session.query(statement);
    const outcome = await (this.outcome = ends.commit());
    if (!outcome.committed) throw outcome.error;
    result ??= session.final?.result;
    if (result) return result;
    const { id: transactionId, attempt: attempts } = context;
    const cause = session.final?.failure;
    throw (this.lostResult = new AfterCommitError({ transactionId, attempts, cause }, undefined));
  }

  /**
   * For who has given up waiting for the work. What it makes of its COMMIT needs no time, so once that is known it has one more turn.
   *
   * @param error why it was given up, thrown where it does not come to its end
   */
  async orElse(working: Promise<T>, error: unknown): Promise<T> {
    await this.outcome;
    const late = nextTurn().then(() => {
      throw error;
    });
    return Promise.race([working, late]);
  }

  /** What became of the attempt, now that the work is over. */
  async after(end: WorkEnd<T>): Promise<AttemptOutcome<T>> {
    const outcome = await this.outcome!;
    if (!outcome.committed) {
      const isDecided = outcome.lostCommit || outcome.error instanceof TransactionOutcomeUnknownError;
      return isDecided ? outcome : this.ends.failed(outcome, end);
    }
    if ('value' in end) return { ...outcome, value: end.value };
    const thrown = end.thrown === this.lostResult ? this.lostResult!.cause : end.thrown;
    return { ...outcome, afterCommit: async () => [thrown, ...((await outcome.afterCommit?.()) ?? [])] };
  }
}
