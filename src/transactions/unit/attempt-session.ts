import { failureOf } from '../../database/database-failure.js';
import { KnownServer } from '../../database/known-server.js';
import { knowServer } from '../../database/pooled-client.js';
import { describeAttempt, isRetryable } from '../retry-policy.js';
import type { SessionOptions } from '../session/options.js';
import { outsideTransaction } from '../session/places.js';
import { TransactionSession } from '../session/session.js';
import { currentTransaction } from '../transaction-context.js';
import { beginStatements } from './begin.js';
import { OutcomeRows } from './outcome-rows.js';
import { publishBegin, type Unit } from './unit-of-work.js';

/** Opens the session of an attempt, as the unit's options and the server's ways ask for it. */
export async function openSession(
  unit: Unit,
  attempt: number,
  { dataSource, recycling }: Pick<SessionOptions, 'dataSource' | 'recycling'>,
): Promise<TransactionSession> {
  const { options } = unit;
  const server = KnownServer.of(dataSource);
  if (!server.isKnown) await outsideTransaction(() => knowServer(dataSource));
  const { isolationLevel = server.isolationLevel } = options;
  const session = await TransactionSession.open({
    dataSource,
    recycling,
    transactionId: () => unit.id,
    isTraced: unit.isTraced,
    // Also what the session has by default: a pooler may have handed on another one.
    begin: beginStatements(options, isolationLevel, server.settingsPerTransaction),
    readOnly: options.readOnly ?? false,
    claim: unit.options.claim,
    statementTimeoutMs: options.statementTimeoutMs,
    tracksXid: !options.readOnly && server.hasTransactionIds && options.commitOutcome !== 'report',
    // Who waits for others of its key is going to write.
    assignsXid: options.conflictKey !== undefined,
    // A claim is a row already, and whoever made it looks for that.
    outcomeRow:
      options.commitOutcome === 'row' && !options.readOnly && !unit.options.claim
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

/** True for the failure of a statement that makes the whole unit run again. */
export function repeats(error: unknown, { options }: Unit, attempt: number): boolean {
  const failure = failureOf(error);
  if (failure?.isOutdated) return true;
  return isRetryable(describeAttempt(error, 'statement', attempt, failure), options.retryOn);
}
