import type { PostgresError } from './database-failure.js';

/**
 * Whose fault a failure is that the server has answered a statement with.
 *
 * - `conflict`: of two transactions that met. The whole unit of work runs again.
 * - `timeout`: of the load. The statement was given up, or waited too long.
 * - `server`: of the server's state, or of a deployment under way. Nothing is wrong with what was asked; it may pass later.
 * - `input`: of what was asked: the table, its constraints or its triggers refuse it, and will again.
 * - `program`: of whoever wrote the statement.
 */
export type Fault = 'conflict' | 'timeout' | 'server' | 'input' | 'program';

/** By SQLSTATE; the first row that fits counts. `docs/transactions.md` has the same table, and a test provokes each row. */
export const FAULTS: readonly (readonly [sqlState: RegExp, fault: Fault])[] = [
  [/^(40001|40P01)$/, 'conflict'],
  [/^(57014|55P03|25P03|25P04)$/, 'timeout'],
  // Connections, resources (disk, memory, connections), an operator's intervention, the system around the server.
  [/^(08|53|57|58)/, 'server'],
  // It takes no writes: a standby, or one that somebody has made read only.
  [/^25006$/, 'server'],
  // A table, column, schema or right that is not there, as while a deployment is under way.
  [/^(42P01|42703|3F000|42501)$/, 'server'],
  // Values, constraints, checks of views, what triggers raise, and what is too large for an index or a row.
  [/^(22|23|44|P0|54)/, 'input'],
];

/** Row security says 42501 as well, and that is about the row. The server's texts are translated, its functions' names are not. */
const ROW_SECURITY = 'ExecWithCheckOptions';

export function faultOf({ code, routine }: PostgresError): Fault {
  if (code === '42501' && routine === ROW_SECURITY) return 'input';
  return FAULTS.find(([sqlState]) => sqlState.test(code))?.[1] ?? 'program';
}

/** What refuses an input, without any value of it: by the names that the server gives, else by the kind of failure. */
export function refusalOf({ code, constraint, column }: PostgresError): string {
  if (constraint) return `the constraint ${constraint} (${code})`;
  if (column) return `the column ${column} (${code})`;
  const kind = KINDS.find(([sqlState]) => sqlState.test(code))?.[1] ?? 'its types';
  return `${kind} (${code})`;
}

const KINDS: readonly (readonly [RegExp, string])[] = [
  [/^22001$/, 'the length of a column'],
  [/^22003$/, 'the range of a number'],
  [/^22(021|P05)$/, 'the encoding of the database, which lacks a character of it'],
  [/^42501$/, 'the row security of the table'],
  [/^44/, 'the check of a view'],
  [/^P0/, 'a trigger'],
  [/^54/, 'the largest size of a row or an index entry'],
];

/** True for what exists once and would exist twice. */
export const isUniqueness = ({ code }: PostgresError): boolean => code === '23505' || code === '23P01';
