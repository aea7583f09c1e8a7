// transactions/session/: The connection of one attempt: every statement goes through it, and one state says what may be sent.
// Promises: nothing is sent once the attempt is over; what COMMIT may have done is never told as plain failure.
// May know: database/, and the options and errors of transactions/; neither retries nor Nest.

import type { QueryConfig, QueryResult, QueryResultRow } from 'pg';
import { canBePipelined, type PipelinedStatement } from '../../database/pg/pipelined-query.js';
import { inStatementSpan } from '../../tracing/statement-spans.js';
import { TransactionUsageError } from '../transaction-errors.js';
import { commit } from './commit.js';
import { borrow, SessionConnection } from './connection.js';
import { NestedUnits, untilEnded } from './nested-units.js';
import type { Caller, OutcomeRow, SessionOptions } from './options.js';
import { StatementSender } from './sender.js';
import { SessionState } from './state.js';
import { NOTHING, refuseControl, type Submittable } from './statements.js';
import { Streams } from './streams.js';
import { StatementTurns } from './turns.js';

/** How long ROLLBACK may take; then the connection is cut. */
const ROLLBACK_MS = 5000;

/**
 * The connection of one attempt, as the work sees it: every statement of the attempt goes through `query`, whoever sends
 * it. It begins the transaction with the first statement, remembers the first failure, learns the transaction's id on the
 * way, and lets nothing through once the attempt is over. `state.ts` has the table of its states.
 */
export class TransactionSession {
  /** How long the connection was waited for, in ms. */
  poolWaitMs = 0;
  /** Sent together with COMMIT. */
  lastStatements: readonly PipelinedStatement[] = [];
  /** The work's last statement, where it travels with COMMIT, with what became of the two. */
  final: { statement: QueryConfig; result?: QueryResult | undefined; failure?: unknown } | undefined;
  readonly state = new SessionState();
  readonly sender: StatementSender;
  private readonly turns = new StatementTurns();
  private readonly nested = new NestedUnits();
  private readonly streams: Streams;

  private constructor(
    readonly connection: SessionConnection,
    private readonly options: SessionOptions,
  ) {
    this.sender = new StatementSender(connection, this.state, options);
    this.streams = new Streams(connection, this.sender, this.turns, options.isTraced);
  }

  /** @throws PoolExhaustedError, DatabaseUnavailableError */
  static async open(options: SessionOptions): Promise<TransactionSession> {
    const since = performance.now();
    const session = new TransactionSession(new SessionConnection(await borrow(options), options), options);
    session.poolWaitMs = performance.now() - since;
    return session;
  }

  /** What was written with COMMIT; undefined where nothing was to be. */
  get outcomeRow(): OutcomeRow | undefined {
    return this.options.outcomeRow;
  }

  /**
   * Runs one statement, after those that were asked for before.
   *
   * @throws TransactionUsageError the attempt is over, or the statement would end the transaction
   */
  async query<Row extends QueryResultRow>(statement: QueryConfig): Promise<QueryResult<Row>> {
    this.assertOpen();
    refuseControl(statement.text);
    const caller = this.caller();
    // Before the turn is taken: the nested unit needs turns to come to its end.
    for (let nested = this.nested.beside(caller); nested; nested = this.nested.beside(caller))
      await untilEnded(nested);
    return this.inTurn<Row>(statement);
  }

  /** Waits for the end of everything that was asked for before. @throws as `query` */
  async settle(): Promise<void> {
    this.assertOpen();
    const caller = this.caller();
    for (let nested = this.nested.beside(caller); nested; nested = this.nested.beside(caller))
      await untilEnded(nested);
    if (this.turns.isBusy) await this.turns.run(() => Promise.resolve());
    this.assertOpen();
  }

  /**
   * True where a statement may travel with COMMIT, as the last of the work: what is to be known before COMMIT is known, and the
   * statement leaves room for others beside it.
   */
  mayTravelWithCommit(statement: QueryConfig): boolean {
    refuseControl(statement.text);
    return this.state.hasBegun && !this.sender.ticket.lacksXid && canBePipelined(statement);
  }

