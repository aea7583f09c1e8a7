// people/table/: What the table `people` is like in this database, and what of it does not fit.
// Promises: each difference is a sentence that says what to do; nothing is changed.
// May know: the catalog of PostgreSQL, and what a statement is.

import type { TableColumn, TableShape } from './shape.js';

/** What the module needs of a column, beside that an INSERT may give it. */
interface NeededColumn {
  name: string;
  types: readonly string[];
  /** The type that the advice names. */
  type: string;
  /** Types that the server can turn into it without a loss. */
  from: readonly string[] | 'any';
}

const TEXTS = ['text', 'character varying', 'character'];
// A citext keeps names as they are written; that looking them up ignores case is what its owner has chosen.
const COLUMNS: readonly NeededColumn[] = [
  { name: 'id', types: ['uuid'], type: 'uuid', from: TEXTS },
  { name: 'name', types: ['text', 'character varying', 'citext'], type: 'text', from: 'any' },
  { name: 'data', types: ['json', 'jsonb'], type: 'json', from: TEXTS },
];

/**
 * Each difference between the table and what the module needs, as a sentence: what is there, what is needed, what to do.
 * Empty when it fits.
 *
 * @param table its name as SQL has it
 */
export function differencesOf(shape: TableShape, table: string): string[] {
  const { kind, schemas } = shape;
  if (kind === null) {
    const where = table.includes('.')
      ? ''
      : ` (search_path: ${schemas.join(', ') || 'no schema that is there'})`;
    return [
      `The table ${table} is not there${where}; run the migrations: npm run migration:run, or peopleMigrations in your DataSource.`,
    ];
  }
  if (!['r', 'p', 'v'].includes(kind)) {
    return [
      `${table} is ${KINDS[kind] ?? 'no table'}; a table, or a view that can be written through, is needed.`,
    ];
  }
  const alter = (action: string) => `ALTER TABLE ${table} ${action}`;
  return [
    ...COLUMNS.flatMap((needed) => columnDifferences(shape, needed, alter)),
    ...(kind === 'v' ? viewDifferences(shape, table) : tableDifferences(shape, table, alter)),
    ...rightDifferences(shape, table),
  ];
}

const KINDS: Record<string, string> = {
  m: 'a materialized view',
  f: 'a foreign table',
  S: 'a sequence',
  i: 'an index',
  I: 'an index',
  c: 'a type',
};

type Alter = (action: string) => string;

function columnDifferences(shape: TableShape, needed: NeededColumn, alter: Alter): string[] {
  const { name, types, type, from } = needed;
  const column = shape.columns.find((each) => each.name === name);
  const isView = shape.kind === 'v';
  const expected = types.join(' or ');
  if (!column) {
    const advice = isView ? 'add it to the view' : alter(`ADD ${name} ${type}`);
    return [`The column ${name} is missing; ${expected} is needed: ${advice}.`];
  }
  const differences: string[] = [];
  if (column.generated) {
    const advice = column.generated === 's' ? `: ${alter(`ALTER ${name} DROP EXPRESSION`)}` : '';
    differences.push(`The column ${name} is generated always; one that takes values is needed${advice}.`);
  }
  if (!types.includes(column.type)) {
    const isConvertible = !isView && !column.generated && (from === 'any' || from.includes(column.type));
    const dropDefault = column.hasDefault ? `ALTER ${name} DROP DEFAULT, ` : '';
    const advice = isConvertible
      ? `: ${alter(`${dropDefault}ALTER ${name} TYPE ${type} USING ${name}::${type}`)}`
      : '';
    differences.push(`The column ${name} is of type ${column.type}; ${expected} is needed${advice}.`);
  }
  if (isView) return differences;
  if (name === 'id' && !column.isNotNull)
    differences.push(`The column id may be null; NOT NULL is needed: ${alter('ALTER id SET NOT NULL')}.`);
  if (name === 'data' && column.isNotNull && !shape.hasInsertTrigger)
    differences.push(
      `The column data is NOT NULL; people without data need one that may be null: ${alter('ALTER data DROP NOT NULL')}.`,
    );
  return differences;
}

