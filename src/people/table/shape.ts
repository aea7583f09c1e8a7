import { hasSqlState } from '../../database/database-failure.js';
import {
  FEATURE_NOT_SUPPORTED,
  INVALID_TEXT_REPRESENTATION,
  NUMERIC_VALUE_OUT_OF_RANGE,
  UNDEFINED_COLUMN,
  UNDEFINED_FUNCTION,
  UNDEFINED_OBJECT,
  UNDEFINED_TABLE,
  UNTRANSLATABLE_CHARACTER,
} from '../../database/postgres-errors.js';
import type { Statement } from '../../transactions/transaction-context.js';

/** The table `people` as the catalog of the database describes it. */
export interface TableShape {
  /** `pg_class.relkind`: r a table, p a partitioned one, v a view; null where nothing has the name. */
  kind: string | null;
  /** The role that the connections have. */
  role: string;
  /** Where a table without a schema is looked for. */
  schemas: string[];
  columns: TableColumn[];
  /** Unique indexes that begin with `id`. */
  keys: TableKey[];
  hasPrimaryKey: boolean;
  /** True when a trigger sees rows before they are inserted, and may fill them in. */
  hasInsertTrigger: boolean;
  /** Rules on INSERT or UPDATE of a table. */
  rules: string[];
  /** False for a view, or columns of it, that the server can't write through by itself. */
  isUpdatable: boolean;
  /** True for a view of a table that has no key on `id` alone. */
  isWithoutKey?: boolean;
  /** What the role may do: to each column that is concerned. */
  may: { SELECT: boolean; INSERT: boolean; UPDATE: boolean; DELETE: boolean };
  /** True when `xmin` and `ctid` of its rows can be read, also in RETURNING. */
  hasRowVersions: boolean;
}

export interface TableColumn {
  name: string;
  /** The type, of a domain the one below it, without length. */
  type: string;
  isNotNull: boolean;
  /** Whether it has a value where an INSERT gives none. */
  hasDefault: boolean;
  /** `pg_attribute.attgenerated`: '' where an INSERT may give a value, s stored, v virtual. */
  generated: string;
}

export interface TableKey {
  /** Of the index, and of its constraint. */
  name: string;
  isPrimary: boolean;
  isOnIdAlone: boolean;
  isPartial: boolean;
  isDeferrable: boolean;
  isValid: boolean;
}

// A view has no such columns unless it selects them; a partitioned table has, but its INSERT can't return them.
const ROW_VERSIONS = `relkind IN ('r', 'v') AND
  (SELECT count(*) = 2 AND bool_and(has_column_privilege(t.oid, attnum, 'SELECT'))
   FROM pg_attribute WHERE attrelid = t.oid AND attname IN ('xmin', 'ctid') AND NOT attisdropped)`;

const mayEach = (right: string, columns: string) =>
  `(SELECT coalesce(bool_and(has_column_privilege(t.oid, attnum, '${right}')), true)
    FROM pg_attribute WHERE attrelid = t.oid AND attname IN (${columns}) AND NOT attisdropped)`;

const COLUMNS = `
  SELECT json_agg(json_build_object(
    'name', attname, 'type', format_type(base.oid, NULL), 'isNotNull', attnotnull OR base.not_null,
    'hasDefault', atthasdef OR attidentity <> '' OR attgenerated <> '' OR base.has_default, 'generated', attgenerated) ORDER BY attnum)
  FROM pg_attribute, LATERAL (
    WITH RECURSIVE base AS (
      SELECT oid, typtype, typbasetype, typnotnull AS not_null, typdefault IS NOT NULL AS has_default
      FROM pg_type WHERE oid = atttypid
      UNION ALL
      SELECT below.oid, below.typtype, below.typbasetype, not_null OR below.typnotnull, has_default OR below.typdefault IS NOT NULL
      FROM base JOIN pg_type below ON base.typtype = 'd' AND below.oid = base.typbasetype)
    SELECT * FROM base WHERE typtype <> 'd') base
  WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped`;

