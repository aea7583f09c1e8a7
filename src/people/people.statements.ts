import { preparedName } from '../database/prepared-name.js';
import type { Statement } from '../transactions/transaction-context.js';
import { sharedStatements } from './sharing/statements.js';

/** A prepared statement of the table `people` that waits for its values. */
export type PeopleStatement = (...values: unknown[]) => Statement & { name: string };

/** One that writes events: it is also given the trace that they carry, as JSON. */
export type WritingStatement = (
  values: readonly unknown[],
  trace: string | null,
) => Statement & { name: string };

/** Where events are written. */
export interface EventTable {
  name: string;
  /** False where it is older than its column `trace`. */
  hasTrace: boolean;
}

/** Rows of one prepared INSERT: one fixed size keeps one plan, and 3 × 1000 parameters are far below 65,535. */
export const ROWS_PER_INSERT = 1000;

/** Names longer than this are not in the index, see `Person`. */
export const INDEXED_NAME_BYTES = 2000;

/** A name of so many bytes in UTF-8 is in it whatever the encoding of the database, which may take a third more (EUC_TW). */
export const SURELY_INDEXED_NAME_BYTES = 1500;

// The length keeps name and data apart.
const DIGEST = `md5(concat(length(name), ':', name, data::text))`;

/** What tells whether a person has changed: the row's `xmin` and `ctid`; where the table has none, a digest of the content. */
const VERSIONS = {
  row: { columns: 'xmin, ctid', text: 'xmin::text || ctid::text', ifShown: () => 'xmin, ctid' },
  content: {
    columns: `${DIGEST} AS digest`,
    text: DIGEST,
    ifShown: (isShown: string) => `CASE WHEN ${isShown} THEN ${DIGEST} END AS digest`,
  },
};
export type VersionBy = keyof typeof VERSIONS;

/** The topic of the events, and what they are about. */
export const PEOPLE_EVENTS = { aggregateType: 'people', topic: 'people.events' };

/** The parameter with the trace of all events of a statement, or with those of each, as JSON by the rows' ids. */
type Trace = string | { byId: string };

export type PeopleStatements = ReturnType<typeof peopleStatements>;

/**
 * Every fixed statement of the service, as data: named, so that a connection parses and plans each once.
 *
 * @param table `people`, or with the schema of the DataSource
 * @param outbox the table where each change is to write its event with it: in the same statement, which is
 *   one way there and back and one transaction; behind the change, whose row is locked by then, so in the person's order
 * @param versionBy `content` where the rows of the table have no `xmin` and `ctid`
 */
export function peopleStatements(table: string, outbox?: EventTable, versionBy: VersionBy = 'row') {
  const version = VERSIONS[versionBy];
  // As text the JSON needs no parsing and loses no digit on its way.
  const person = `id, name, data::text AS data, ${version.columns}`;
  const named = (name: string, text: string): PeopleStatement => {
    const prepared = preparedName(`people_${name}`, text);
    return (...values) => ({ name: prepared, text, values });
  };
  const hasTrace = outbox?.hasTrace ?? false;
  const writing = (name: string, text: string): WritingStatement => {
    const statement = named(name, text);
    return (values, trace) => (hasTrace ? statement(...values, trace) : statement(...values));
  };
  /** @param trace the parameter that has it */
  const event = (type: string, from: string, payload: string, trace: Trace) =>
    `INSERT INTO ${outbox?.name} (aggregatetype, aggregateid, type, topic, payload${hasTrace ? ', trace' : ''})
     SELECT '${PEOPLE_EVENTS.aggregateType}', id::text, 'person.${type}', '${PEOPLE_EVENTS.topic}', ${payload}${
       !hasTrace
         ? ` FROM ${from}`
         : typeof trace === 'string'
           ? `, ${trace}::json FROM ${from}`
           : `, traced.value FROM ${from} LEFT JOIN json_each(${trace.byId}::json) AS traced ON traced.key = id::text`
     }`;
  const whole = `json_build_object('id', id, 'name', name, 'data', data)`;
  /** A statement whose RETURNING gives `columns`, and an event for each row of them. */
  const changing = (type: string, text: string, payload = whole, trace: Trace) =>
    outbox
      ? `WITH changed AS (${text} RETURNING id, name, data${versionBy === 'row' ? ', xmin, ctid' : ''}),
           event AS (${event(type, 'changed', payload, trace)})
         SELECT ${person} FROM changed`
      : `${text} RETURNING ${person}`;
  const pages = pageQueries(table, versionBy);
  const indexed = `octet_length(name) <= ${INDEXED_NAME_BYTES}`;
  const creating = (rows: number) => {
    const insert = insertRows(table, rows);
    if (!outbox) return insert;
    return `WITH changed AS (${insert} RETURNING id, name, data) ${event('created', 'changed', whole, `$${rows * 3 + 1}`)}`;
  };
  const ifVersion = (parameter: string) =>
    `(${parameter}::text[] IS NULL OR ${version.text} = ANY (${parameter}))`;
  return {
    ...sharedStatements({ table, named, writing, changing, ifVersion, shown: shownIf(version) }),
    /** id, name, data */
    create: writing(
      'create',
      changing(
        'created',
        `INSERT INTO ${table} (id, name, data) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING`,
        undefined,
        '$4',
      ),
    ),
    /** 3 × `ROWS_PER_INSERT` values */
    createMany: writing(`create_${ROWS_PER_INSERT}`, creating(ROWS_PER_INSERT)),
    /** For the rows that are left over; without a name, or each size would stay prepared for ever. */
    createRest: (values: readonly unknown[], trace: string | null): Statement => ({
      text: creating(values.length / 3),
      values: hasTrace ? [...values, trace] : [...values],
    }),
    /** id */
    get: named('get', `SELECT ${person} FROM ${table} WHERE id = $1`),
    /** id */
    getForUpdate: named('get_for_update', `SELECT ${person} FROM ${table} WHERE id = $1 FOR UPDATE`),
    /** name, id the page begins at, limit, bytes that each row may have; see `PersonRow.withheld` */
    findByName: eachAtMost(named('find_by_name', pages.ofSmall(indexed))),
    /** The same for a name that may not be in the index. */
    findByLongName: eachAtMost(named('find_by_long_name', pages.ofSmall('true'))),
    /** name, id the page begins at, limit, bytes that the rows may have together */
    findLargeByName: named('find_large_by_name', pages.ofLarge(indexed)),
    /** The same for a name that may not be in the index. */
    findLargeByLongName: named('find_large_by_long_name', pages.ofLarge('true')),
    // A json that is stored in a jsonb is turned into one; of the column's own type the parameter would be another once that
    // is altered, and the prepared statement would fail.
    /** id, name or null to keep it, whether data is given, data, versions or null */
    update: writing(
      'update',
      changing(
        'updated',
        `UPDATE ${table} SET name = coalesce($2, name), data = CASE WHEN $3::bool THEN $4 ELSE data END
         WHERE id = $1 AND ${ifVersion('$5')}`,
        undefined,
        '$6',
      ),
    ),
    /** id, versions or null */
    remove: writing(
      'remove',
      changing(
        'deleted',
        `DELETE FROM ${table} WHERE id = $1 AND ${ifVersion('$2')}`,
        `json_build_object('id', id)`,
        '$3',
      ),
    ),
    /** ids of people that this transaction has stored by COPY; undefined where no events are published */
    publishCreated: outbox
      ? writing('publish_created', event('created', `${table} WHERE id = ANY ($1::uuid[])`, whole, '$2'))
      : undefined,
    /** One row, `copies`: a view takes no COPY, nor does a table with row security, unless that is not about this role. */
    takesCopy: (): Statement => ({
      text: `SELECT relkind IN ('r', 'p') AND NOT relrowsecurity AS copies FROM pg_class WHERE oid = to_regclass($1)`,
      values: [table],
    }),
    copy: `COPY ${table} (id, name, data) FROM STDIN`,
  };
}

