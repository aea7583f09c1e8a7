import { forEachRow, type Piece, type RowValues } from './piece.js';

const EMPTY = Buffer.alloc(0);
/** About a piece, as most are. */
const FIRST_BYTES = 320 * 1024;
/** What a large person has made larger is not kept for others. */
const KEPT_BYTES = 1024 * 1024;
/** A character has so many bytes at most. */
const CHARACTER_BYTES = 3;

/**
 * Rows as COPY reads them (https://www.postgresql.org/docs/current/sql-copy.html, text format): bytes, in a place that is used again,
 * so that nothing of a row outlives the batch it came with.
 */
export class CopyText implements Piece {
  count = 0;
  bytes = 0;
  /** In order, where they are kept. */
  ids: string[] = [];
  private place = EMPTY;

  constructor(private readonly keepsIds: boolean) {}

  /** What is sent. Until `clear`. */
  get text(): Buffer {
    return this.place.subarray(0, this.bytes);
  }

  add(rows: RowValues): void {
    let text = '';
    forEachRow(rows, (id, name, data) => {
      text += `${id}\t${escaped(name)}\t${data === null ? '\\N' : escaped(data)}\n`;
      if (this.keepsIds) this.ids.push(id);
      this.count++;
    });
    this.makeRoom(text);
    this.bytes += this.place.write(text, this.bytes);
  }

  clear(): void {
    this.count = 0;
    this.bytes = 0;
    this.ids = [];
    if (this.place.length > KEPT_BYTES) this.place = EMPTY;
  }

  private makeRoom(text: string): void {
    if (this.bytes + CHARACTER_BYTES * text.length <= this.place.length) return;
    const needed = this.bytes + Buffer.byteLength(text);
    if (needed <= this.place.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(FIRST_BYTES, needed, 2 * this.place.length));
    this.place.copy(larger, 0, 0, this.bytes);
    this.place = larger;
  }
}

const ESCAPES: Record<string, string> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };
const ESCAPED = Object.keys(ESCAPES);

/** Most texts have nothing to escape, which is found faster character by character than by an expression for all. */
function escaped(field: string): string {
  for (const character of ESCAPED)
    if (field.includes(character)) return field.replace(/[\\\n\r\t]/g, (found) => ESCAPES[found]!);
  return field;
}
