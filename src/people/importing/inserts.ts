import type { TransactionContext } from '../../transactions/transaction-context.js';
import { outgoingJson } from '../../tracing/trace-context.js';
import type { CopyRow } from './copy.js';
import { PersonRefusedError } from '../people.errors.js';
import { type PeopleStatements, ROWS_PER_INSERT } from '../people.statements.js';

/** Rows of one statement have so many characters at most: the driver writes a statement in one go. */
const CHARACTERS_PER_INSERT = 4 * 1024 * 1024;
/** What is kept of rows that have been checked; of more than that nothing is, and they are read again. */
const KEPT_CHARACTERS = 4 * 1024 * 1024;
/** An id, and what the program itself needs. */
const BESIDE = 200;

const charactersOf = ([, name, data]: CopyRow) => name.length + (data?.length ?? 0) + BESIDE;

/** Rows of which every one has been checked. */
export interface CheckedRows {
  count: number;
  /** From the beginning. */
  again(): Iterable<CopyRow> | AsyncIterable<CopyRow>;
}

/**
 * Goes through rows once, which checks them, and keeps them where they are few.
 *
 * @param read the rows from the beginning
 * @throws what `read` throws
 */
export async function checkRows(read: () => AsyncIterable<CopyRow>): Promise<CheckedRows> {
  let kept: CopyRow[] | undefined = [];
  let characters = 0;
  let count = 0;
  for await (const row of read()) {
    count++;
    characters += charactersOf(row);
    if (characters > KEPT_CHARACTERS) kept = undefined;
    kept?.push(row);
  }
  return { count, again: () => kept ?? read() };
}

/**
 * Stores rows by prepared INSERTs of many rows each.
 *
 * @param stored is told the id of each row
 * @throws PersonRefusedError not all of them are stored
 */
export async function insertRows(
  transaction: TransactionContext,
  statements: PeopleStatements,
  rows: CheckedRows,
  stored: (id: string) => void,
): Promise<void> {
  let values: CopyRow[number][] = [];
  let characters = 0;
  const trace = outgoingJson();
  const insert = async () => {
    const expected = values.length / 3;
    const isWhole = expected === ROWS_PER_INSERT;
    const statement = isWhole ? statements.createMany(values, trace) : statements.createRest(values, trace);
    values = [];
    characters = 0;
    const { rowCount } = await transaction.query(statement);
    if (rowCount !== expected) throw new PersonRefusedError();
  };
  for await (const row of rows.again()) {
    values.push(...row);
    characters += charactersOf(row);
    stored(row[0]);
    if (values.length === ROWS_PER_INSERT * 3 || characters > CHARACTERS_PER_INSERT) await insert();
  }
  if (values.length > 0) await insert();
}
