import { setTimeout as sleep } from 'node:timers/promises';
import type { QueryConfig, QueryResult, QueryResultRow } from 'pg';
import {
  borrowClient,
  cutConnection,
  learnFailure,
  type Lease,
  lostBecause,
  poolOf,
  type RecyclingMethod,
  returnClient,
  toSend,
} from '../../database/pooled-client.js';
import { failureOf, hasSqlState, isFailureOf } from '../../database/database-failure.js';
import {
  DatabaseUnavailableError,
  UNDEFINED_TABLE,
  UNIQUE_VIOLATION,
} from '../../database/postgres-errors.js';
import { statementTimeoutOf } from '../../database/introduction.js';
import { expectError } from '../../errors/expected-errors.js';
import {
  type Companion,
  type Company,
  type Landing,
  newLanding,
  sendTogether,
  travelsAlone,
} from '../../database/statement-flight.js';
import type { DataSource } from 'typeorm';
import { NOTHING, refuseControl, setsTimeout, type Submittable } from './statements.js';
import { StatementTurns } from './turns.js';
import { type CommitTicket, readTicket, ticketStatement } from './commit-outcome.js';
import type { OutcomeRow } from './outcome-rows.js';
import { TransactionUsageError } from '../transaction-errors.js';

/** What `TransactionSession.open` is told. */
export interface SessionOptions {
  dataSource: DataSource;
  recycling: RecyclingMethod;
  transactionId: string;
  /** The statements that begin the transaction. */
  begin: readonly string[];
  /** True where it is not to write. */
  readOnly: boolean;
  /** Travels behind them; see `ClaimTakenError`. */
  claim: Companion | undefined;
  /** Written with COMMIT, to know afterwards whether that was done. */
  outcomeRow: OutcomeRow | undefined;
  /** True to learn the transaction's id before COMMIT, so that a lost COMMIT can be asked for. */
  tracksXid: boolean;
  /** Ends every wait; its reason is thrown. */
  signal: AbortSignal | undefined;
  statementTimeoutMs: number | undefined;
  /** Ms left of the unit's budget; undefined without one. */
  remainingMs: () => number | undefined;
  /** In which unit of work a statement is sent; undefined for code that runs in none. */
  caller: () => Caller | undefined;
  /** True for a failure that repeats the whole unit: rolling back to a savepoint does not settle it. */
  isRetryable: (error: unknown) => boolean;
}

/**
 * `starting` until TypeORM has said that the transaction begins; `ending` once COMMIT and ROLLBACK may come, and what
 * TypeORM's subscribers send before them; `over` lets nothing through any more.
 */
type Phase = 'starting' | 'working' | 'ending' | 'over';

const ROLLBACK_MS = 5000;
/** How long a statement waits for the nested unit beside it; longer is taken for one that waits for this statement. */
const BESIDE_NESTED_MS = 30_000;

/** The unit of work in which somebody sends a statement. */
interface Caller {
  readonly parent: Caller | undefined;
  /** True for a nested one that is over: what it still sends would be the outer one's, which goes on. */
  readonly isLeftOver: boolean;
}

/** A nested unit of work that has a savepoint open. */
interface Nested {
  unit: Caller;
  ended: Promise<void>;
}

/** The server answered COMMIT with the tag ROLLBACK: a statement had failed, and it had nothing left to commit. */
export class RolledBackByServer extends Error {}

/**
 * The connection of one attempt, as the work sees it: every statement of the attempt goes through `query`, whoever sends
 * it. It begins the transaction with the first statement, remembers the first failure, learns the transaction's id on the
 * way, and lets nothing through once the attempt is over.
 */
