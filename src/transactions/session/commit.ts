import type { QueryConfig, QueryResult } from 'pg';
import { failureOf, hasSqlState } from '../../database/database-failure.js';
import { noProgress, type PipelinedStatement, type Progress } from '../../database/pg/pipelined-query.js';
import { UNDEFINED_TABLE } from '../../database/postgres-errors.js';
import { TransactionUsageError } from '../transaction-errors.js';
import type { SessionConnection } from './connection.js';
import type { SessionOptions } from './options.js';
import type { StatementSender } from './sender.js';
import type { SessionState } from './state.js';

/** The server answered COMMIT with the tag ROLLBACK: a statement had failed, and it had nothing left to commit. */
export class RolledBackByServer extends Error {}

interface Committing {
  state: SessionState;
  connection: SessionConnection;
  sender: StatementSender;
  options: SessionOptions;
  /** What is to be written with COMMIT. */
  last: readonly PipelinedStatement[];
  /** The work's last statement, where it travels with COMMIT. */
  statement: QueryConfig | undefined;
}

/**
 * Sends COMMIT, together with what is to be written last; nothing where nothing was begun.
 *
 * @returns what `statement` gave
 * @throws RolledBackByServer the answer was ROLLBACK
 * @throws TransactionUsageError there is no transaction, or no table `transaction_outcome`
 */
export async function commit(committing: Committing): Promise<QueryResult | undefined> {
  const { state, connection, sender, options, statement } = committing;
  const { outcomeRow, signal } = options;
  const ahead = await sendAheadOfCommit(committing);
  if (!state.hasBegun) return undefined;
  if (sender.ticket.isDue) {
    const { rows } = await connection.query<{ concat: string }>({ text: sender.ticket.question.text });
    sender.ticket.learn(rows[0]?.concat ?? null);
  }
  if (connection.client.getTransactionStatus() === 'I')
    throw new TransactionUsageError('A statement of the work ended its transaction.');
  const cut = () => connection.cut();
  signal?.throwIfAborted();
  signal?.addEventListener('abort', cut, { once: true });
  state.on('send COMMIT');
  const progress = noProgress();
  try {
    const before = outcomeRow ? [...ahead, outcomeRow.statement] : ahead;
    if (statement) return await sendWithCommit(committing, statement, before, progress);
    const text = 'COMMIT';
    const { command } = await (before.length === 0
      ? connection.query({ text })
      : connection.sendPipelined({ text }, { before }, progress));
    if (command !== 'COMMIT') throw new RolledBackByServer();
    return undefined;
  } catch (error) {
    const failedAtRow = outcomeRow !== undefined && progress.beforeDone === ahead.length;
    if (!failedAtRow || !hasSqlState(error, UNDEFINED_TABLE)) throw error;
    state.on('skip COMMIT');
    throw noOutcomeTable(error);
  } finally {
    signal?.removeEventListener('abort', cut);
  }
}

/** A statement, with what is to be written before it, and COMMIT in one trip. @returns what it gave */
async function sendWithCommit(
  { state, connection, sender }: Committing,
  statement: QueryConfig,
  before: readonly PipelinedStatement[],
  progress: Progress,
): Promise<QueryResult> {
  try {
    // The unit's time behind the others, so that they stand at their places in `before`.
    const around = { before: [...before, ...sender.statementTimeout()], last: 'COMMIT' };
    const result = await connection.sendPipelined(statement, around, progress);
    if (progress.lastCommand !== 'COMMIT') throw new RolledBackByServer();
    return result;
  } catch (error) {
    const failure = failureOf(error);
    // Where pg could not send its values COMMIT was not sent, and where the server has refused it COMMIT was skipped.
    const isRefused = !failure || (failure.postgres && !failure.isLost);
    if (isRefused && !progress.isDone) state.on('skip COMMIT');
    throw error;
  }
}

/**
 * Sends what may not wait for COMMIT: a claim that no statement has carried, and statements that are the first to write,
 * for the transaction's id has to be known before COMMIT is sent.
 *
 * @returns those that travel with COMMIT
 */
async function sendAheadOfCommit({ state, sender, options, last }: Committing) {
  if (last.length === 0 && options.claim) await sender.begin();
  if (state.hasBegun && !sender.ticket.lacksXid) return last;
  // Without the names: pg has not heard of those that have travelled with others.
  for (const { text, values } of last) await sender.send({ text, values: [...values] });
  return [];
}

const noOutcomeTable = (cause: unknown) =>
  new TransactionUsageError(
    "commitOutcome: 'row' needs the table transaction_outcome: add transactionMigrations (they are part of peopleMigrations) to the DataSource's migrations, and run them.",
    { cause },
  );
