import { preparedName } from '../database/prepared-name.js';
import type { Statement } from '../transactions/transaction-context.js';

/** A prepared statement of the table `people` that waits for its values. */
export type PeopleStatement = (...values: unknown[]) => Statement & { name: string };

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
  row: { columns: 'xmin, ctid', text: 'xmin::text || ctid::text' },
  content: { columns: `${DIGEST} AS digest`, text: DIGEST },
};
export type VersionBy = keyof typeof VERSIONS;

/** The topic of the events, and what they are about. */
export const PEOPLE_EVENTS = { aggregateType: 'people', topic: 'people.events' };

export type PeopleStatements = ReturnType<typeof peopleStatements>;

/**
 * Every fixed statement of the service, as data: named, so that a connection parses and plans each once.
 *
 * @param table `people`, or with the schema of the DataSource
 * @param outbox the table of the outbox, where each change is to write its event with it: in the same statement, which is
 *   one way there and back and one transaction; behind the change, whose row is locked by then, so in the person's order
 * @param versionBy `content` where the rows of the table have no `xmin` and `ctid`
 */
export function peopleStatements(table: string, outbox?: string, versionBy: VersionBy = 'row') {
  const version = VERSIONS[versionBy];
  // As text the JSON needs no parsing and loses no digit on its way.
  const person = `id, name, data::text AS data, ${version.columns}`;
  const named = (name: string, text: string): PeopleStatement => {
    const statement = { name: preparedName(`people_${name}`, text), text };
    return (...values) => ({ ...statement, values });
  };
  const event = (type: string, from: string, payload: string) =>
    `INSERT INTO ${outbox} (aggregatetype, aggregateid, type, topic, payload)
     SELECT '${PEOPLE_EVENTS.aggregateType}', id::text, 'person.${type}', '${PEOPLE_EVENTS.topic}', ${payload} FROM ${from}`;
  const whole = `json_build_object('id', id, 'name', name, 'data', data)`;
  /** A statement whose RETURNING gives `columns`, and an event for each row of them. */
  const changing = (type: string, text: string, payload = whole) =>
    outbox
      ? `WITH changed AS (${text} RETURNING id, name, data${versionBy === 'row' ? ', xmin, ctid' : ''}),
           event AS (${event(type, 'changed', payload)})
         SELECT ${person} FROM changed`
      : `${text} RETURNING ${person}`;
  const byName = (condition: string) =>
    `SELECT ${person} FROM ${table}
     WHERE name = $1 AND ${condition} AND id >= $2 ORDER BY id LIMIT $3`;
  const creating = (rows: number) => {
    const insert = insertRows(table, rows);
    if (!outbox) return insert;
    return `WITH changed AS (${insert} RETURNING id, name, data) ${event('created', 'changed', whole)}`;
  };
  const ifVersion = (parameter: string) =>
    `(${parameter}::text[] IS NULL OR ${version.text} = ANY (${parameter}))`;
  return {
    /** id, name, data */
    create: named(
      'create',
      changing(
        'created',
        `INSERT INTO ${table} (id, name, data) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING`,
      ),
    ),
    /** 3 × `ROWS_PER_INSERT` values */
    createMany: named(`create_${ROWS_PER_INSERT}`, creating(ROWS_PER_INSERT)),
    /** For the rows that are left over; without a name, or each size would stay prepared for ever. */
    createRest: (values: unknown[]): Statement => ({ text: creating(values.length / 3), values }),
    /** id */
    get: named('get', `SELECT ${person} FROM ${table} WHERE id = $1`),
    /** id */
    getForUpdate: named('get_for_update', `SELECT ${person} FROM ${table} WHERE id = $1 FOR UPDATE`),
    /** name, id the page begins at, limit */
    findByName: named('find_by_name', byName(`octet_length(name) <= ${INDEXED_NAME_BYTES}`)),
    /** The same for a name that may not be in the index. */
    findByLongName: named('find_by_long_name', byName('true')),
    // A json that is stored in a jsonb is turned into one; of the column's own type the parameter would be another once that
    // is altered, and the prepared statement would fail.
    /** id, name or null to keep it, whether data is given, data, versions or null */
    update: named(
      'update',
      changing(
        'updated',
        `UPDATE ${table} SET name = coalesce($2, name), data = CASE WHEN $3::bool THEN $4 ELSE data END
         WHERE id = $1 AND ${ifVersion('$5')}`,
      ),
    ),
    /** id, versions or null */
    remove: named(
      'remove',
      changing(
        'deleted',
        `DELETE FROM ${table} WHERE id = $1 AND ${ifVersion('$2')}`,
        `json_build_object('id', id)`,
      ),
    ),
    /** ids of people that this transaction has stored by COPY; undefined where no events are published */
    publishCreated: outbox
      ? named('publish_created', event('created', `${table} WHERE id = ANY ($1::uuid[])`, whole))
      : undefined,
    /** One row, `copies`: a view takes no COPY, nor does a table with row security, unless that is not about this role. */
    takesCopy: (): Statement => ({
      text: `SELECT relkind IN ('r', 'p') AND NOT relrowsecurity AS copies FROM pg_class WHERE oid = to_regclass($1)`,
      values: [table],
    }),
    copy: `COPY ${table} (id, name, data) FROM STDIN`,
  };
}

function insertRows(table: string, rows: number): string {
  const tuples = Array.from(
    { length: rows },
    (_, row) => `($${row * 3 + 1},$${row * 3 + 2},$${row * 3 + 3})`,
  );
  return `INSERT INTO ${table} (id, name, data) VALUES ${tuples.join(',')}`;
}
