import type { Client, PoolClient } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setImmediate } from 'node:timers/promises';

/** One row for COPY: id, name and the JSON text of data. */
export type CopyRow = readonly [id: string, name: string, data: string | null];

const BUFFER_CHARACTERS = 64 * 1024;

/**
 * Writes rows through COPY, reading the source only as fast as the server takes it: memory does not grow with the rows.
 * When the source throws, the server is told and nothing of the COPY remains.
 *
 * @returns the number of rows
 * @throws what `rows` throws, or the server's error
 */
export async function copyRows(
  client: PoolClient,
  copy: string,
  rows: AsyncIterable<CopyRow>,
): Promise<number> {
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