function tableDifferences(shape: TableShape, table: string, alter: Alter): string[] {
  // A trigger may fill in what an INSERT does not give: only trying can tell.
  const unfilled = shape.hasInsertTrigger ? [] : shape.columns.filter(isUnfilled);
  return [
    ...unfilled.map(
      ({ name }) =>
        `The column ${quoted(name)} is NOT NULL without a default, and the service gives it no value; give it a default, or let it be null: ` +
        `${alter(`ALTER ${quoted(name)} DROP NOT NULL`)}.`,
    ),
    ...keyDifferences(shape, alter),
    ...shape.rules.map(
      (rule) =>
        `The rule ${quoted(rule)} is on INSERT or UPDATE, and the server takes no ON CONFLICT beside it; a trigger can do the same: ` +
        `DROP RULE ${quoted(rule)} ON ${table}.`,
    ),
  ];
}

const isUnfilled = ({ name, isNotNull, hasDefault }: TableColumn): boolean =>
  isNotNull && !hasDefault && !COLUMNS.some((needed) => needed.name === name);

function keyDifferences({ kind, columns, keys, hasPrimaryKey }: TableShape, alter: Alter): string[] {
  if (!columns.some(({ name }) => name === 'id')) return [];
  const ofId = keys.filter(({ isOnIdAlone, isValid }) => isOnIdAlone && isValid);
  const isThere = ofId.some((key) => !key.isPartial && !key.isDeferrable);
  // One that is deferrable is in the way beside a good one, too.
  const late = ofId.find((key) => key.isDeferrable);
  if (late) {
    const name = quoted(late.name);
    const anew = isThere ? '' : `, ADD ${late.isPrimary || !hasPrimaryKey ? 'PRIMARY KEY' : 'UNIQUE'} (id)`;
    return [
      `The key ${name} is deferrable, and ON CONFLICT (id) needs one that is checked at once: ${alter(`DROP CONSTRAINT ${name}${anew}`)}.`,
    ];
  }
  if (isThere) return [];
  const near = keys.flatMap(({ name, isOnIdAlone, isPartial, isValid }) => {
    const faults = [!isOnIdAlone && 'of more columns', isPartial && 'partial', !isValid && 'invalid'];
    return `${quoted(name)} is ${faults.filter(Boolean).join(' and ')}`;
  });
  const found = near.length > 0 ? ` (${near.join('; ')})` : '';
  const advice =
    kind === 'p'
      ? 'partition it by id alone, for the key has to hold the columns it is partitioned by'
      : alter(hasPrimaryKey ? 'ADD UNIQUE (id)' : 'ADD PRIMARY KEY (id)');
  return [
    `There is no primary key or unique index on exactly (id) for all rows${found}; ON CONFLICT (id) needs one: ${advice}.`,
  ];
}

function viewDifferences({ isUpdatable, isWithoutKey }: TableShape, table: string): string[] {
  if (!isUpdatable)
    return [
      `The view ${table} is not one that the server writes through by itself, and it takes no ON CONFLICT with triggers or rules; ` +
        'select the columns of one table, without DISTINCT, GROUP BY, LIMIT, set operations or expressions for them.',
    ];
  if (!isWithoutKey) return [];
  return [
    `The table below the view ${table} has no primary key or unique index on exactly (id) for all rows; ` +
      'ON CONFLICT (id) needs one: add it to that table.',
  ];
}

function rightDifferences({ may, role }: TableShape, table: string): string[] {
  const missing = Object.entries(may).flatMap(([right, isGiven]) => (isGiven ? [] : [right]));
  if (missing.length === 0) return [];
  const rights = missing.join(', ');
  return [`The role ${role} lacks the right to ${rights}: GRANT ${rights} ON ${table} TO ${quoted(role)}.`];
}

/** An identifier as SQL has to spell it. */
const quoted = (name: string) => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`);