const LARGEST_INTEGER = 2 ** 31 - 1;

const eachAtMost =
  (statement: PeopleStatement) =>
  (name: string, from: string, limit: number, bytes = LARGEST_INTEGER) =>
    statement(name, from, limit, bytes);

/** The columns of a row whose name and data are left out where a condition is not true. */
const shownIf =
  ({ ifShown }: (typeof VERSIONS)[VersionBy]) =>
  (isShown: string) =>
    `id, CASE WHEN ${isShown} THEN name END AS name, CASE WHEN ${isShown} THEN data::text END AS data,
     CASE WHEN NOT (${isShown}) THEN true END AS withheld, ${ifShown(isShown)}`;

/**
 * Pages of the people with a name, of whom the server keeps back what would be too many bytes. `data` is counted as the text that is
 * sent, however it is packed in the table.
 */
function pageQueries(table: string, versionBy: VersionBy) {
  const version = VERSIONS[versionBy];
  const system = versionBy === 'row' ? ', xmin, ctid' : '';
  const page = (columns: string, condition: string) =>
    `SELECT ${columns} FROM ${table} WHERE name = $1 AND ${condition} AND id >= $2 ORDER BY id LIMIT $3`;
  const shown = shownIf(version);
  // What takes more than its share as it is stored is not unpacked to be measured.
  const measured =
    versionBy === 'row'
      ? 'CASE WHEN pg_column_size(data) <= $4 THEN data::text END AS data, pg_column_size(data) AS stored'
      : 'data::text AS data, 0 AS stored';
  return {
    /** Rows of at most $4 bytes each: no sum is needed, which would make pages of small people slower. */
    ofSmall: (condition: string) =>
      `SELECT ${shown('bytes <= $4')}
       FROM (SELECT *, octet_length(name) + coalesce(octet_length(data), stored, 0) AS bytes
             FROM (${page(`id, name, ${measured}${system}`, condition)}) AS measured) AS page
       ORDER BY id`,
    /** Rows of at most $4 bytes together, the first in any case, and the one behind them: no more than these are unpacked. */
    ofLarge: (condition: string) =>
      `WITH RECURSIVE page AS MATERIALIZED (
         SELECT array_agg(id ORDER BY id) AS ids FROM (${page('id', condition)}) AS found
       ), walk AS (
         SELECT 0 AS place, 0::bigint AS bytes
         UNION ALL
         SELECT place + 1, bytes + octet_length(name) + coalesce(octet_length(data::text), 0)
         FROM walk, page, LATERAL (SELECT name, data FROM ${table} WHERE id = ids[place + 1]) AS person
         WHERE bytes <= $4 OR place = 1
       )
       SELECT ${shown('bytes <= $4 OR place = 1')}
       FROM walk, page, LATERAL (SELECT id, name, data${system} FROM ${table} WHERE id = ids[place]) AS person
       ORDER BY place`,
  };
}

function insertRows(table: string, rows: number): string {
  const tuples = Array.from(
    { length: rows },
    (_, row) => `($${row * 3 + 1},$${row * 3 + 2},$${row * 3 + 3})`,
  );
  return `INSERT INTO ${table} (id, name, data) VALUES ${tuples.join(',')}`;
}
