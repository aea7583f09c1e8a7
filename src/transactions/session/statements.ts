import type { QueryConfig, QueryResult } from 'pg';
import { TransactionUsageError } from '../transaction-errors.js';

/**
 * One statement as data. `name` makes it a prepared statement of the connection, parsed and planned once; a name must
 * always stand for the same text.
 */
export interface Statement {
  /** Left out: it is parsed and planned each time. */
  name?: string;
  /** SQL with `$1`, `$2`, … in place of values. */
  text: string;
  /** For `$1`, `$2`, … */
  values?: readonly unknown[];
}

/** What `client.query` takes beside statements (pg's Submittable, with what pg calls on it): a COPY, a cursor. */
export interface Submittable {
  submit: unknown;
  handleReadyForQuery?: (connection: unknown) => void;
  handleError: (error: Error, connection?: unknown) => void;
}

/** What a statement gives that had no need to be sent. */
export const NOTHING: QueryResult = { command: '', rowCount: null, oid: 0, fields: [], rows: [] };

// What ends a transaction belongs to the runner; ROLLBACK TO a savepoint does not end it.
const CONTROL =
  /^\s*(?:BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(?:WORK\s+|TRANSACTION\s+)?TO\b))\b/i;

/** @throws TransactionUsageError the statement would begin or end a transaction */
export function refuseControl(text: string): void {
  if (!CONTROL.test(text)) return;
  throw new TransactionUsageError(
    `The work must not send ${text.trim().slice(0, 30)}: a unit of work is committed when its work returns, and rolled back when it throws.`,
  );
}

const SETS_TIMEOUT = /\b(?:re)?set(?:_config)?\b[^;]*\bstatement_timeout\b/i;
const SET_CONFIG = /\bset_config\b/i;

/** True for a statement by which the work may set `statement_timeout` itself. */
export const setsTimeout = ({ text, values }: QueryConfig): boolean =>
  SETS_TIMEOUT.test(text) || (SET_CONFIG.test(text) && (values?.includes('statement_timeout') ?? false));