  private inTurn<Row extends QueryResultRow>(statement: QueryConfig): Promise<QueryResult<Row>> {
    const send = (assertWanted?: () => void) =>
      this.turns.run(async () => {
        assertWanted?.();
        this.assertOpen();
        return this.sender.send<Row>(statement);
      });
    return this.streams.areOpen ? this.streams.behind(send) : send();
  }

  /**
   * Lets a nested unit of work have the connection for itself while `use` runs: what is sent beside it would stand behind its
   * savepoint, and be rolled back with it.
   *
   * @param use is given what sends the statements of savepoints
   */
  nest<T>(unit: Caller, use: (send: (text: string) => Promise<unknown>) => Promise<T>): Promise<T> {
    return this.nested.run(unit, () => use((text) => this.inTurn({ text })));
  }

  /** A COPY or a cursor: returned at once, as pg does, and sent when its turn has come. */
  submit(submittable: Submittable): Submittable {
    this.assertOpen();
    if (this.nested.beside(this.caller()))
      throw new TransactionUsageError(
        'A COPY or a cursor beside a nested unit of work would be rolled back with it: await that one first.',
      );
    return this.streams.submit(submittable, () => this.assertOpen());
  }

  /** COMMIT, asked for by TypeORM. @throws RolledBackByServer the answer was ROLLBACK */
  async commit(): Promise<QueryResult> {
    const { state, connection, sender, options, lastStatements: last, final } = this;
    state.on('commit');
    try {
      this.assertIdle();
      const run = () => commit({ state, connection, sender, options, last, statement: final?.statement });
      const hasSpan = options.isTraced && (state.hasBegun || last.length > 0);
      const result = await (hasSpan ? inStatementSpan('COMMIT', connection.client, run) : run());
      if (final) final.result = result;
    } catch (error) {
      const failure = connection.explain(error);
      if (final) final.failure = failure;
      state.on({ failedCommit: failure });
      throw error;
    }
    state.on('confirm COMMIT');
    return NOTHING;
  }

  /** A client that can't roll back would hand its open transaction to the next borrower, so it is closed. */
  async rollBack(): Promise<void> {
    const { state, connection, turns } = this;
    state.on('roll back');
    if (connection.isBroken || (!state.hasBegun && !turns.isBusy)) return;
    // ROLLBACK would wait for somebody to read or write the rest, who may be gone, or longer than there is time.
    if (this.streams.areOpen || (this.sender.setsOwnTimeout && turns.isBusy)) return this.cut();
    const timer = setTimeout(() => this.cut(), ROLLBACK_MS);
    try {
      await turns.run(() => connection.client.query('ROLLBACK'));
    } catch {
      // The error that led here is the one to report; this one only decides about the client.
      connection.discard();
    } finally {
      clearTimeout(timer);
    }
  }

  /** Gives the connection back. */
  release(): void {
    if (this.state.now.is === 'closed') return;
    this.state.on('close');
    this.connection.release();
  }

  /** Cuts the connection, whatever it waits for. */
  cut(): void {
    this.connection.cut();
  }

  /** @throws TransactionUsageError a statement was asked for and has no answer yet */
  assertIdle(): void {
    if (this.turns.isBusy)
      throw new TransactionUsageError('The work returned before its statements had: await each.');
  }

  private assertOpen(): void {
    if (!this.state.isOpen) throw this.ended();
  }

  /** @throws TransactionUsageError it is a nested unit of work that is over */
  private caller(): Caller | undefined {
    const caller = this.options.caller();
    if (caller?.isLeftOver) throw this.ended();
    return caller;
  }

  /** For what comes too late. */
  ended(): TransactionUsageError {
    return new TransactionUsageError(
      `Transaction ${this.options.transactionId()} has ended: await every statement before the work returns; what is to come later belongs into afterCommit, or outsideTransaction().`,
    );
  }
}
