import type { DataSource } from 'typeorm';
import type { TransactionSession } from '../session/session.js';
import { type CommitOutcome, resolveCommit } from './commit-outcome.js';
import { OutcomeRows } from './outcome-rows.js';
import type { Unit } from './unit-of-work.js';

/** How long the outcome of a lost COMMIT is asked for, in ms: a restart of the server is shorter. */
const ASK_MS = 30_000;
/** A budget that is used up still leaves this much to learn what became of its COMMIT. */
const ASK_AT_LEAST_MS = 1000;

/** What became of a COMMIT whose answer was lost, by whatever the unit has to ask with: its row, its transaction's id. */
export async function askForOutcome(
  session: TransactionSession,
  unit: Unit,
  dataSource: DataSource,
): Promise<CommitOutcome> {
  // Before anything is asked: who holds a connection while waiting for one may wait for ever.
  session.connection.discard();
  session.release();
  const { outcomeRow } = session;
  const ticket = session.sender.ticket.known;
  const atMostMs = Math.max(ASK_AT_LEAST_MS, unit.remainingMs() ?? ASK_MS);
  if (outcomeRow) return OutcomeRows.of(dataSource).resolve(outcomeRow, ticket, atMostMs);
  if (ticket) return resolveCommit(dataSource, ticket, atMostMs);
  // A unit that only read has nothing that could be applied twice.
  return unit.options.readOnly ? 'aborted' : 'unknown';
}