export class TransactionSession {
  /** The first failure that the server has not been told to forget. */
  firstFailure: unknown;
  /** How long the connection was waited for, in ms. */
  poolWaitMs = 0;
  /** COMMIT was sent; with `isCommitted` also confirmed. */
  commitWasSent = false;
  isCommitted = false;
  /** What ended COMMIT. */
  commitFailure: unknown;
  /** Nothing of the transaction is left on the server, or its connection is as good as closed. */
  isRolledBack = false;
  /** The claim met a row that is there already: somebody else has done this work. */
  claimIsTaken = false;
  /** They travel with COMMIT. */
  lastStatements: readonly Companion[] = [];
  private isReleased = false;
  phase: Phase = 'starting';
  private nested: Nested | undefined;
  private setsOwnTimeout = false;
  private begun = false;
  private readonly turns = new StatementTurns();
  private replaced = 0;
  private isCut = false;
  /** Rejects when the connection is cut: nobody wants the attempt to go on, on whatever connection. */
  readonly cutOff: Promise<never>;
  private rejectCutOff!: (reason: Error) => void;
  /** COPYs and cursors that are not at their end. */
  private streams = 0;
  private ticketSoFar: CommitTicket | undefined;
  /** False while something was sent that may have written without the ticket knowing. */
  private ticketIsCertain = false;

  private constructor(
    private lease: Lease,
    private readonly options: SessionOptions,
  ) {
    this.cutOff = new Promise<never>((_, reject) => (this.rejectCutOff = reject));
    // Where no work waits, nobody has to know.
    this.cutOff.catch(() => undefined);
  }

  /** @throws PoolExhaustedError, DatabaseUnavailableError */
  static async open(options: SessionOptions): Promise<TransactionSession> {
    const since = performance.now();
    const lease = await borrow(options);
    const session = new TransactionSession(lease, options);
    lease.readOnly = options.readOnly;
    session.poolWaitMs = performance.now() - since;
    return session;
  }

  /** The client itself, for what is no statement. */
  get pooledClient() {
    return this.lease.client;
  }

  /** True once a statement was sent. */
  get hasBegun(): boolean {
    return this.begun;
  }

  /** Statements that were asked for and have no answer yet. */
  get isBusy(): boolean {
    return this.turns.isBusy;
  }

  /** What was written with COMMIT; undefined where nothing was to be. */
  get outcomeRow(): OutcomeRow | undefined {
    return this.options.outcomeRow;
  }

  /** What to ask the server for after a lost COMMIT; undefined where it can't be asked. */
  get ticket(): CommitTicket | undefined {
    return this.ticketIsCertain ? this.ticketSoFar : undefined;
  }

  /**
   * Runs one statement, after those that were asked for before.
   *
   * @throws TransactionUsageError the attempt is over, or the statement would end the transaction
   */
  async query<Row extends QueryResultRow>(statement: QueryConfig): Promise<QueryResult<Row>> {
    this.assertOpen();
    refuseControl(statement.text);
    const caller = this.options.caller();
    if (caller?.isLeftOver) throw this.ended();
    // Before the turn is taken: the nested unit needs turns to come to its end.
    for (let nested = this.besides(caller); nested; nested = this.besides(caller)) await hasEnded(nested);
    return this.inTurn<Row>(statement);
  }

  /** The nested unit that is open, and that `caller` is no part of. */
  private besides(caller: Caller | undefined): Nested | undefined {
    return caller && this.nested && !isWithin(caller, this.nested.unit) ? this.nested : undefined;
  }

  private inTurn<Row extends QueryResultRow>(statement: QueryConfig): Promise<QueryResult<Row>> {
    return this.turns.run(async () => {
      this.assertOpen();
      return this.send<Row>(statement);
    });
  }

  /**
   * Lets a nested unit of work have the connection for itself while `use` runs: what is sent beside it would stand behind its
   * savepoint, and be rolled back with it.
   *
   * @param use is given what sends the statements of savepoints
   */
  async nest<T>(unit: Caller, use: (send: (text: string) => Promise<unknown>) => Promise<T>): Promise<T> {
    const { nested: outer } = this;
    let end!: () => void;
    this.nested = { unit, ended: new Promise<void>((resolve) => (end = resolve)) };
    try {
      return await use((text) => this.inTurn({ text }));
    } finally {
      this.nested = outer;
      end();
    }
  }

