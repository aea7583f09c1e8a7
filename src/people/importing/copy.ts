// people/importing/: Many people at once: read in pieces, checked, and stored by COPY or by INSERTs of many rows.
// Promises: all or none; memory is bounded; a slow sender holds no connection while it sends nothing.
// May know: the statements of people, and the transaction it is given.

import type { Client, PoolClient, QueryConfig } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { outgoingJson } from '../../tracing/trace-context.js';
import type { TransactionContext } from '../../transactions/transaction-context.js';
import { PersonRefusedError } from '../people.errors.js';
import { type PeopleStatements, ROWS_PER_INSERT } from '../people.statements.js';

/** One row for COPY: id, name and the JSON text of data. */
export type CopyRow = readonly [id: string, name: string, data: string | null];

const BUFFER_CHARACTERS = 64 * 1024;

/**
 * Stores rows in the transaction, piece by piece: memory stays bounded, what a trigger keeps out is noticed, and the server waits for
 * nobody while it stores one.
 *
 * @param first the first piece, which is there already
 * @param next gives the others; an empty one is the end
 * @returns the number of rows
 * @throws PersonRefusedError not all that was read is stored
 * @throws what `next` throws, or the server's error
 */
export async function importPieces(
  transaction: TransactionContext,
  statements: PeopleStatements,
  first: CopyRow[],
  next: () => Promise<CopyRow[]>,
): Promise<number> {
  const { rows: tables } = await transaction.query<{ copies: boolean }>(statements.takesCopy());
  const storePiece = (tables[0]?.copies ?? true) ? copyPiece : insertPiece;
  let inserted = 0;
  for (let piece = first; piece.length > 0;) {
    // It is gathered while this one is stored. What the server says of this one comes first.
    const following = next();
    following.catch(() => undefined);
    if ((await storePiece(transaction, statements, piece)) !== piece.length) throw new PersonRefusedError();
    inserted += piece.length;
    piece = await following;
  }
  return inserted;
}

/** Its events are made of what is stored. @returns the number of rows */
async function copyPiece(
  { client }: TransactionContext,
  { copy, publishCreated }: PeopleStatements,
  piece: CopyRow[],
): Promise<number> {
  const stored = await copyRows(client, copy, piece);
  if (publishCreated && stored > 0)
    await client.query(publishCreated([piece.map(([id]) => id)], outgoingJson()) as QueryConfig);
  return stored;
}

/** For a view, and a table with row security, which take no COPY. @returns the number of rows */
async function insertPiece(
  transaction: TransactionContext,
  { createRest }: PeopleStatements,
  piece: CopyRow[],
): Promise<number> {
  let stored = 0;
  for (let start = 0; start < piece.length; start += ROWS_PER_INSERT) {
    const values = piece.slice(start, start + ROWS_PER_INSERT).flat();
    stored += (await transaction.query(createRest(values, outgoingJson()))).rowCount ?? 0;
  }
  return stored;
}

/** Writes rows through COPY. @returns the number of rows @throws the server's error */
async function copyRows(client: PoolClient, copy: string, rows: CopyRow[]): Promise<number> {
  function* buffers() {
    let buffer = '';
    for (const row of rows) {
      buffer += `${row.map(copyField).join('\t')}\n`;
      if (buffer.length < BUFFER_CHARACTERS) continue;
      yield Buffer.from(buffer);
      buffer = '';
    }
    if (buffer) yield Buffer.from(buffer);
  }
  const stream = (client as unknown as Client).query(copyFrom(copy));
  await pipeline(Readable.from(buffers(), { objectMode: false }), stream);
  return stream.rowCount;
}

const ESCAPES: Record<string, string> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** https://www.postgresql.org/docs/current/sql-copy.html, text format. */
const copyField = (field: string | null) =>
  field === null ? '\\N' : field.replace(/[\\\n\r\t]/g, (character) => ESCAPES[character] ?? character);
