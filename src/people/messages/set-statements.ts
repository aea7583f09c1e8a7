import { preparedName } from '../../database/prepared-name.js';
import type { Statement } from '../../transactions/transaction-context.js';
import { PEOPLE_EVENTS } from '../people.statements.js';

/** A person that is to be there. */
export interface CreatedRow {
  id: string;
  name: string;
  /** JSON text. */
  data: string | null;
}

/** What is to become of a person. */
export interface ChangedRow {
  id: string;
  /** null keeps it. */
  name: string | null;
  /** JSON text; null clears it. */
  data: string | null;
  /** False keeps the data. */
  setsData: boolean;
  /** As `versionToRow` has them; null: any. */
  versions: readonly string[] | null;
}

/** A person that is to go. */
export type RemovedRow = Pick<ChangedRow, 'id' | 'versions'>;

export type SetStatements = ReturnType<typeof statementsThat>;

/**
 * Statements that write many people, and wait for rows that others have locked, or leave those as they are.
 *
 * @param table `people`, or with the schema of the DataSource; one whose rows have `xmin` and `ctid`
 * @param outbox the table of the outbox, where each change is to write its event with it
 */
export const setStatements = (table: string, outbox?: string) => ({
  waiting: statementsThat('', table, outbox),
  skipping: statementsThat(' SKIP LOCKED', table, outbox),
});

/**
 * Statements that write many people, each at most once, given as one JSON text: so one plan serves any number of them. They lock rows
 * in the order of the ids, so that two who write the same people never wait for each other.
 *
 * `data` is a text in that text: the server unescapes what it takes apart, and text can't hold \u0000.
 */
function statementsThat(skip: '' | ' SKIP LOCKED', table: string, outbox?: string) {
  const named = (name: string, text: string) => {
    const statement = { name: preparedName(`people_set_${name}`, text), text };
    return (rows: readonly object[]): Statement => ({ ...statement, values: [JSON.stringify(rows)] });
  };
  const event = (type: string, payload: string) =>
    outbox
      ? `, event AS (INSERT INTO ${outbox} (aggregatetype, aggregateid, type, topic, payload)
           SELECT '${PEOPLE_EVENTS.aggregateType}', id::text, 'person.${type}', '${PEOPLE_EVENTS.topic}', ${payload} FROM changed)`
      : '';
  const whole = `json_build_object('id', id, 'name', name, 'data', data)`;
  const person = 'id, name, data::text AS data, xmin, ctid';
  const given = 'given AS MATERIALIZED (SELECT * FROM json_to_recordset($1)';
  const locked = `locked AS MATERIALIZED (SELECT id FROM ${table} WHERE id IN (SELECT person FROM given) ORDER BY id FOR UPDATE${skip})`;
  const isVersion = `(versions IS NULL OR xmin::text || ctid::text = ANY (versions))`;
  const create = (returned: string) => `WITH ${given} AS g(id uuid, name text, data text)),
      changed AS (INSERT INTO ${table} (id, name, data) SELECT id, name, data::json FROM given
        ON CONFLICT (id) DO NOTHING RETURNING ${returned})${event('created', whole)}`;
  const update = `WITH ${given} AS g(person uuid, called text, content text, "setsData" bool, versions text[])), ${locked},
      changed AS (UPDATE ${table} AS p SET name = coalesce(called, name),
          data = CASE WHEN "setsData" THEN content::json ELSE data::json END
        FROM given WHERE p.id = person AND person IN (SELECT id FROM locked) AND ${isVersion}
        RETURNING id, name, data, xmin, ctid)${event('updated', whole)}`;
  const remove = `WITH ${given} AS g(person uuid, versions text[])), ${locked},
      changed AS (DELETE FROM ${table} AS p USING given
        WHERE p.id = person AND person IN (SELECT id FROM locked) AND ${isVersion}
        RETURNING id)${event('deleted', `json_build_object('id', id)`)}`;
  // How many are stored, and the ids of those that are not: mostly none.
  const createdCount = `${create(outbox ? 'id, name, data' : 'id')} SELECT (SELECT count(*)::int FROM changed) AS stored,
      ARRAY(SELECT id::text FROM given WHERE id NOT IN (SELECT id FROM changed)) AS taken`;
  const statements = {
    created: named('created', `${create('id, name, data, xmin, ctid')} SELECT ${person} FROM changed`),
    createdCount: named('created_count', createdCount),
    updated: named('updated', `${update} SELECT ${person} FROM changed`),
    updatedIds: named('updated_ids', `${update} SELECT id FROM changed`),
    removed: named('removed', `${remove} SELECT id FROM changed`),
  };
  const find = `SELECT ${person} FROM ${table} WHERE id = ANY ($1::uuid[])`;
  const lock = `SELECT FROM ${table} WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE${skip}`;
  const changes = (rows: readonly ChangedRow[]) =>
    rows.map(({ id, name, data, setsData, versions }) => ({
      person: id,
      called: name,
      content: data,
      setsData,
      versions,
    }));
  return {
    /** Gives the rows whose ids were free. */
    create: (rows: readonly CreatedRow[]) => statements.created(sorted(rows)),
    /** Gives `stored`, how many, and `taken`, the ids that were not free. */
    createAndCount: (rows: readonly CreatedRow[]) => statements.createdCount(sorted(rows)),
    /** Gives the rows that are there, in a version that is meant. */
    update: (rows: readonly ChangedRow[]) => statements.updated(changes(rows)),
    /** Gives their ids. */
    updateAndTell: (rows: readonly ChangedRow[]) => statements.updatedIds(changes(rows)),
    /** Gives the ids of those that were there, in a version that is meant. */
    remove: (rows: readonly RemovedRow[]) =>
      statements.removed(rows.map(({ id, versions }) => ({ person: id, versions }))),
    find: (ids: readonly string[]): Statement => ({
      ...{ name: preparedName('people_set_find', find), text: find },
      values: [`{${ids.join()}}`],
    }),
    /** Locks people that more than one statement is about. */
    lock: (ids: readonly string[]): Statement => ({
      ...{ name: preparedName('people_set_lock', lock), text: lock },
      values: [`{${ids.join()}}`],
    }),
  };
}

const sorted = <Row extends { id: string }>(rows: readonly Row[]): Row[] =>
  rows.toSorted((a, b) => (a.id < b.id ? -1 : 1));
