import { Inject, Injectable, type OnModuleInit } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import { hasSqlState } from '../database/database-failure.js';
import { FOREIGN_KEY_VIOLATION } from '../database/postgres-errors.js';
import type { JsonObject } from '../json/lossless.js';
import { Outbox } from '../messaging/outbox.js';
import { TransactionRunner } from '../transactions/transaction-runner.js';
import { ByteBudget } from './byte-budget.js';
import { type ImportOptions, PeopleImporter } from './importing/importer.js';
import { checkRows, insertRows } from './importing/inserts.js';
import { PersonInUseError, PersonNotFoundError, PersonRefusedError } from './people.errors.js';
import { PEOPLE_DATA_SOURCE, PEOPLE_OPTIONS, type PeopleOptions } from './people.options.js';
import { type PeoplePage, PeoplePages } from './people-pages.js';
import { PeopleStore } from './people-store.js';
import {
  assertPersonId,
  type NewPerson,
  type PersonChanges,
  UpdatePersonDto,
  validateInput,
} from './person.dto.js';
import { Person, type PersonRow } from './person.entity.js';
import { type ManyPeople, PersonRows } from './person-rows.js';
import { SharedPeople } from './sharing/shared-people.js';
import { changePerson, insertPerson, mergePerson, toVersions } from './single-writes.js';
import { PeopleTable } from './table/known-table.js';

export type { ImportOptions, NewPerson, PeoplePage, PersonChanges };

/** A condition on the version that is changed. */
export interface IfMatch {
  /** `person.version` as it was read, or several of which one must match; otherwise PersonChangedError. */
  ifMatch?: string | readonly string[];
}

/**
 * The operations on people. Each is one unit of work: it is applied as a whole or not at all, and runs again when it
 * collides with others (see `TransactionRunner`). Called inside another unit of work it joins that one.
 *
 * All methods throw InvalidInputError for bad input and, without effect, PoolExhaustedError, DatabaseUnavailableError,
 * StatementTimeoutError and TransactionRetriesExhaustedError; methods that write may throw PersonRefusedError, without effect,
 * and TransactionOutcomeUnknownError.
 *
 * @typeParam Data the module's `dataType`
 */
@Injectable()
export class PeopleService<Data extends object = JsonObject> implements OnModuleInit {
  /** @internal */
  readonly store: PeopleStore;
  /** @internal */
  readonly rows: PersonRows<Data>;
  private readonly single: SharedPeople;
  private readonly pages: PeoplePages<Data>;
  private readonly importer: PeopleImporter<Data>;

  constructor(
    transactions: TransactionRunner,
    @Inject(PEOPLE_DATA_SOURCE) private readonly dataSource: DataSource,
    outbox: Outbox,
    private readonly table: PeopleTable,
    @Inject(PEOPLE_OPTIONS) options: PeopleOptions<Data>,
    budget: ByteBudget,
  ) {
    this.store = new PeopleStore(transactions, dataSource, table, outbox, options.events ?? false);
    this.single = new SharedPeople(this.store);
    this.rows = new PersonRows(table, options);
    this.pages = new PeoplePages(this.store, this.rows, options);
    this.importer = new PeopleImporter(this.store, this.rows, budget, options);
  }

  /** Nest's hook: tells at the start where the DataSource does not know the entity. @internal */
  onModuleInit(): void {
    if (!this.dataSource.hasMetadata(Person)) {
      throw new Error(
        'PeopleModule: the DataSource does not know the entity Person. ' +
          'Set autoLoadEntities: true in TypeOrmModule.forRoot, or add Person to its entities.',
      );
    }
    for (const { propertyName, databaseName } of this.dataSource.getMetadata(Person).columns)
      if (databaseName !== propertyName)
        throw new Error(
          `PeopleModule: the naming strategy of the DataSource makes ${databaseName} of Person's column ${propertyName}, which has that name on purpose. ` +
            'Have its columnName() return the customName where there is one.',
        );
  }

  /**
   * Stores a person. With an `id` that exists already, the stored person is returned when it is the same one.
   *
   * @throws PersonConflictError another person has this id
   */
  async create(person: NewPerson<Data>): Promise<Person<Data>> {
    return (await this.createIfAbsent(person)).person;
  }

  /** As `create`, and tells whether the person is new. */
  async createIfAbsent(input: NewPerson<Data>): Promise<{ person: Person<Data>; created: boolean }> {
    if (!this.table.isKnown) await this.table.learn();
    const given = this.rows.toRow(input, '#');
    const { row, created } = await insertPerson(this.single, given, input.id === undefined);
    return { person: this.rows.toPerson(row), created };
  }

  /**
   * Stores all of these people or none, by prepared INSERTs of many rows each.
   *
   * @returns the ids in the order given
   * @throws PersonConflictError one of the ids exists already or stands twice
   */
  async createMany(people: readonly NewPerson<Data>[]): Promise<{ inserted: number; ids: string[] }> {
    const { inserted, ids = [] } = await this.createEach(people, { ids: true });
    return { inserted, ids };
  }

