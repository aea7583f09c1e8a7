import type { Client, PoolClient, QueryConfig } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setImmediate } from 'node:timers/promises';
import type { TransactionContext } from '../transactions/transaction-context.js';
import { PersonRefusedError } from './people.errors.js';
import { type PeopleStatements, ROWS_PER_INSERT } from './people.statements.js';

/** One row for COPY: id, name and the JSON text of data. */
export type CopyRow = readonly [id: string, name: string, data: string | null];

const BUFFER_CHARACTERS = 64 * 1024;
const ROWS_PER_COPY = 10_000;

/**
 * Stores rows in the transaction, in pieces: memory stays bounded, and what a trigger keeps out is noticed.
 *
 * @returns the number of rows
 * @throws PersonRefusedError not all that was read is stored
 * @throws what `rows` throws, or the server's error
 */
export async function importRows(
  transaction: TransactionContext,
  statements: PeopleStatements,
  rows: AsyncGenerator<CopyRow>,
): Promise<number> {
  let inserted = 0;
  try {
    const { rows: tables } = await transaction.query<{ copies: boolean }>(statements.takesCopy());
    const storePiece = (tables[0]?.copies ?? true) ? copyPiece : insertPiece;
    for (;;) {
      const { stored, read } = await storePiece(transaction, statements, rows);
      if (stored !== read) throw new PersonRefusedError();
      if (read === 0) return inserted;
      inserted += read;
    }
  } finally {
    // The source is told that nobody reads on.
    await rows.return(undefined);
  }
}

/** Its events are made of what is stored. */
async function copyPiece(
  { client }: TransactionContext,
  { copy, publishCreated }: PeopleStatements,
  rows: AsyncGenerator<CopyRow>,
) {
  const ids: string[] = [];
  const stored = await copyRows(
    client,
    copy,
    take(rows, ROWS_PER_COPY, ([id]) => ids.push(id)),
  );
  if (publishCreated && stored > 0) await client.query(publishCreated(ids) as QueryConfig);
  return { stored, read: ids.length };
}

/** For a view, and a table with row security, which take no COPY. */
async function insertPiece(
  transaction: TransactionContext,
  { createRest }: PeopleStatements,
  rows: AsyncGenerator<CopyRow>,
) {
  const values: CopyRow[number][] = [];
  for await (const row of take(rows, ROWS_PER_INSERT)) values.push(...row);
  if (values.length === 0) return { stored: 0, read: 0 };
  const { rowCount } = await transaction.query(createRest(values));
  return { stored: rowCount ?? 0, read: values.length / 3 };
}

/** The next rows of a generator; the rest stays in it. */
async function* take(
  rows: AsyncGenerator<CopyRow>,
  atMost: number,
  taken: (row: CopyRow) => void = () => undefined,
): AsyncGenerator<CopyRow> {
  for (let count = 0; count < atMost; count++) {
    const next = await rows.next();
    if (next.done) return;
    taken(next.value);
    yield next.value;
  }
}

/**
 * Writes rows through COPY, reading the source only as fast as the server takes it: memory does not grow with the rows.
 * When the source throws, the server is told and nothing of the COPY remains.
 *
 * @returns the number of rows
 * @throws what `rows` throws, or the server's error
 */
async function copyRows(client: PoolClient, copy: string, rows: AsyncIterable<CopyRow>): Promise<number> {
  let source: { error: unknown } | undefined;
  async function* buffers() {
    let buffer = '';
    try {
      for await (const row of rows) {
        buffer += `${row.map(copyField).join('\t')}\n`;
        if (buffer.length < BUFFER_CHARACTERS) continue;
        yield Buffer.from(buffer);
        buffer = '';
        // Lets others work while a source never waits, and the server's complaint in before all has been read.
        await setImmediate();
      }
    } catch (error) {
      source = { error };
      throw error;
    }
    if (buffer) yield Buffer.from(buffer);
  }
  const stream = (client as unknown as Client).query(copyFrom(copy));
  try {
    await pipeline(Readable.from(buffers(), { objectMode: false }), stream);
  } catch (error) {
    // The server's own complaint about the aborted COPY may come first.
    throw source ? source.error : error;
  }
  return stream.rowCount;
}

const ESCAPES: Record<string, string> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** https://www.postgresql.org/docs/current/sql-copy.html, text format. */
const copyField = (field: string | null) =>
  field === null ? '\\N' : field.replace(/[\\\n\r\t]/g, (character) => ESCAPES[character] ?? character);
