/** One row: id, name and the JSON text of data. */
export type CopyRow = readonly [id: string, name: string, data: string | null];

/** Rows that are gathered before they are sent. */
export interface Piece {
  /** How many they are. */
  readonly count: number;
  /** What they take, in bytes. */
  readonly bytes: number;
  add(rows: readonly CopyRow[]): void;
  /** Makes it empty, for others. */
  clear(): void;
}

/** What a row takes beside its texts, about. */
const BYTES_PER_ROW = 64;

/** Rows that are kept as they are. */
export class RowPiece implements Piece {
  rows: CopyRow[] = [];
  bytes = 0;

  get count(): number {
    return this.rows.length;
  }

  add(rows: readonly CopyRow[]): void {
    for (const row of rows) {
      const [, name, data] = row;
      this.rows.push(row);
      this.bytes += BYTES_PER_ROW + Buffer.byteLength(name) + (data === null ? 0 : Buffer.byteLength(data));
    }
  }

  clear(): void {
    this.rows = [];
    this.bytes = 0;
  }
}
