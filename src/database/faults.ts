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

/**
 * By SQLSTATE, or its class (the first two characters); the first row that fits counts. `docs/transactions.md` has the same
 * table, and a test provokes each row.
 */
export const FAULTS: readonly { states: readonly string[]; fault: Fault }[] = [
  { states: ['40001', '40P01'], fault: 'conflict' },
  { states: ['57014', '55P03', '25P03', '25P04'], fault: 'timeout' },
  // Connections, resources (disk, memory, connections), an operator's intervention, the system around the server.
  { states: ['08', '53', '57', '58'], fault: 'server' },
  // It takes no writes: a standby, or one that somebody has made read only.
  { states: ['25006'], fault: 'server' },
  // A table, column, schema or right that is not there, as while a deployment is under way.
  { states: ['42P01', '42703', '3F000', '42501'], fault: 'server' },
  // What the client believes to be prepared is not, or stands twice: the connection's fault, see `DatabaseFailure.isOutdated`.
  { states: ['26000', '42P05'], fault: 'server' },
  // Values, constraints, checks of views, what triggers raise, and what is too large for an index or a row.
  { states: ['22', '23', '44', 'P0', '54'], fault: 'input' },
];

/** Row security says 42501 as well, and that is about the row. The server's texts are translated, its functions' names are not. */
const ROW_SECURITY = 'ExecWithCheckOptions';

export function faultOf({ code, routine }: PostgresError): Fault {
  if (code === '42501' && routine === ROW_SECURITY) return 'input';
  return FAULTS.find(({ states }) => isOneOf(states, code))?.fault ?? 'program';
}

/** A table, schema or right that is not there may be so in this session alone: somebody has left it a `SET search_path` or `SET ROLE`. */
export const looksElsewhere = (error: PostgresError): boolean =>
  ['42P01', '3F000', '42501'].includes(error.code) && faultOf(error) === 'server';

/** Something in the server itself went wrong: class XX. */
export const isInternal = ({ code }: PostgresError): boolean => code.startsWith('XX');

const isOneOf = (states: readonly string[], code: string): boolean =>
  states.some((state) => code.startsWith(state));

/** What refuses an input, without any value of it: by the names that the server gives, else by the kind of failure. */
export function refusalOf({ code, constraint, column }: PostgresError): string {
  if (constraint) return `the constraint ${constraint} (${code})`;
  if (column) return `the column ${column} (${code})`;
  return `${KINDS.find(({ states }) => isOneOf(states, code))?.kind ?? 'its types'} (${code})`;
}

const KINDS: readonly { states: readonly string[]; kind: string }[] = [
  { states: ['22001'], kind: 'the length of a column' },
  { states: ['22003'], kind: 'the range of a number' },
  { states: ['22021', '22P05'], kind: 'the encoding of the database, which lacks a character of it' },
  { states: ['42501'], kind: 'the row security of the table' },
  { states: ['44'], kind: 'the check of a view' },
  { states: ['P0'], kind: 'a trigger' },
  { states: ['54'], kind: 'the largest size of a row or an index entry' },
];

/** True for what exists once and would exist twice. */
export const isUniqueness = ({ code }: PostgresError): boolean => code === '23505' || code === '23P01';
