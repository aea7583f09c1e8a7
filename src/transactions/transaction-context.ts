import type { PoolClient, QueryConfig, QueryResult, QueryResultRow } from 'pg';
import type { DataSource, EntityManager } from 'typeorm';
import { hasSqlState } from '../database/database-failure.js';
import { IN_FAILED_SQL_TRANSACTION } from '../database/postgres-errors.js';
import type { PipelinedStatement } from '../database/pg/pipelined-query.js';
import { TransactionUsageError } from './transaction-errors.js';
import { Places } from './session/places.js';
import type { TransactionSession } from './session/session.js';
import type { Statement } from './session/statements.js';
import type { TypeOrm } from './session/type-orm.js';
import type { Unit } from './unit/unit-of-work.js';

export type { Statement } from './session/statements.js';

type Callback = () => unknown;

interface ContextParts {
  unit: Unit;
  attempt: number;
  typeOrm: TypeOrm;
  session: TransactionSession;
  /** COMMIT, with the work's last statement. */
  commitWith: (statement: QueryConfig) => Promise<QueryResult>;
}

/** One attempt at a unit of work: what the work may use while that attempt lasts, and not longer. */
export class TransactionContext {
  /** Those of `atCommit`, `afterCommit` and `afterRollback`, in order. */
  readonly callbacks = {
    atCommit: [] as (() => PipelinedStatement | undefined)[],
    afterCommit: [] as Callback[],
    afterRollback: [] as Callback[],
  };
  private open = true;
  private savepoints = 0;
  private lastNested: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly parts: ContextParts,
    /** The unit of work around this one: what it is nested in, what it is apart from, or of another DataSource. */
    readonly parent: TransactionContext | undefined,
    private readonly isNested = false,
  ) {}

  /** The same for every attempt of the unit of work. */
  get id(): string {
    return this.parts.unit.id;
  }

  /** 1 for the first. */
  get attempt(): number {
    return this.parts.attempt;
  }

  /** Attempts in all, this one included. */
  get maxAttempts(): number {
    return this.parts.unit.maxAttempts;
  }

  /** True when a conflict now would not be followed by another attempt. */
  get isLastAttempt(): boolean {
    return this.attempt >= this.maxAttempts;
  }

  /** Aborted when the unit's `timeoutMs` are over; undefined without such a budget. */
  get signal(): AbortSignal | undefined {
    return this.parts.unit.signal;
  }

  /** Its DataSource. */ get dataSource(): DataSource {
    return this.parts.typeOrm.dataSource;
  }

  /** TypeORM's manager inside this transaction; repositories come from `manager.getRepository(Entity)`. */
  get manager(): EntityManager {
    return this.parts.typeOrm.manager;
  }

  /**
   * The pg client of this transaction, for what TypeORM has no words for (COPY, cursors). It can't be released, and sends
   * nothing once the attempt is over.
   */
  get client(): PoolClient {
    return this.parts.typeOrm.client;
  }

  /** The level that was chosen; undefined when it is the session's default. */
  get isolationLevel() {
    return this.parts.unit.options.isolationLevel;
  }

  /** As chosen. */ get readOnly() {
    return this.parts.unit.options.readOnly;
  }

  /** As chosen. */ get conflictKey() {
    return this.parts.unit.options.conflictKey;
  }

  /** True: takes nothing more. */ get hasEnded(): boolean {
    return !this.open || (this.isNested && this.parent!.hasEnded);
  }

  /** True for a nested unit of work that is over: what it still sends would be the outer one's, which goes on. */
  get isLeftOver(): boolean {
    return this.isNested && !this.open;
  }

  /**
   * Runs one statement in this transaction.
   *
   * @throws TransactionUsageError the attempt is over: a forgotten `await` let the work's end overtake the statement
   */
  async query<Row extends QueryResultRow>(statement: Statement): Promise<QueryResult<Row>> {
    if (this.hasEnded)
      throw new TransactionUsageError(
        `Transaction ${this.id} has ended: await every statement before the work returns.`,
      );
    return this.parts.session.query<Row>(statement as QueryConfig);
  }

  /**
   * Runs the last statement of the work together with COMMIT, which costs no way there and back of its own then. Its result
   * comes once COMMIT is confirmed; from the call on the transaction takes nothing more. Whatever the statement changes is
   * committed: a result that may be a reason to roll back belongs to `query`. Where it or COMMIT fails, the unit of work fails or
   * repeats as ever. What the work throws behind it reaches the caller as AfterCommitError.
   *
   * In a unit that is nested or has joined another, and in a message handler's, it is `query`: who commits is somebody else. COMMIT
   * goes apart where the transaction has no id yet: it has one since a write, a locking read, or the start with a `conflictKey`.
   *
   * @throws AfterCommitError committed, as the server said later, but the result is lost: the work may return without it
   * @throws TransactionUsageError the transaction has ended
   */
  async commitWith<Row extends QueryResultRow>(statement: Statement): Promise<QueryResult<Row>> {
    const isOutermost = !this.isNested && !this.parts.unit.options.claim && places.isOwnWork(this);
    if (this.hasEnded || !isOutermost) return this.query(statement);
    return this.parts.commitWith(statement as QueryConfig) as Promise<QueryResult<Row>>;
  }

  /**
   * Calls `callback` once the unit of work is committed, outside of it: sending mail, producing messages, clearing caches.
   * Callbacks run in order, each awaited, before the caller has the result. Those of an attempt that failed are forgotten.
   * One that fails keeps none of the others from running; the caller gets AfterCommitError.
   */
  afterCommit(callback: Callback): void {
    this.assertOpen();
    this.callbacks.afterCommit.push(callback);
  }

  /**
   * Calls `callback` when the unit of work has failed for good and is rolled back; in a `NESTED` one also when that
   * alone was rolled back. Not after an attempt that is repeated, nor when the outcome is unknown.
   */
  afterRollback(callback: Callback): void {
    this.assertOpen();
    this.callbacks.afterRollback.push(callback);
  }

  /**
   * Sends what `last` gives together with COMMIT, so that it costs no way there and back of its own. Where it fails,
   * nothing is committed. For what is to be written once the work is done: events, the result of a message.
   *
   * @param last called when the work has returned; undefined sends nothing
   */
  atCommit(last: () => PipelinedStatement | undefined): void {
    this.assertOpen();
    this.callbacks.atCommit.push(last);
  }

  /** Called by the runner when the work has returned, before COMMIT or ROLLBACK. */
  close(): void {
    this.open = false;
  }

  /**
   * Runs `work` behind a savepoint. Savepoints of one transaction are a stack, so nested units that are begun side by side
   * run one after another, and statements that the unit around them sends meanwhile wait for their end.
   */
  nest<T>(work: (context: TransactionContext) => Promise<T>): Promise<T> {
    const turn = this.lastNested.then(() => this.behindSavepoint(work));
    this.lastNested = turn.catch(() => undefined);
    return turn;
  }

  private behindSavepoint<T>(work: (context: TransactionContext) => Promise<T>): Promise<T> {
    const nested = new TransactionContext(this.parts, this, true);
    const { session } = this.parts;
    return session.nest(nested, (send) => runInContext(nested, () => this.runNested(nested, work, send)));
  }

  private async runNested<T>(
    nested: TransactionContext,
    work: (context: TransactionContext) => Promise<T>,
    send: (text: string) => Promise<unknown>,
  ): Promise<T> {
    const { session } = this.parts;
    const name = `nested_${this.depth}_${++this.savepoints}`;
    await send(`SAVEPOINT ${name}`);
    try {
      const result = await work(nested);
      nested.close();
      await send(`RELEASE SAVEPOINT ${name}`);
      this.callbacks.atCommit.push(...nested.callbacks.atCommit);
      this.callbacks.afterCommit.push(...nested.callbacks.afterCommit);
      this.callbacks.afterRollback.push(...nested.callbacks.afterRollback);
      return result;
    } catch (error) {
      nested.close();
      const { firstFailure } = session.sender;
      // Rolled back for good, whatever becomes of the rest.
      this.callbacks.afterCommit.push(...nested.callbacks.afterRollback);
      this.callbacks.afterRollback.push(...nested.callbacks.afterRollback);
      // Where that fails the connection is lost, and the first failure says why.
      await send(`ROLLBACK TO SAVEPOINT ${name}`).catch(() => undefined);
      throw hasSqlState(error, IN_FAILED_SQL_TRANSACTION) ? (firstFailure ?? error) : error;
    }
  }

  private get depth(): number {
    return this.isNested ? this.parent!.depth + 1 : 0;
  }

  private assertOpen(): void {
    if (this.hasEnded) throw new TransactionUsageError(`Transaction ${this.id} has ended.`);
  }
}

const places = new Places<TransactionContext>();

/** The unit of work that the calling code runs in, whoever began it; undefined outside of any. */
export function currentTransaction(): TransactionContext | undefined {
  return places.current;
}

/** Runs `work` so that `currentTransaction()` is `context` in everything it calls and awaits. */
export function runInContext<T>(context: TransactionContext, work: () => Promise<T>): Promise<T> {
  return places.run(context, false, work);
}

/** Runs `work` as a part of the unit of work around it, which goes on behind it. */
export function joinContext<T>(
  context: TransactionContext,
  work: (context: TransactionContext) => Promise<T>,
): Promise<T> {
  return places.run(context, true, () => work(context));
}
