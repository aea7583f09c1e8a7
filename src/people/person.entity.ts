import { Column, Entity, Generated, Index, PrimaryColumn } from 'typeorm';
import type { JsonObject } from '../json/lossless.js';

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
  // The default of the migrations, also where TypeORM makes the table: its own would be that of an extension.
  @PrimaryColumn('uuid', {
    name: 'id',
    default: () => 'gen_random_uuid()',
    primaryKeyConstraintName: 'people_pkey',
  })
  @Generated('uuid')
  id!: string;

  /** Any text that is not empty, without NUL. */
  @Column('text', { name: 'name' })
  name!: string;

  /** Any JSON object, or an instance of `dataType`; null where there is none. */
  @Column('json', { name: 'data', nullable: true })
  data!: Data | null;

  // Private fields: out of sight of spreads, `JSON.stringify` and test matchers.
  #json: string | null | undefined;
  #version: string | undefined;
  #parse: ((id: string, json: string) => Data | null) | undefined;
  #data: Data | null = null;

  /** `data` as the text that is stored; undefined when this person did not come from `PeopleService`. */
  get dataJson(): string | null | undefined {
    return this.#json;
  }

  /**
   * Changes whenever the row does: the ETag, and what `ifMatch` takes. Made of PostgreSQL's `xmin` and `ctid`, so it needs
   * no column; a rewrite of the table (VACUUM FULL) changes it too. Where the table has none (a view, a partitioned table,
   * another engine) it is a digest of name and data, and changes when those do. undefined as for `dataJson`.
   */
  get version(): string | undefined {
    return this.#version;
  }

  /** A Person whose `data` is parsed when somebody first looks at it: most of the time nobody does. */
  static fromRow<Data extends object>(
    row: PersonRow,
    parse: (id: string, json: string) => Data | null,
  ): Person<Data> {
    const person = new Person<Data>();
    person.id = row.id;
    person.name = row.name;
    person.#json = row.data;
    person.#version = row.digest ?? `${row.xmin}.${row.ctid!.slice(1, -1).replace(',', '.')}`;
    if (row.data !== null) person.#parse = parse;
    // On the instance, so that spreads and matchers see it; one descriptor for all, so that they share a shape.
    return Object.defineProperty(person, 'data', Person.lazyData);
  }

  private static readonly lazyData = {
    enumerable: true,
    configurable: true,
    get(this: Person): JsonObject | null {
      const parse = this.#parse;
      if (parse) {
        this.#data = parse(this.id, this.#json!);
        this.#parse = undefined;
      }
      return this.#data;
    },
    set(this: Person, value: JsonObject | null) {
      this.#parse = undefined;
      this.#data = value;
    },
  };
}

/** A row as the statements of `people.statements.ts` return it. */
export interface PersonRow {
  id: string;
  name: string;
  /** JSON text. */
  data: string | null;
  xmin?: string;
  /** `(0,1)` */
  ctid?: string;
  /** In place of both, where the table has none. */
  digest?: string;
  /** Of a page: true where name and data are too large for it, and so null. */
  withheld?: true | null;
}

/** Rows by their ids, as the database has these: in lower case. */
export function rowsById(rows: readonly PersonRow[]): Map<string, PersonRow> {
  const byId = new Map<string, PersonRow>();
  for (const row of rows) byId.set(row.id, row);
  return byId;
}

/** A page of people as the JSON text every door answers with. */
export const pageJson = (page: PageOf<Person<object>>): string =>
  pageText(page.items.map(personJson), page.next);

/** A page of people whose JSON text has so many bytes at most, or one person: who finds no room is on the next page. */
export function pageJsonWithin(
  { items, next }: PageOf<Person<object>>,
  bytes: number,
  cursorOf: (id: string) => string,
): string {
  const texts: string[] = [];
  let left = bytes - ROOM_FOR_NEXT;
  for (const person of items) {
    const text = personJson(person);
    left -= Buffer.byteLength(text) + 1;
    if (left < 0 && texts.length > 0) return pageText(texts, cursorOf(person.id));
    texts.push(text);
  }
  return pageText(texts, next);
}

interface PageOf<Item> {
  items: readonly Item[];
  next: string | null;
}

const ROOM_FOR_NEXT = 100;

const pageText = (texts: readonly string[], next: string | null) =>
  `{"items":[${texts.join(',')}],"next":${JSON.stringify(next)}}`;

/**
 * `742.0.1`, with or without an ETag's quotes, as SQL has it: `742(0,1)`; a digest is itself. Text that is no version matches
 * nothing.
 */
export const versionToRow = (version: string) =>
  version.replace(/^"?(\d+)\.(\d+)\.(\d+)"?$/, '$1($2,$3)').replace(/^"([0-9a-f]{32})"$/, '$1');

/** A row's version as `versionToRow` has it. */
export const versionOfRow = ({ digest, xmin, ctid }: PersonRow): string => digest ?? `${xmin}${ctid}`;

/** The person as the JSON text every door answers with, `data` as it is stored. */
export function personJson(person: Person<object>): string {
  return `{"id":"${person.id}","name":${JSON.stringify(person.name)},"data":${person.dataJson ?? 'null'}}`;
}
