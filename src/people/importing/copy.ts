// people/importing/: Many people at once: read in pieces, checked, and stored by COPY or by INSERTs of many rows.
// Promises: all or none; memory is bounded; a slow sender holds no connection while it sends nothing.
// May know: the statements of people, and the transaction it is given.

import type { QueryConfig } from 'pg';
import { copyIn } from '../../database/pg/copy-in.js';
import type { TransactionContext } from '../../transactions/transaction-context.js';
import { PersonRefusedError } from '../people.errors.js';
import { type PeopleStatements, ROWS_PER_INSERT } from '../people.statements.js';
import { CopyText } from './copy-text.js';
import { type Piece, RowPiece, VALUES_PER_ROW } from './piece.js';

export type { CopyRow } from './piece.js';

/** Brings the next rows into an empty piece; it stays empty at the end. */
type Fill = (piece: Piece) => Promise<void>;

/**
 * Stores rows in the transaction, piece by piece: memory stays bounded, what a trigger keeps out is noticed, and the server waits for
 * nobody while it stores one.
 *
 * @param first the first piece, which is there already
 * @param fill is asked for the others, each while the one before it is stored
 * @returns the number of rows
 * @throws PersonRefusedError not all that was read is stored
 * @throws what `fill` throws, or the server's error
 */
export async function importPieces(
  transaction: TransactionContext,
  statements: PeopleStatements,
  first: RowPiece,
  fill: Fill,
): Promise<number> {
  const { rows: tables } = await transaction.query<{ copies: boolean }>(statements.takesCopy());
  const takesCopy = tables[0]?.copies ?? true;
  if (!takesCopy)
    return storeEach(first, new RowPiece(), fill, (piece) => insertPiece(transaction, statements, piece));
  const keepsIds = statements.publishCreated !== undefined;
  const firstText = new CopyText(keepsIds);
  firstText.add(first.values);
  return storeEach(firstText, new CopyText(keepsIds), fill, (piece) =>
    copyPiece(transaction, statements, piece),
  );
}

/** @param store gives the number of rows that it has stored */
async function storeEach<Of extends Piece>(
  first: Of,
  second: Of,
  fill: Fill,
  store: (piece: Of) => Promise<number>,
): Promise<number> {
  let inserted = 0;
  for (let [piece, next] = [first, second]; piece.count > 0; [piece, next] = [next, piece]) {
    next.clear();
    const filled = fill(next);
    // What the server says of this one comes first.
    filled.catch(() => undefined);
    if ((await store(piece)) !== piece.count) throw new PersonRefusedError();
    inserted += piece.count;
    await filled;
  }
  return inserted;
}

/** Its events are made of what is stored. */
async function copyPiece(
  { client }: TransactionContext,
  { copy, publishCreated }: PeopleStatements,
  { text, ids }: CopyText,
): Promise<number> {
  const stored = await copyIn(client, copy, text);
  // pg's own way to write an array takes longer than the statement.
  if (publishCreated && stored > 0) await client.query(publishCreated(`{${ids.join()}}`) as QueryConfig);
  return stored;
}

/** For a view, and a table with row security, which take no COPY. */
async function insertPiece(
  transaction: TransactionContext,
  { createRest }: PeopleStatements,
  { values }: RowPiece,
): Promise<number> {
  let stored = 0;
  for (let start = 0; start < values.length; start += VALUES_PER_ROW * ROWS_PER_INSERT) {
    const some = values.slice(start, start + VALUES_PER_ROW * ROWS_PER_INSERT);
    stored += (await transaction.query(createRest(some))).rowCount ?? 0;
  }
  return stored;
}