  /** A client that can't roll back would hand its open transaction to the next borrower, so it is closed. */
  async rollBack(): Promise<void> {
    this.phase = 'over';
    this.isRolledBack = true;
    if (this.lease.broken || (!this.begun && !this.isBusy)) return;
    // ROLLBACK would wait for somebody to read or write the rest, who may be gone, or longer than there is time.
    if (this.streams > 0 || (this.setsOwnTimeout && this.isBusy)) return this.cut();
    const timer = setTimeout(() => this.cut(), ROLLBACK_MS);
    try {
      await this.turns.run(() => this.lease.client.query('ROLLBACK'));
    } catch {
      // The error that led here is the one to report; this one only decides about the client.
      this.lease.broken = true;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Gives the connection back. */
  async release(): Promise<void> {
    this.phase = 'over';
    if (this.isReleased) return;
    this.isReleased = true;
    await returnClient(this.lease);
  }

  /** Cuts the connection, whatever it waits for. */
  cut(): void {
    this.isCut = true;
    cutConnection(this.lease);
    this.rejectCutOff(new DatabaseUnavailableError(lostBecause(this.lease)));
  }

  /** Closes the connection instead of giving it back. */
  discard(): void {
    this.lease.broken = true;
  }

  /** The failure itself, where the server had told it while nobody waited for an answer (an idle timeout, a kill). */
  explain(error: unknown): unknown {
    const failure = isFailureOf(this.lease.client, error) ? failureOf(error) : undefined;
    return failure?.isLost && !failure.postgres ? (lostBecause(this.lease) ?? error) : error;
  }

  private assertOpen(): void {
    if (this.phase === 'over') throw this.ended();
  }

  private ended(): TransactionUsageError {
    return new TransactionUsageError(
      `Transaction ${this.options.transactionId} has ended: await every statement before the work returns.`,
    );
  }

  private async send<Row extends QueryResultRow>(statement: QueryConfig): Promise<QueryResult<Row>> {
    this.setsOwnTimeout ||= setsTimeout(statement);
    try {
      const result = await (travelsAlone(statement)
        ? this.sendAlone<Row>(statement)
        : this.fly<Row>(statement));
      // ROLLBACK TO a savepoint that is older than the failure: the server has forgotten it.
      if (result.command === 'ROLLBACK') this.forgive();
      return result;
    } catch (cause) {
      const error = this.explain(cause);
      // A value that pg could not send leaves the transaction as it was; once BEGIN is in doubt everything is.
      if (failureOf(error) || this.lease.broken || !this.begun) this.firstFailure ??= error;
      throw error;
    }
  }

  private forgive(): void {
    if (this.firstFailure === undefined || this.options.isRetryable(this.firstFailure)) return;
    this.firstFailure = undefined;
  }

  /** With BEGIN before it, if it is the first, and the question for the transaction's id behind it. */
  private async fly<Row extends QueryResultRow>(statement: QueryConfig): Promise<QueryResult<Row>> {
    if (this.firstFailure !== undefined && !this.begun) throw this.firstFailure as Error;
    for (;;) {
      const begin = this.begun ? [] : this.options.begin;
      const claim = this.begun || !this.options.claim ? [] : [this.options.claim];
      const landing = newLanding();
      const ahead = [...begin, ...this.statementTimeout()];
      const company = { before: [...ahead, ...claim], ...this.ticketCompany() };
      try {
        return await this.learning(() => this.sendTogether<Row>(statement, company, landing));
      } catch (error) {
        const failedAtBegin = !this.begun && landing.beforeDone < begin.length;
        const failedAtClaim = claim.length > 0 && landing.beforeDone === ahead.length;
        this.claimIsTaken ||= failedAtClaim && hasSqlState(error, UNIQUE_VIOLATION);
        // Whoever made the claim is told, and may well have reckoned with it.
        if (this.claimIsTaken) expectError(error);
        // A dead client found at BEGIN: nothing was done, and the work has seen nothing of it.
        if (failedAtBegin && failureOf(error)?.isLost && (await this.replaceClient())) continue;
        if (failedAtBegin) this.lease.broken = true;
        throw error;
      } finally {
        this.begun ||= begin.length > 0 && landing.beforeDone >= begin.length;
        if (landing.after !== undefined) this.learn(landing.after);
        else this.doubtTicket();
      }
    }
  }

  private sendTogether<Row extends QueryResultRow>(
    statement: QueryConfig,
    { before = [], after }: Company,
    landing: Landing,
  ): Promise<QueryResult<Row>> {
    const { lease } = this;
    const company = {
      before: before.map((first) => (typeof first === 'string' ? first : toSend(lease, first))),
      ...(after && { after: toSend(lease, after) }),
    };
    return sendTogether<Row>(lease.client, toSend(lease, statement), company, landing);
  }

  private async sendAlone<Row extends QueryResultRow>(statement: QueryConfig): Promise<QueryResult<Row>> {
    await this.begin();
    this.doubtTicket();
    return this.learning(() => this.lease.client.query<Row>(toSend(this.lease, statement)));
  }

  /** Every statement passes here: what ends it is known by the connection it was sent on. */
  private async learning<T>(send: () => Promise<T>): Promise<T> {
    const { lease } = this;
    try {
      return await send();
    } catch (error) {
      await learnFailure(lease, error);
      throw error;
    }
  }

  /** For what can't travel with BEGIN, or does not come. A claim has parameters, so a statement that does nothing carries it. */
  private async begin(): Promise<void> {
    if (this.options.claim && !this.begun) await this.fly({ text: 'SELECT' });
    if (this.firstFailure !== undefined && !this.begun) throw this.firstFailure as Error;
    while (!this.begun) {
      try {
        const text = [...this.options.begin, ...this.statementTimeout()].join('; ');
        await this.learning(() => this.lease.client.query(text));
        this.begun = true;
      } catch (error) {
        if (failureOf(error)?.isLost && (await this.replaceClient())) continue;
        this.lease.broken = true;
        throw error;
      }
    }
  }

  private isOver(): boolean {
    return this.phase === 'over';
  }

  /** At most as often as the pool has clients, all of which may have died while idle. One that was cut has not. */
  private async replaceClient(): Promise<boolean> {
    const { dataSource } = this.options;
    if (this.isCut || this.isOver() || this.replaced++ >= poolOf(dataSource).options.max) return false;
    this.lease.broken = true;
    await returnClient(this.lease);
    const lease = await borrow(this.options);
    if (this.isOver() || this.isCut) {
      // The attempt has ended meanwhile, and gives nothing back any more.
      await returnClient(lease);
      return false;
    }
    lease.readOnly = this.options.readOnly;
    this.lease = lease;
    return true;
  }

  /** The server stops a statement that would outlast the unit's budget. */
  private statementTimeout(): string[] {
    const remaining = this.options.remainingMs();
    // What the work has set itself is left as it is; the budget then ends with the connection.
    if (remaining === undefined || this.setsOwnTimeout) return [];
    // The session's own 0 is none.
    const own = this.options.statementTimeoutMs ?? (statementTimeoutOf(this.lease.client) || Infinity);
    return [`SET LOCAL statement_timeout = ${Math.max(1, Math.ceil(Math.min(own, remaining)))}`];
  }

  private ticketCompany(): Pick<Company, 'after'> {
    return this.options.tracksXid && !this.ticketSoFar?.xid ? { after: this.ticketStatement() } : {};
  }

  private ticketStatement() {
    return ticketStatement(this.options.dataSource);
  }

  private learn(column: string | null): void {
    this.ticketSoFar = readTicket(column);
    this.ticketIsCertain = true;
  }

  private doubtTicket(): void {
    this.ticketIsCertain &&= this.ticketSoFar?.xid != null;
  }

  /** COMMIT, asked for by TypeORM. @throws RolledBackByServer the answer was ROLLBACK */
  async commit(): Promise<QueryResult> {
    try {
      await this.sendCommit();
    } catch (error) {
      this.commitFailure = this.explain(error);
      throw error;
    }
    this.isCommitted = true;
    return NOTHING;
  }

  private async sendCommit(): Promise<void> {
    this.phase = 'over';
    if (this.isBusy)
      throw new TransactionUsageError('The work returned before its statements had: await each.');
    const ahead = await this.sendAheadOfCommit();
    if (!this.begun) return;
    const { outcomeRow } = this.options;
    const last = outcomeRow ? [...ahead, outcomeRow.statement] : ahead;
    const { client } = this.lease;
    if (this.options.tracksXid && !this.ticketIsCertain) {
      const { rows } = await this.learning(() =>
        client.query<{ concat: string }>(this.ticketStatement().text),
      );
      this.learn(rows[0]?.concat ?? null);
    }
    if (client.getTransactionStatus() === 'I')
      throw new TransactionUsageError('A statement of the work ended its transaction.');
    const { signal } = this.options;
    const cut = () => this.cut();
    signal?.throwIfAborted();
    signal?.addEventListener('abort', cut, { once: true });
    this.commitWasSent = true;
    try {
      const landing = newLanding();
      const { command } = await this.learning(() =>
        last.length === 0
          ? client.query('COMMIT')
          : this.sendTogether({ text: 'COMMIT' }, { before: last }, landing),
      ).catch((error: unknown) => {
        const isAtRow = outcomeRow !== undefined && landing.beforeDone === ahead.length;
        if (!isAtRow || !hasSqlState(error, UNDEFINED_TABLE)) throw error;
        // The server has left COMMIT out.
        this.commitWasSent = false;
        throw noOutcomeTable(error);
      });
      if (command !== 'COMMIT') throw new RolledBackByServer();
    } finally {
      signal?.removeEventListener('abort', cut);
    }
  }

  /**
   * Sends what may not wait for COMMIT: a claim that no statement has carried, and statements that are the first to write,
   * for the transaction's id has to be known before COMMIT is sent.
   *
   * @returns those that travel with COMMIT
   */
  private async sendAheadOfCommit(): Promise<readonly Companion[]> {
    const { claim, tracksXid } = this.options;
    const last = this.lastStatements;
    if (last.length === 0 && claim) await this.begin();
    if (this.begun && (!tracksXid || this.ticketSoFar?.xid)) return last;
    // Without the names: pg has not heard of those that have travelled with others.
    for (const { text, values } of last) await this.send({ text, values: [...values] });
    return [];
  }

  /** A COPY or a cursor: returned at once, as pg does, and sent when its turn has come. */
  submit(submittable: Submittable): Submittable {
    this.assertOpen();
    const caller = this.options.caller();
    if (caller?.isLeftOver) throw this.ended();
    if (this.besides(caller))
      throw new TransactionUsageError(
        'A COPY or a cursor beside a nested unit of work would be rolled back with it: await that one first.',
      );
    const turn = this.turns.take();
    this.streams++;
    let isSent = false;
    const { handleReadyForQuery, handleError } = submittable;
    submittable.handleReadyForQuery = (connection) => {
      this.streams--;
      turn.done();
      handleReadyForQuery?.call(submittable, connection);
    };
    submittable.handleError = (error, connection) => {
      this.streams--;
      // What comes next waits until it is known whether the connection lives on.
      if (isSent) void learnFailure(this.lease, error).finally(turn.done);
      else turn.done();
      this.firstFailure ??= this.explain(error);
      handleError.call(submittable, error, connection);
    };
    const send = async () => {
      await turn.come;
      this.assertOpen();
      await this.begin();
      this.doubtTicket();
      isSent = true;
      this.lease.client.query(submittable as never);
    };
    send().catch((error: unknown) => submittable.handleError(error as Error));
    return submittable;
  }
}

const noOutcomeTable = (cause: unknown) =>
  new TransactionUsageError(
    "commitOutcome: 'row' needs the table transaction_outcome: add transactionMigrations (they are part of peopleMigrations) to the DataSource's migrations, and run them.",
    { cause },
  );

function borrow({ dataSource, recycling, readOnly, signal }: SessionOptions): Promise<Lease> {
  return borrowClient(dataSource, recycling, { purpose: readOnly ? 'read-only' : 'write', signal });
}

function isWithin(caller: Caller | undefined, unit: Caller): boolean {
  while (caller && caller !== unit) caller = caller.parent;
  return caller === unit;
}

/** @throws TransactionUsageError it does not end */
async function hasEnded({ ended }: Nested): Promise<void> {
  const waiting = new AbortController();
  const isLate = sleep(BESIDE_NESTED_MS, true, { signal: waiting.signal }).catch(() => false);
  if (await Promise.race([ended, isLate]))
    throw new TransactionUsageError(
      `A statement has waited for ${BESIDE_NESTED_MS} ms for the nested unit of work beside it: a nested unit must not wait for what the one around it does meanwhile.`,
    );
  waiting.abort();
}
