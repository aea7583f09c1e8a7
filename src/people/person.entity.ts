import { Column, Entity, Index, PrimaryGeneratedColumn } from 'typeorm';
import type { JsonObject } from './lossless-json.js';

/** What a stored person carries beside its columns; out of sight of spreads, `JSON.stringify` and test matchers. */
interface Stored {
  json: string | null;
  version: string;
}
const stored = new WeakMap<Person, Stored>();

/**
 * A row of the table `people`, and what every operation of `PeopleService` returns.
 *
 * `data` from the service keeps every digit: integers beyond 2^53 are bigints, other numbers that a JavaScript number
 * can't hold are `JsonNumber`s. A `Repository<Person>` of your own reads it as TypeORM and pg do, with JSON.parse.
 *
 * @typeParam Data the module's `dataType`, else any JSON object
 */
@Entity('people')
// Partial, since a B-tree entry holds at most a third of a page: an index on all names would refuse long ones.
@Index('people_name_id_idx', ['name', 'id'], { where: 'octet_length(name) <= 2000' })
export class Person<Data extends object = JsonObject> {
  /** A uuid; version 7 (ordered by time) when the service made it. */
  @PrimaryGeneratedColumn('uuid', { primaryKeyConstraintName: 'people_pkey' })
  id!: string;

  @Column('text')
  name!: string;

  @Column('json', { nullable: true })
  data!: Data | null;

  /** `data` as the text that is stored; undefined when this person did not come from `PeopleService`. */
  get dataJson(): string | null | undefined {
    return stored.get(this as Person)?.json;
  }

  /**
   * Changes whenever the row does: the ETag, and what `ifMatch` takes. Made of PostgreSQL's `xmin` and `ctid`, so it needs
   * no column; a rewrite of the table (VACUUM FULL) changes it too. undefined as for `dataJson`.
   */
  get version(): string | undefined {
    return stored.get(this as Person)?.version;
  }
}

/** A row as the statements of `people.statements.ts` return it. */
export interface PersonRow {
  id: string;
  name: string;
  /** JSON text. */
  data: string | null;
  /** xmin and ctid: `742(0,1)`. */
  version: string;
}

/** A Person whose `data` is parsed when somebody first looks at it: most of the time nobody does. */
export function personFromRow<Data extends object>(
  row: PersonRow,
  parse: (json: string) => Data | null,
): Person<Data> {
  const person = new Person<Data>();
  person.id = row.id;
  person.name = row.name;
  stored.set(person as Person, { json: row.data, version: versionFromRow(row.version) });
  const define = (value: Data | null) =>
    Object.defineProperty(person, 'data', { value, writable: true, enumerable: true, configurable: true });
  if (row.data === null) define(null);
  else {
    const json = row.data;
    Object.defineProperty(person, 'data', {
      get: () => (define(parse(json)), person.data),
      set: define,
      enumerable: true,
      configurable: true,
    });
  }
  return person;
}

/** `742(0,1)` as `742.0.1`: no comma, so that a list of ETags can be split at commas. */
const versionFromRow = (version: string) => version.replace(/\((\d+),(\d+)\)/, '.$1.$2');

/** The other way round, with or without an ETag's quotes; text that is no version matches nothing. */
export const versionToRow = (version: string) => version.replace(/^"?(\d+)\.(\d+)\.(\d+)"?$/, '$1($2,$3)');

/** The person as the JSON text every door answers with, `data` as it is stored. */
export function personJson(person: Person<object>): string {
  return `{"id":"${person.id}","name":${JSON.stringify(person.name)},"data":${person.dataJson ?? 'null'}}`;
}
