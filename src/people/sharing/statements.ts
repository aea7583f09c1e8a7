import { MOST_SHARED } from '../../transactions/sharing/batches.js';
import type { Statement } from '../../transactions/transaction-context.js';

type Named = (name: string, text: string) => (...values: unknown[]) => Statement & { name: string };
/** A statement that writes events: the trace that they carry stands behind its other values. */
type Writing = (
  name: string,
  text: string,
) => (values: readonly unknown[], trace: string | null) => Statement & { name: string };

/** How long a shared statement waits for a lock: then the one who met it waits for it alone. */
const LOCK_TIMEOUT_MS = 50;
/** A person that takes more is read alone, as memory is bounded for those who share an answer. */
const SMALL_BYTES = 8192;

/** Rows that a shared statement is prepared for: few sizes, so that each is parsed once per connection. */
const SIZES = [2, 4, 8, 16, 32, MOST_SHARED];

/** Ahead of everything else in the statement; ends with it. */
const QUICK = `quick AS MATERIALIZED (SELECT set_config('lock_timeout', '${LOCK_TIMEOUT_MS}', true))`;

/** The statements of several callers at once: each waits for nobody's row, so that two of them can't wait for each other. */
export function sharedStatements({
  table,
  named,
  writing,
  changing,
  ifVersion,
  shown,
}: {
  table: string;
  named: Named;
  writing: Writing;
  /**
   * A statement whose RETURNING gives the columns of a row, and which writes its events.
   *
   * @param traces the parameter with the traces that they carry, as JSON by the rows' ids
   */
  changing: (type: string, text: string, payload: string | undefined, traces: { byId: string }) => string;
  /** The condition that a row has one of these versions, where there are some. */
  ifVersion: (versions: string) => string;
  /** The columns of a row that is `withheld` where the condition is not true. */
  shown: (isShown: string) => string;
}) {
  const each = (
    name: string,
    columns: readonly string[],
    textOf: (rows: string, traces: { byId: string }) => string,
  ) => {
    const bySize = new Map<number, ReturnType<Writing>>();
    const make = (size: number) => {
      const traces = { byId: `$${size * columns.length + 1}` };
      return writing(`${name}_${size}`, textOf(tuples(size, columns), traces));
    };
    /** @param traces as JSON by the rows' ids */
    return (rows: readonly (readonly unknown[])[], traces: string | null) => {
      const size = SIZES.find((one) => one >= rows.length)!;
      let statement = bySize.get(size);
      if (!statement) bySize.set(size, (statement = make(size)));
      // What is left over is the last row once more, which changes nothing.
      const last = rows.at(-1)!;
      const values = rows.flat();
      for (let row = rows.length; row < size; row++) values.push(...last);
      return statement(values, traces);
    };
  };
  /** Rows that nobody has locked. The others, and those that are not there or of another version, are left to be told alone. */
  const free = (given: string, columns: string, lock: string) =>
    `WITH ${QUICK}, given (${columns}) AS (VALUES ${given}),
       free AS MATERIALIZED (SELECT p.id AS free_id FROM ${table} p, given, quick WHERE p.id = given_id ${lock} OF p SKIP LOCKED)`;
  const isMeant = `id = given_id AND free_id = given_id AND ${ifVersion('versions')}`;
  return {
    /** ids, as the literal of an array; `PersonRow.withheld` where a person is too large */
    getShared: named(
      'get_shared',
      // As it is stored first: what is large already is not unpacked to be measured.
      `SELECT ${shown('is_small')}
       FROM (SELECT id, name, data, xmin, ctid, pg_column_size(name) + coalesce(pg_column_size(data), 0) <= ${SMALL_BYTES}
               AND octet_length(name) + coalesce(octet_length(data::text), 0) <= ${SMALL_BYTES} AS is_small
             FROM ${table} WHERE id = ANY ($1::uuid[])) AS found`,
    ),
    /** Rows of id, name, data; those are returned whose id was free. */
    createShared: each('create_shared', ['uuid', 'text', 'json'], (given, traces) =>
      changing(
        'created',
        `INSERT INTO ${table} (id, name, data)
         WITH ${QUICK}, given (given_id, given_name, given_data) AS (VALUES ${given})
         SELECT given_id, given_name, given_data FROM given, quick ON CONFLICT (id) DO NOTHING`,
        undefined,
        traces,
      ),
    ),
    /** Rows as for `update`, each of another person. */
    updateShared: each('update_shared', ['uuid', 'text', 'bool', 'json', 'text[]'], (given, traces) =>
      changing(
        'updated',
        `${free(given, 'given_id, given_name, changes, given_data, versions', 'FOR NO KEY UPDATE')}
         UPDATE ${table} SET name = coalesce(given_name, name), data = CASE WHEN changes THEN given_data ELSE data::json END
         FROM given, free WHERE ${isMeant}`,
        undefined,
        traces,
      ),
    ),
    /** Rows as for `remove`, each of another person. */
    removeShared: each('remove_shared', ['uuid', 'text[]'], (given, traces) =>
      changing(
        'deleted',
        `${free(given, 'given_id, versions', 'FOR UPDATE')}
         DELETE FROM ${table} USING given, free WHERE ${isMeant}`,
        `json_build_object('id', id)`,
        traces,
      ),
    ),
  };
}

/** `($1::uuid,$2::text),…` for so many rows. */
const tuples = (rows: number, types: readonly string[]): string =>
  Array.from(
    { length: rows },
    (_, row) => `(${types.map((type, column) => `$${row * types.length + column + 1}::${type}`).join()})`,
  ).join();
