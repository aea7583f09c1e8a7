import type { QueryConfig, QueryResult, QueryResultRow } from 'pg';
import { failureOf, hasSqlState } from '../../database/database-failure.js';
import { faultOf } from '../../database/faults.js';
import { statementTimeoutOf } from '../../database/introduction.js';
import { canBePipelined, noProgress } from '../../database/pg/pipelined-query.js';
import { UNIQUE_VIOLATION } from '../../database/postgres-errors.js';
import { expectError } from '../../errors/expected-errors.js';
import { inStatementSpan } from '../../tracing/statement-spans.js';
import { KnownTicket } from './commit-ticket.js';
import type { SessionConnection } from './connection.js';
import type { SessionOptions } from './options.js';
import type { SessionState } from './state.js';
import { setsTimeout } from './statements.js';

/**
 * Sends the statements of one attempt, each when its turn has come: the first one with BEGIN before it, and each with the
 * question for the transaction's id behind it until that is known.
 */
export class StatementSender {
  /**
   * What failed first and decides whether the unit is repeated. Forgotten where the work has rolled back to a savepoint before
   * it, unless it repeats the whole unit.
   */
  firstFailure: unknown;
  /** The claim met a row that is there already: somebody else has done this work. */
  claimIsTaken = false;
  /** The work has set `statement_timeout` itself. */
  setsOwnTimeout = false;
  readonly ticket: KnownTicket;

  constructor(
    private readonly connection: SessionConnection,
    private readonly state: SessionState,
    private readonly options: SessionOptions,
  ) {
    this.ticket = new KnownTicket(options.dataSource, options.tracksXid, options.assignsXid);
  }

  async send<Row extends QueryResultRow>(statement: QueryConfig): Promise<QueryResult<Row>> {
    this.setsOwnTimeout ||= setsTimeout(statement);
    try {
      const run = () =>
        canBePipelined(statement) ? this.sendPipelined<Row>(statement) : this.sendAlone<Row>(statement);
      const { client } = this.connection;
      const result = await (this.options.isTraced ? inStatementSpan(statement.text, client, run) : run());
      // ROLLBACK TO a savepoint that is older than the failure: the server has forgotten it.
      if (result.command === 'ROLLBACK') this.forgive();
      return result;
    } catch (cause) {
      const error = this.connection.explain(cause);
      const { postgres } = failureOf(error) ?? {};
      // What the unit makes of it is told by whoever ends it; until then nobody can say more than that it was not expected.
      if (postgres && faultOf(postgres) === 'server') expectError(error);
      // A value that pg could not send leaves the transaction as it was; once BEGIN is in doubt everything is.
      if (failureOf(error) || this.connection.isBroken || !this.state.hasBegun) this.firstFailure ??= error;
      throw error;
    }
  }

  private forgive(): void {
    if (this.firstFailure === undefined || this.options.isRetryable(this.firstFailure)) return;
    this.firstFailure = undefined;
  }

  private async sendPipelined<Row extends QueryResultRow>(statement: QueryConfig): Promise<QueryResult<Row>> {
    const { state, connection, options, ticket } = this;
    this.assertMayBegin();
    for (;;) {
      const begin = state.hasBegun ? [] : options.begin;
      const claim = state.hasBegun || !options.claim ? [] : [options.claim];
      const ahead = [...begin, ...this.statementTimeout()];
      const around = { before: [...ahead, ...claim], ...(ticket.lacksXid && { after: ticket.question }) };
      const progress = noProgress();
      try {
        return await connection.sendPipelined<Row>(statement, around, progress);
      } catch (error) {
        const failedAtBegin = !state.hasBegun && progress.beforeDone < begin.length;
        const failedAtClaim = claim.length > 0 && progress.beforeDone === ahead.length;
        this.claimIsTaken ||= failedAtClaim && hasSqlState(error, UNIQUE_VIOLATION);
        // Whoever made the claim is told, and may well have reckoned with it.
        if (this.claimIsTaken) expectError(error);
        // A dead client found at BEGIN: nothing was done, and the work has seen nothing of it.
        if (failedAtBegin && (await this.replacesClient(error))) continue;
        if (failedAtBegin) connection.discard();
        throw error;
      } finally {
        if (begin.length > 0 && progress.beforeDone >= begin.length) state.on('begun');
        if (progress.after !== undefined) ticket.learn(progress.after);
        else ticket.doubt();
      }
    }
  }

  private async sendAlone<Row extends QueryResultRow>(statement: QueryConfig): Promise<QueryResult<Row>> {
    await this.begin();
    this.ticket.doubt();
    return this.connection.query(statement);
  }

  /** For what can't travel with BEGIN, or does not come. A claim has parameters, so a statement that does nothing carries it. */
  async begin(): Promise<void> {
    const { state, connection, options } = this;
    if (options.claim && !state.hasBegun) await this.sendPipelined({ text: 'SELECT' });
    this.assertMayBegin();
    while (!state.hasBegun) {
      try {
        await connection.query({ text: [...options.begin, ...this.statementTimeout()].join('; ') });
        state.on('begun');
      } catch (error) {
        if (await this.replacesClient(error)) continue;
        connection.discard();
        throw error;
      }
    }
  }

  /** What has failed to begin once is not begun behind the back of who was told so. */
  private assertMayBegin(): void {
    if (this.firstFailure !== undefined && !this.state.hasBegun) throw this.firstFailure as Error;
  }

  private async replacesClient(error: unknown): Promise<boolean> {
    return (failureOf(error)?.isLost ?? false) && this.connection.replace(() => this.state.isOpen);
  }

  /** The server stops a statement that would outlast the unit's budget. */
  statementTimeout(): string[] {
    const remaining = this.options.remainingMs();
    // What the work has set itself is left as it is; the budget then ends with the connection.
    if (remaining === undefined || this.setsOwnTimeout) return [];
    // The session's own 0 is none.
    const own = this.options.statementTimeoutMs ?? (statementTimeoutOf(this.connection.client) || Infinity);
    return [`SET LOCAL statement_timeout = ${Math.max(1, Math.ceil(Math.min(own, remaining)))}`];
  }
}
