import type { TransactionContext } from '../../transactions/transaction-context.js';
import { forEachRow, type RowValues, VALUES_PER_ROW } from './piece.js';
import { PersonRefusedError } from '../people.errors.js';
import { type PeopleStatements, ROWS_PER_INSERT } from '../people.statements.js';

/** Rows of one statement have so many characters at most: the driver writes a statement in one go. */
const CHARACTERS_PER_INSERT = 4 * 1024 * 1024;
/** What is kept of rows that have been checked; of more than that nothing is, and they are read again. */
const KEPT_CHARACTERS = 4 * 1024 * 1024;
/** An id, and what the program itself needs. */
const BESIDE = 200;

const charactersOf = (name: string, data: string | null) => name.length + (data?.length ?? 0) + BESIDE;

/** Rows of which every one has been checked. */
export interface CheckedRows {
  count: number;
  /** From the beginning. */
  again(): Iterable<RowValues> | AsyncIterable<RowValues>;
}

/**
 * Goes through rows once, which checks them, and keeps them where they are few.
 *
 * @param read the rows from the beginning, a few at a time
 * @throws what `read` throws
 */
export async function checkRows(read: () => AsyncIterable<RowValues>): Promise<CheckedRows> {
  let kept: RowValues | undefined = [];
  let characters = 0;
  let count = 0;
  for await (const rows of read()) {
    count += rows.length / VALUES_PER_ROW;
    forEachRow(rows, (_, name, data) => (characters += charactersOf(name, data)));
    if (characters > KEPT_CHARACTERS) kept = undefined;
    kept?.push(...rows);
  }
  return { count, again: () => (kept ? [kept] : read()) };
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
  let values: RowValues = [];
  let characters = 0;
  const insert = async () => {
    const expected = values.length / VALUES_PER_ROW;
    const isWhole = expected === ROWS_PER_INSERT;
    const statement = isWhole ? statements.createMany(...values) : statements.createRest(values);
    values = [];
    characters = 0;
    const { rowCount } = await transaction.query(statement);
    if (rowCount !== expected) throw new PersonRefusedError();
  };
  for await (const batch of rows.again()) {
    for (let at = 0; at < batch.length; at += VALUES_PER_ROW) {
      const [id, name, data = null] = batch.slice(at, at + VALUES_PER_ROW) as [string, string, string | null];
      values.push(id, name, data);
      characters += charactersOf(name, data);
      stored(id);
      if (values.length === ROWS_PER_INSERT * VALUES_PER_ROW || characters > CHARACTERS_PER_INSERT)
        await insert();
    }
  }
  if (values.length > 0) await insert();
}