const KEYS = `
  SELECT json_agg(json_build_object(
    'name', relname, 'isPrimary', indisprimary, 'isOnIdAlone', indnkeyatts = 1,
    'isPartial', indpred IS NOT NULL, 'isDeferrable', NOT indimmediate, 'isValid', indisvalid))
  FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    JOIN pg_attribute ON attrelid = indrelid AND attname = 'id' AND indkey[0] = attnum
  WHERE indrelid = t.oid AND indisunique`;

/**
 * One question, for one row: a `TableShape`.
 *
 * @param table the name as SQL has it, with its schema or to be looked for on the search_path
 */
export const shapeOf = (table: string): Statement => ({
  text: `
    SELECT relkind AS kind, current_user AS role, array_to_json(current_schemas(false)) AS schemas,
      coalesce((${COLUMNS}), '[]') AS columns,
      coalesce((${KEYS}), '[]') AS keys,
      EXISTS (SELECT FROM pg_index WHERE indrelid = t.oid AND indisprimary) AS "hasPrimaryKey",
      EXISTS (SELECT FROM pg_trigger WHERE tgrelid = t.oid AND tgtype & 7 = 7 AND tgenabled <> 'D' AND NOT tgisinternal) AS "hasInsertTrigger",
      coalesce((SELECT json_agg(rulename) FROM pg_rewrite
        WHERE ev_class = t.oid AND relkind IN ('r', 'p') AND ev_type IN ('2', '3') AND ev_enabled <> 'D'), '[]') AS rules,
      relkind <> 'v' OR (pg_relation_is_updatable(t.oid, false) & 28 = 28 AND
        (SELECT bool_and(pg_column_is_updatable(t.oid, attnum, false)) FROM pg_attribute
         WHERE attrelid = t.oid AND attname IN ('id', 'name', 'data'))) AS "isUpdatable",
      json_build_object(
        'SELECT', ${mayEach('SELECT', `'id', 'name', 'data'`)},
        'INSERT', ${mayEach('INSERT', `'id', 'name', 'data'`)},
        'UPDATE', ${mayEach('UPDATE', `'name', 'data'`)},
        'DELETE', has_table_privilege(t.oid, 'DELETE')) AS may,
      ${ROW_VERSIONS} AS "hasRowVersions"
    FROM (SELECT to_regclass($1) AS oid) t LEFT JOIN pg_class ON pg_class.oid = t.oid`,
  values: [table],
});

/** Planned only. Fails (42P10) where what is below a view has no key: the catalog tells that of tables alone. */
export const insertingInto = (table: string): string =>
  `EXPLAIN INSERT INTO ${table} (id) VALUES ('00000000-0000-0000-0000-000000000000') ON CONFLICT (id) DO NOTHING`;

/** True when the server's catalog is another than PostgreSQL's, so that the question can't be asked. */
export const isNotUnderstood = (error: unknown): boolean =>
  says(error, FEATURE_NOT_SUPPORTED, UNDEFINED_COLUMN, UNDEFINED_FUNCTION, UNDEFINED_OBJECT, UNDEFINED_TABLE);

/** True when the table may be another than a statement took it for: without `xmin`, or with a `data` that is `jsonb` now. */
export const isMisfit = (error: unknown): boolean =>
  says(
    error,
    FEATURE_NOT_SUPPORTED,
    UNDEFINED_COLUMN,
    INVALID_TEXT_REPRESENTATION,
    NUMERIC_VALUE_OUT_OF_RANGE,
    UNTRANSLATABLE_CHARACTER,
  );

/** Of the error itself, or of one that stands for it. */
const says = (error: unknown, ...codes: string[]): boolean =>
  hasSqlState(error, ...codes) || hasSqlState((error as { cause?: unknown } | undefined)?.cause, ...codes);
