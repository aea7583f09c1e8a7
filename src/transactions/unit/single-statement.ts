import type { QueryConfig, QueryResult, QueryResultRow } from 'pg';
import { failureOf } from '../../database/database-failure.js';
import { isInternal } from '../../database/faults.js';
import { KnownServer } from '../../database/known-server.js';
import { sendStatement } from '../../database/pg/statement-query.js';
import { cutConnection, type Lease, poolOf, toSend, withClient } from '../../database/pooled-client.js';
import { ApplicationError } from '../../errors/application-error.js';
import { inStatementSpan } from '../../tracing/statement-spans.js';
import type { Statement } from '../transaction-context.js';
import { TransactionOutcomeUnknownError } from '../transaction-errors.js';
import type { AttemptOptions } from './attempt.js';
import type { Cuttable } from './open-sessions.js';
import { KeyPipeline } from './key-pipeline.js';
import { type AttemptOutcome, publishBegin } from './unit-of-work.js';

interface StatementOptions extends Omit<AttemptOptions<never>, 'work'> {
  statement: Statement;
  /** False when losing the connection leaves nothing unknown. */
  writes: boolean;
}

/** Runs one statement once, in the transaction of its own that the server gives it. */
export async function attemptStatement<Row extends QueryResultRow>(
  options: StatementOptions,
): Promise<AttemptOutcome<QueryResult<Row>>> {
  const { unit, attempt, dataSource, sessions, writes } = options;
  // A client that died while idle: there are at most as many of them as the pool is large.
  let dead = writes ? 0 : poolOf(dataSource).options.max;
  for (;;) {
    try {
      return { committed: true, value: await send<Row>(options) };
    } catch (error) {
      const failure = failureOf(error);
      // There was no client to send it on.
      if (error instanceof ApplicationError) return { committed: false, error, phase: 'begin', failure };
      if (dead-- > 0 && failure?.isLost && !sessions.isOver) continue;
      // Where the server has no transaction ids, it is one that may answer so when it does not know what became of the commit.
      const { hasTransactionIds } = KnownServer.of(dataSource);
      const isUndecided =
        failure?.isLost || (!hasTransactionIds && failure?.postgres && isInternal(failure.postgres));
      if (!writes || !isUndecided) return { committed: false, error, phase: 'statement', failure };
      const unknown = { transactionId: unit.id, attempts: attempt, cause: error };
      return { committed: false, error: new TransactionOutcomeUnknownError(unknown), phase: 'commit' };
    }
  }
}

async function send<Row extends QueryResultRow>({
  unit,
  attempt,
  dataSource,
  recycling,
  sessions,
  statement,
  writes,
}: StatementOptions): Promise<QueryResult<Row>> {
  const { conflictKey } = unit.options;
  const since = performance.now();
  let session: Cuttable | undefined;
  const onLease = (lease: Lease) => {
    publishBegin(unit, attempt, performance.now() - since);
    sessions.add((session = { cut: () => cutConnection(lease) }));
  };
  try {
    const sendOn = (lease: Lease) =>
      sendStatement<Row>(lease.client, toSend(lease, statement) as QueryConfig);
    const run = unit.isTraced
      ? (lease: Lease) => inStatementSpan(statement.text, lease.client, () => sendOn(lease))
      : sendOn;
    const query = (lease: Lease) => {
      onLease(lease);
      return run(lease);
    };
    if (conflictKey !== undefined) return await KeyPipeline.of(dataSource, conflictKey, recycling).use(query);
    return await withClient(dataSource, recycling, query, writes ? 'write' : 'read');
  } finally {
    if (session) sessions.delete(session);
  }
}