  /**
   * As `createMany`, for people that are read as they are needed: all of them are checked before anything is sent, and what
   * is too much to be kept is read a second time then. Others have their turn meanwhile.
   *
   * @param people can be gone through as often as one likes, and gives the same each time
   * @param options what is told
   * @param options.ids whether the ids are
   */
  async createEach(
    people: ManyPeople<Data>,
    { ids: wantsIds = false }: { ids?: boolean } = {},
  ): Promise<{ inserted: number; ids?: string[] }> {
    if (!this.table.isKnown) await this.table.learn();
    const rows = await checkRows(() => this.rows.toRows(people));
    let ids: string[] = [];
    // Not a lone statement: what became of its COMMIT can be asked for, and what a trigger keeps out is not kept in silence.
    if (rows.count > 0)
      await this.store.run({}, async (transaction) => {
        ids = [];
        await insertRows(transaction, this.store.statements, rows, (id) => wantsIds && ids.push(id));
      });
    this.store.published();
    return { inserted: rows.count, ...(wantsIds && { ids }) };
  }

  /**
   * Stores all of these people or none, through COPY and with bounded memory. A connection is taken once the first piece of them is
   * there. An iterable that can be read only once (a generator, a stream) is read once: a conflict then ends the import instead of
   * repeating it. Whatever happens, its `return()` is called.
   *
   * @throws PersonConflictError one of the ids exists already or stands twice
   * @throws ImportPlacesTakenError as many imports as may hold a connection do
   * @throws ImportStalledError with `idleMs`: the people come too slowly
   * @throws ImportNotRepeatableError a unit of work around it runs again, and the iterable can't be read again
   * @throws what the iterable throws
   */
  importMany(
    people: AsyncIterable<NewPerson<Data>>,
    options: ImportOptions = {},
  ): Promise<{ inserted: number }> {
    return this.importer.import(people, options);
  }

  /** The person of this id. @throws PersonNotFoundError */
  async get(id: string): Promise<Person<Data>> {
    assertPersonId(id);
    if (!this.table.isKnown) await this.table.learn();
    const row = await this.single.find(id);
    if (!row) throw new PersonNotFoundError(id);
    return this.rows.toPerson(row);
  }

  /**
   * The people with exactly this name, ordered by id, a page at a time: `limit` 1 to 1000, default 100. A page has fewer where their
   * names and data would be more bytes than `pageBytes`, or fewer yet with `bytes`, but one in any case. With `continues` it is a
   * page of something that was begun before the application stopped.
   */
  findByName(
    name: string,
    page: { limit?: number; cursor?: string | null } = {},
    options: { bytes?: number; continues?: boolean } = {},
  ): Promise<PeoplePage<Data>> {
    return this.pages.page(name, page, options);
  }

  /** All people with this name, page by page: no connection is held while the reader is slow, and no snapshot either. */
  streamByName(name: string): AsyncGenerator<Person<Data>> {
    return this.pages.stream(name);
  }

  /** What the people that a stream holds take at most, unless one of them alone is larger. */
  get exportBytes(): number {
    return this.pages.exportBytes;
  }

  /**
   * Changes a person's name, data or both. `data` replaces what is stored, null clears it; with `merge` it is a JSON Merge
   * Patch (RFC 7396) of what is stored.
   *
   * @throws PersonNotFoundError, PersonChangedError
   */
  async update(
    id: string,
    changes: PersonChanges<Data>,
    { ifMatch, merge = false }: IfMatch & { merge?: boolean } = {},
  ): Promise<Person<Data>> {
    assertPersonId(id);
    const { name = null, data } = validateInput(UpdatePersonDto, changes) as PersonChanges<Data>;
    this.rows.assertName(name ?? '');
    const versions = toVersions(ifMatch);
    if (!this.table.isKnown) await this.table.learn();
    if (merge && data)
      return mergePerson(this.store, this.rows, { id, name, patch: this.rows.toPatch(data), versions });
    const json = data === undefined ? null : this.rows.toJson(data);
    const values = [id, name, data !== undefined, json, versions];
    const isThere = (row: PersonRow) =>
      (name === null || row.name === name) && (data === undefined || this.table.isSame(row.data, json));
    const row = await changePerson(this.single, { kind: 'update', values }, versions, (found) =>
      found && isThere(found) ? { row: found } : undefined,
    );
    return this.rows.toPerson(row!);
  }

  /** Removes the person of this id. @throws PersonNotFoundError, PersonChangedError, PersonInUseError */
  async remove(id: string, { ifMatch }: IfMatch = {}): Promise<void> {
    assertPersonId(id);
    const versions = toVersions(ifMatch);
    if (!this.table.isKnown) await this.table.learn();
    const change = { kind: 'remove', values: [id, versions] } as const;
    const removed = changePerson(this.single, change, versions, (found) =>
      found ? undefined : { row: undefined },
    );
    await removed.catch((error: unknown) => {
      const isInUse = error instanceof PersonRefusedError && hasSqlState(error.cause, FOREIGN_KEY_VIOLATION);
      throw isInUse ? new PersonInUseError(id, { cause: error.cause }) : error;
    });
  }
}
