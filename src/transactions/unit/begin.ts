import type { IsolationLevel } from '../../database/data-source-options.js';
import type { TransactionOptions } from '../transaction-options.js';

/**
 * The statements that begin a transaction with such options; they travel with its first statement.
 *
 * @param isolationLevel that of the options, or else the server's
 * @param settings statements ahead of the options' own settings
 */
export function beginStatements(
  options: TransactionOptions,
  isolationLevel: IsolationLevel | undefined,
  settings: readonly string[],
): string[] {
  const { readOnly, deferrable } = options;
  const characteristics = [
    ...(isolationLevel ? [`ISOLATION LEVEL ${isolationLevel}`] : []),
    ...(readOnly === undefined ? [] : [readOnly ? 'READ ONLY' : 'READ WRITE']),
    ...(deferrable ? ['DEFERRABLE'] : []),
  ];
  const begin = ['START TRANSACTION', characteristics.join(', ')].join(' ').trim();
  return [begin, ...settings, ...localTimeouts(options)];
}

/** True when a single statement can't do without BEGIN: `beginStatements` has something to say. */
export function needsBegin({
  isolationLevel,
  readOnly,
  deferrable,
  lockTimeoutMs,
  statementTimeoutMs,
  idleInTransactionTimeoutMs,
}: TransactionOptions): boolean {
  if (isolationLevel !== undefined || readOnly !== undefined || deferrable) return true;
  return (lockTimeoutMs ?? statementTimeoutMs ?? idleInTransactionTimeoutMs) !== undefined;
}

// SET LOCAL, as set_config() would take the snapshot and leak nothing less.
function localTimeouts(options: TransactionOptions): string[] {
  const timeouts: [string, number | undefined][] = [
    ['lock_timeout', options.lockTimeoutMs],
    ['statement_timeout', options.statementTimeoutMs],
    ['idle_in_transaction_session_timeout', options.idleInTransactionTimeoutMs],
  ];
  return timeouts.flatMap(([name, ms]) => (ms === undefined ? [] : [`SET LOCAL ${name} = ${ms}`]));
}
