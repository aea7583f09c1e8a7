/** One row: id, name and the JSON text of data. */
export type CopyRow = readonly [id: string, name: string, data: string | null];

/**
 * Rows one behind the other, three values each. An array for each row would cost more than it looks: where the engine sees that
 * many of those live on, it makes all that come from the same place in its memory for what lasts, where they keep their texts.
 */
export type RowValues = CopyRow[number][];
export const VALUES_PER_ROW = 3;

/** Goes through rows. */
export function forEachRow(
  values: RowValues,
  use: (id: string, name: string, data: string | null) => void,
): void {
  for (let at = 0; at < values.length; at += VALUES_PER_ROW)
    use(values[at] as string, values[at + 1] as string, values[at + 2] as string | null);
}

/** Rows that are gathered before they are sent. */
export interface Piece {
  /** How many they are. */
  readonly count: number;
  /** What they take, in bytes. */
  readonly bytes: number;
  add(rows: RowValues): void;
  /** Makes it empty, for others. */
  clear(): void;
}

/** What a row takes beside its texts, about. */
const BYTES_PER_ROW = 64;

/** Rows that are kept as they are. */
export class RowPiece implements Piece {
  values: RowValues = [];
  bytes = 0;

  get count(): number {
    return this.values.length / VALUES_PER_ROW;
  }

  add(rows: RowValues): void {
    forEachRow(rows, (id, name, data) => {
      this.values.push(id, name, data);
      this.bytes += BYTES_PER_ROW + Buffer.byteLength(name) + (data === null ? 0 : Buffer.byteLength(data));
    });
  }

  clear(): void {
    this.values = [];
    this.bytes = 0;
  }
}
