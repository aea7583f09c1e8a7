// people/importing/: Many people at once: read in pieces, checked, and stored by COPY or by INSERTs of many rows.
// Promises: all or none; memory is bounded; a slow sender holds no connection while it sends nothing.
// May know: the statements of people, and the transaction it is given.

import { copyIn } from '../../database/pg/copy-in.js';
import type { QueryConfig } from 'pg';
import type { TransactionContext } from '../../transactions/transaction-context.js';
import { PersonRefusedError } from '../people.errors.js';
import { type PeopleStatements, ROWS_PER_INSERT } from '../people.statements.js';

/** One row for COPY: id, name and the JSON text of data. */
export type CopyRow = readonly [id: string, name: string, data: string | null];

/** About; the server stores rows while the next ones arrive. */
const BUFFER_CHARACTERS = 64 * 1024;

/** A piece as it is sent. */
interface ReadyPiece {
  rows: number;
  /** @returns the number of rows that are stored */
  store: () => Promise<number>;
}

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
  const ready = (tables[0]?.copies ?? true) ? readyToCopy : readyToInsert;
  let inserted = 0;
  for (let piece = ready(transaction, statements, first); piece.rows > 0;) {
    // It is gathered and written out while this one is stored. What the server says of this one comes first.
    const following = next().then((rows) => ready(transaction, statements, rows));
    following.catch(() => undefined);
    if ((await piece.store()) !== piece.rows) throw new PersonRefusedError();
    inserted += piece.rows;
    piece = await following;
  }
  return inserted;
}

/** Its events are made of what is stored. */
function readyToCopy(
  { client }: TransactionContext,
  { copy, publishCreated }: PeopleStatements,
  piece: CopyRow[],
): ReadyPiece {
  const buffers = copyText(piece);
  const published = publishCreated?.(arrayOf(piece.map(([id]) => id)));
  return {
    rows: piece.length,
    store: async () => {
      const stored = await copyIn(client, copy, buffers);
      if (published && stored > 0) await client.query(published as QueryConfig);
      return stored;
    },
  };
}

/** For a view, and a table with row security, which take no COPY. */
function readyToInsert(
  transaction: TransactionContext,
  { createRest }: PeopleStatements,
  piece: CopyRow[],
): ReadyPiece {
  return {
    rows: piece.length,
    store: async () => {
      let stored = 0;
      for (let start = 0; start < piece.length; start += ROWS_PER_INSERT) {
        const values = piece.slice(start, start + ROWS_PER_INSERT).flat();
        stored += (await transaction.query(createRest(values))).rowCount ?? 0;
      }
      return stored;
    },
  };
}

/** The literal of an array of ids: pg's own way to write one takes longer than the statement. */
const arrayOf = (ids: readonly string[]) => `{${ids.join()}}`;

/** https://www.postgresql.org/docs/current/sql-copy.html, text format. */
function copyText(rows: readonly CopyRow[]): Buffer[] {
  const buffers: Buffer[] = [];
  let text = '';
  for (const [id, name, data] of rows) {
    text += `${id}\t${escaped(name)}\t${data === null ? '\\N' : escaped(data)}\n`;
    if (text.length < BUFFER_CHARACTERS) continue;
    buffers.push(Buffer.from(text));
    text = '';
  }
  if (text) buffers.push(Buffer.from(text));
  return buffers;
}

const ESCAPES: Record<string, string> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

const escaped = (field: string) =>
  field.replace(/[\\\n\r\t]/g, (character) => ESCAPES[character] ?? character);
