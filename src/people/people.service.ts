import { Inject, Injectable, type OnModuleInit } from '@nestjs/common';
import type { Pool, QueryResult } from 'pg';
import type { DataSource } from 'typeorm';
import { v7 as uuidv7 } from 'uuid';
import { hasSqlState } from '../database/database-failure.js';
import { poolOf } from '../database/pooled-client.js';
import { FOREIGN_KEY_VIOLATION } from '../database/postgres-errors.js';
import { Outbox } from '../messaging/outbox.js';
import type { TransactionOptions } from '../transactions/transaction-options.js';
import { TransactionRunner } from '../transactions/transaction-runner.js';
import { currentTransaction, type Statement } from '../transactions/transaction-context.js';
import { mergeJson } from '../json/merge.js';
import { JsonText, sameJson } from '../json/text.js';
import { jsonbRefusal, sameJsonb } from '../json/jsonb.js';
import type { JsonObject } from '../json/lossless.js';
import { ByteBudget } from './byte-budget.js';
import { type CopyRow, importPieces } from './importing/copy.js';
import { checkRows, insertRows } from './importing/inserts.js';
import { DEFAULT_PIECE_MS, type ImportSource, type PaceOptions } from './importing/pace.js';
import { ImportPieces } from './importing/pieces.js';
import { ImportPlaces, placesOf } from './importing/places.js';
import {
  ImportNotRepeatableError,
  PersonChangedError,
  PersonConflictError,
  PersonInUseError,
  PersonNotFoundError,
  PersonRefusedError,
  toPersonError,
} from './people.errors.js';
import {
  DEFAULT_PAGE_BYTES,
  PEOPLE_DATA_SOURCE,
  PEOPLE_OPTIONS,
  type PeopleOptions,
} from './people.options.js';
import { PeopleTable } from './people-table.js';
import { peopleStatements, type PeopleStatements, SURELY_INDEXED_NAME_BYTES } from './people.statements.js';
import { PersonDataMapper } from './person-data.js';
import { assertBytes, invalid } from '../json/refusals.js';
import {
  assertPersonId,
  CreatePersonDto,
  decodeCursor,
  encodeCursor,
  FindPeopleDto,
  UpdatePersonDto,
  validateInput,
} from './person.dto.js';
import { Person, type PersonRow, versionOfRow, versionToRow } from './person.entity.js';
import { isMisfit } from './table/shape.js';
import { personLimits, type PersonLimits } from './person-limits.js';
import { WorkSlices } from '../json/work-slices.js';
import { WriteDoubt } from './write-doubt.js';

/** What `create` takes: `data` may be a plain value (bigints welcome), an instance of `dataType`, or a `JsonText`. */
export type NewPerson<Data extends object = JsonObject> = Pick<CreatePersonDto<Data>, 'id' | 'name' | 'data'>;
/** What `update` takes; what is left out stays. */
export type PersonChanges<Data extends object = JsonObject> = Pick<UpdatePersonDto<Data>, 'name' | 'data'>;

export interface PeoplePage<Data extends object = JsonObject> {
  items: Person<Data>[];
  /** Cursor of the next page; null on the last. */
  next: string | null;
}

/** People that come one after the other. */
type People<Data extends object> = Iterable<NewPerson<Data>> | AsyncIterable<NewPerson<Data>>;

/** A condition on the version that is changed. */
export interface IfMatch {
  /** `person.version` as it was read, or several of which one must match; otherwise PersonChangedError. */
  ifMatch?: string | readonly string[];
}

/** What counts for a person beside the bytes of its name and data: small ones cost more than their length. */
const BESIDE = 200;
/** How an import reads what it is given. */
export interface ImportOptions {
  /**
   * How long the iterable may bring nothing, in ms; ImportStalledError then, and also when it is slow while others wait for what the
   * import holds. For what comes from outside; left out, it is waited for as long as it takes.
   */
  idleMs?: number;
  /** What is known of where the people come from, so that a person that is long is told from one that does not come. */
  source?: ImportSource;
}

const DEFAULT_PAGE = 100;
/** What the people that a stream holds may take: there may be many with slow readers. */
const EXPORT_BYTES = 1024 * 1024;
/** How long an import waits for its place where the pool has no limit to that. */
const DEFAULT_PLACE_WAIT_MS = 5000;
const LARGEST_PAGE = 1000;
const SMALLEST_ID = '00000000-0000-0000-0000-000000000000';
/** A write that changes no row is repeated this often, in case that others were there in between, before the table is to blame. */
const LOOKS = 3;

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
  private readonly mapper: PersonDataMapper<Data>;
  /** A merge patch is a part of what `dataType` describes: the whole is checked once it is merged. */
  private readonly patches: PersonDataMapper<object>;
  private readonly limits: PersonLimits;
  private readonly hasEvents: boolean;
  private readonly pageBytes: number;
  private places: ImportPlaces | undefined;
  private byRow = peopleStatements('people');
  private byContent = peopleStatements('people', undefined, 'content');
  /** What has been read once, in whatever attempt: reading it again would import nothing in silence. */
  private readonly imported = new WeakSet<AsyncIterable<unknown>>();

  private readonly parse = (id: string, json: string) => this.mapper.fromJson(id, json);

  constructor(
    private readonly transactions: TransactionRunner,
    @Inject(PEOPLE_DATA_SOURCE) private readonly dataSource: DataSource,
    private readonly outbox: Outbox,
    private readonly table: PeopleTable,
    @Inject(PEOPLE_OPTIONS) private readonly options: PeopleOptions<Data>,
    private readonly budget: ByteBudget,
  ) {
    this.hasEvents = options.events ?? false;
    this.limits = personLimits(options);
    this.mapper = new PersonDataMapper(options.dataType, this.limits.data);
    this.patches = new PersonDataMapper<object>(undefined, this.limits.data);
    this.pageBytes = options.pageBytes ?? DEFAULT_PAGE_BYTES;
  }

  onModuleInit(): void {
    if (!this.dataSource.hasMetadata(Person)) {
      throw new Error(
        'PeopleModule: the DataSource does not know the entity Person. ' +
          'Set autoLoadEntities: true in TypeOrmModule.forRoot, or add Person to its entities.',
      );
    }
    const outbox = this.hasEvents ? this.outbox.table : undefined;
    this.byRow = peopleStatements(this.table.name, outbox);
    this.byContent = peopleStatements(this.table.name, outbox, 'content');
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
    const [id, name, data] = this.toRow(input, '#');
    const doubt = new WriteDoubt();
    for (let look = 1; look <= LOOKS; look++) {
      // Its key makes it harmless to store a person twice, so an answer that was lost is asked for by doing it again.
      const { rows } = await this.write<PersonRow>(this.statements.create(id, name, data), {
        idempotent: true,
        beforeRetry: doubt.beforeRetry,
      });
      if (rows[0]) return { person: this.toPerson(rows[0]), created: true };
      const existing = await doubt.ask((isProof) => this.find(id, isProof));
      if (!existing) continue;
      // Nobody else can have had an id that was made here, so it is ours, whatever has become of it since.
      const isOurs = input.id === undefined;
      const isSame = existing.name === name && this.isSame(existing.data, data);
      if (isOurs || isSame) return { person: this.toPerson(existing), created: isOurs };
      throw doubt.error ?? new PersonConflictError(id);
    }
    throw doubt.error ?? new PersonRefusedError();
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
   * @param options.ids whether the ids are told
   */
  async createEach(
    people: People<Data>,
    { ids: wantsIds = false }: { ids?: boolean } = {},
  ): Promise<{ inserted: number; ids?: string[] }> {
    if (!this.table.isKnown) await this.table.learn();
    const rows = await checkRows(() => this.toRows(people));
    let ids: string[] = [];
    // Not a lone statement: what became of its COMMIT can be asked for, and what a trigger keeps out is not kept in silence.
    if (rows.count > 0)
      await refusing(() =>
        this.transactions.run({}, async (transaction) => {
          ids = [];
          await insertRows(transaction, this.statements, rows, (id) => wantsIds && ids.push(id));
        }),
      );
    this.published();
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
  async importMany(
    people: AsyncIterable<NewPerson<Data>>,
    options: ImportOptions = {},
  ): Promise<{ inserted: number }> {
    const isOneShot = people[Symbol.asyncIterator]() === (people as unknown);
    if (isOneShot && this.imported.has(people)) throw new ImportNotRepeatableError();
    this.imported.add(people);
    // What joins a unit of work has its connection already.
    const needsPlace = !this.isInUnit();
    let hasPlace = false;
    const read = () =>
      new ImportPieces(
        this.toRows(people),
        this.budget,
        this.paceOf(options, () => hasPlace),
      );
    let pieces = read();
    try {
      if (!this.table.isKnown) await this.table.learn();
      let first = await pieces.next();
      if (first.length === 0) return { inserted: 0 };
      if (needsPlace) await this.importPlaces.take();
      hasPlace = needsPlace;
      let isRepeated = false;
      const inserted = await refusing(() =>
        this.transactions.run(isOneShot ? { maxAttempts: 1 } : {}, async (transaction) => {
          if (isRepeated) {
            await pieces.end();
            pieces = read();
            first = await pieces.next();
          }
          isRepeated = true;
          return importPieces(transaction, this.statements, first, () => pieces.next());
        }),
      );
      this.published();
      return { inserted };
    } finally {
      await pieces.end();
      if (hasPlace) this.importPlaces.give();
    }
  }

  /** @throws PersonNotFoundError */
  async get(id: string): Promise<Person<Data>> {
    assertPersonId(id);
    if (!this.table.isKnown) await this.table.learn();
    const row = await this.find(id);
    if (!row) throw new PersonNotFoundError(id);
    return this.toPerson(row);
  }

  /**
   * The people with exactly this name, ordered by id, a page at a time: `limit` 1 to 1000, default 100. A page has fewer where their
   * names and data would be more bytes than `pageBytes`, or fewer yet with `bytes`, but one in any case. With `continues` it is a
   * page of something that was begun before the application stopped.
   */
  async findByName(
    name: string,
    page: { limit?: number; cursor?: string | null } = {},
    { bytes = this.pageBytes, continues = false }: { bytes?: number; continues?: boolean } = {},
  ): Promise<PeoplePage<Data>> {
    const { limit = DEFAULT_PAGE, cursor } = validateInput(FindPeopleDto, { name, ...page });
    if (!this.table.isKnown) await this.table.learn();
    const from = cursor ? decodeCursor(cursor)! : SMALLEST_ID;
    const largest = Math.min(bytes, this.pageBytes);
    const rows = await this.pageOf(name, from, limit, largest, continues);
    // One row more than the page tells whether there is another.
    const shown = rows.findIndex(({ withheld }, index) => withheld || index === limit);
    const items = rows.slice(0, shown === -1 ? rows.length : shown).map((row) => this.toPerson(row));
    const following = rows[items.length];
    return { items, next: following ? encodeCursor(following.id) : null };
  }

  /** The rows of a page and the one behind it, as far as the bytes go: of the others there are the ids. */
  private async pageOf(
    name: string,
    from: string,
    limit: number,
    bytes: number,
    continues: boolean,
  ): Promise<PersonRow[]> {
    const reading = { writes: false, continues };
    const isIndexed = Buffer.byteLength(name) <= SURELY_INDEXED_NAME_BYTES;
    const { statements } = this;
    const small = isIndexed ? statements.findByName : statements.findByLongName;
    const each = Math.floor(bytes / limit);
    const { rows } = await this.send<PersonRow>(small(name, from, limit + 1, each), reading);
    if (!rows.slice(0, limit).some(({ withheld }) => withheld)) return rows;
    const large = isIndexed ? statements.findLargeByName : statements.findLargeByLongName;
    return (await this.send<PersonRow>(large(name, from, limit + 1, bytes), reading)).rows;
  }

  /** All people with this name, page by page: no connection is held while the reader is slow, and no snapshot either. */
  async *streamByName(name: string): AsyncGenerator<Person<Data>> {
    let cursor: string | null = null;
    let limit = LARGEST_PAGE;
    do {
      const page: PeoplePage<Data> = await this.findByName(
        name,
        { limit, cursor },
        // An answer that has begun is not cut short because the application stops.
        { bytes: this.exportBytes, continues: cursor !== null },
      );
      yield* page.items;
      cursor = page.next;
      // Where people are large, looking at a thousand of them for each page would be much work for few.
      limit = Math.min(LARGEST_PAGE, 2 * page.items.length);
    } while (cursor);
  }

  /** What the people that a stream holds take at most, unless one of them alone is larger. */
  get exportBytes(): number {
    return Math.min(this.pageBytes, EXPORT_BYTES);
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
    assertBytes(name ?? '', this.limits.name, 'UTF-8', '#/name');
    const versions = toVersions(ifMatch);
    if (!this.table.isKnown) await this.table.learn();
    if (merge && data) return this.mergeData(id, name, this.toJson(this.patches, data, '#/data'), versions);
    const json = data === undefined ? null : this.toJson(this.mapper, data, '#/data');
    const statement = this.statements.update(id, name, data !== undefined, json, versions);
    const isThere = (row: PersonRow) =>
      (name === null || row.name === name) && (data === undefined || this.isSame(row.data, json));
    const row = await this.change(statement, id, versions, (found) =>
      found && isThere(found) ? { row: found } : undefined,
    );
    return this.toPerson(row!);
  }

  /** @throws PersonNotFoundError, PersonChangedError, PersonInUseError */
  async remove(id: string, { ifMatch }: IfMatch = {}): Promise<void> {
    assertPersonId(id);
    const versions = toVersions(ifMatch);
    if (!this.table.isKnown) await this.table.learn();
    const removed = this.change(this.statements.remove(id, versions), id, versions, (found) =>
      found ? undefined : { row: undefined },
    );
    await removed.catch((error: unknown) => {
      const isInUse = error instanceof PersonRefusedError && hasSqlState(error.cause, FOREIGN_KEY_VIOLATION);
      throw isInUse ? new PersonInUseError(id, { cause: error.cause }) : error;
    });
  }

  /**
   * Changes or removes a row. Where the answer was lost, what is there then tells what became of it. It is not done again, as
   * others may have followed; with versions it can be, for it fits one row only, unless they are digests of a content, which may come again.
   *
   * @param recognise what was done, by the row that is found; undefined where that can't be told
   */
  private async change(
    statement: Statement,
    id: string,
    versions: string[] | null,
    recognise: (found: PersonRow | undefined) => { row: PersonRow | undefined } | undefined,
  ): Promise<PersonRow | undefined> {
    const doubt = new WriteDoubt();
    const options = {
      conflictKey: keyOf(id),
      idempotent: versions !== null && this.table.hasRowVersions,
      beforeRetry: doubt.beforeRetry,
    };
    for (let look = 1; look <= LOOKS; look++) {
      const result = await doubt.of(this.write<PersonRow>(statement, options));
      if (result?.rowCount) return result.rows[0];
      const found = await doubt.ask((isProof) => this.find(id, isProof));
      if (doubt.error) {
        const recognised = recognise(found);
        if (!recognised) throw doubt.error;
        return recognised.row;
      }
      if (!found) throw new PersonNotFoundError(id);
      if (versions && !versions.includes(versionOfRow(found))) throw new PersonChangedError(id);
    }
    throw new PersonRefusedError();
  }

  private mergeData(id: string, name: string | null, patch: string | null, versions: string[] | null) {
    return this.transactions.run({ conflictKey: keyOf(id) }, async (transaction) => {
      const stored = (await transaction.query<PersonRow>(this.statements.getForUpdate(id))).rows[0];
      // One that is created from here on is not to be changed by what was merged with nothing.
      if (!stored) throw new PersonNotFoundError(id);
      const json = this.mapper.toJson(
        JsonText.of(await mergeJson(stored.data ?? 'null', patch ?? 'null')),
        '#/data',
      );
      const { rows } = await this.write<PersonRow>(this.statements.update(id, name, true, json, versions));
      if (rows[0]) return this.toPerson(rows[0]);
      throw versions && !versions.includes(versionOfRow(stored))
        ? new PersonChangedError(id)
        : new PersonRefusedError();
    });
  }

  /** @param isProof true: by a statement that a standby refuses, as one that was the primary may have rows that no other server has */
  private async find(id: string, isProof = false): Promise<PersonRow | undefined> {
    const statement = isProof ? this.statements.getForUpdate(id) : this.statements.get(id);
    const { rows } = await this.send<PersonRow>(statement, { writes: false });
    return rows[0];
  }

  private async write<Row extends object>(
    statement: Statement,
    options: TransactionOptions = {},
  ): Promise<QueryResult<Row>> {
    const result = await refusing(() => this.send<Row>(statement, { ...options, writes: true }));
    this.published();
    return result;
  }

  private async send<Row extends object>(
    statement: Statement,
    options: TransactionOptions & { writes: boolean; continues?: boolean },
  ): Promise<QueryResult<Row>> {
    try {
      return await this.transactions.runStatement<Row>(statement, options);
    } catch (error) {
      // As where a view without system columns has taken the table's place: the next operation looks what is there now.
      if (isMisfit(error)) this.table.doubt();
      throw error;
    }
  }

  /** Those that suit the table as it was when it was last looked at. */
  private get statements(): PeopleStatements {
    return this.table.hasRowVersions ? this.byRow : this.byContent;
  }

  private isSame(stored: string | null, given: string | null): boolean {
    const same = this.table.isJsonb ? sameJsonb : sameJson;
    return same(stored ?? 'null', given ?? 'null');
  }

  private toJson(mapper: PersonDataMapper<object>, data: unknown, pointer: string): string | null {
    const json = mapper.toJson(data, pointer);
    const refusal = json !== null && this.table.isJsonb ? jsonbRefusal(json) : undefined;
    if (!refusal) return json;
    // Should it be a json again meanwhile, the next is not refused.
    this.table.doubt();
    throw invalid([{ pointer, detail: refusal }]);
  }

  /** In a unit of work around this one the events are there once that is committed; polling is behind it. */
  private published(): void {
    if (!this.hasEvents) return;
    const outer = currentTransaction();
    if (outer && !outer.hasEnded) outer.afterCommit(() => this.outbox.wake());
    else this.outbox.wake();
  }

  private toRow(input: NewPerson<Data>, pointer: string): [id: string, name: string, data: string | null] {
    const { id = uuidv7(), name, data } = validateInput(CreatePersonDto, input, pointer);
    assertBytes(name, this.limits.name, 'UTF-8', `${pointer}/name`);
    return [id.toLowerCase(), name, this.toJson(this.mapper, data, `${pointer}/data`)];
  }

  /** Not a generator, whose end would come behind what it waits for. */
  private toRows(people: People<Data>): AsyncIterableIterator<CopyRow> {
    const iterator =
      Symbol.asyncIterator in people ? people[Symbol.asyncIterator]() : people[Symbol.iterator]();
    const slices = new WorkSlices();
    let index = 0;
    let isOver = false;
    const read = async () => {
      try {
        return await iterator.next();
      } catch (error) {
        isOver = true;
        throw error;
      }
    };
    return {
      [Symbol.asyncIterator]() {
        return this;
      },
      next: async () => {
        const result = await read();
        isOver = result.done ?? false;
        if (isOver) return { done: true, value: undefined };
        const row = this.toRow(result.value as NewPerson<Data>, `#/${index++}`);
        if (slices.isOver(row[1].length + (row[2]?.length ?? 0) + BESIDE)) await slices.giveWay();
        return { value: row };
      },
      return: async () => {
        if (!isOver) await iterator.return?.();
        return { done: true, value: undefined };
      },
    };
  }

  private get importPlaces(): ImportPlaces {
    const pool = poolOf(this.dataSource);
    return (this.places ??= new ImportPlaces(
      placesOf(pool.options.max, this.options.importPlaces),
      waitOf(pool),
    ));
  }

  private isInUnit(): boolean {
    let context = currentTransaction();
    while (context && context.dataSource !== this.dataSource) context = context.parent;
    return context !== undefined;
  }

  private paceOf(
    { idleMs, source }: ImportOptions,
    hasPlace: () => boolean,
  ): Omit<PaceOptions, 'onStalled'> | undefined {
    if (idleMs === undefined) return undefined;
    const { budget, importPlaces } = this;
    const pool = poolOf(this.dataSource);
    const { importPieceMs = DEFAULT_PIECE_MS } = this.options;
    // Of a pool of one nobody else has a connection.
    const keepsAll = () => hasPlace() && pool.options.max === 1 && pool.waitingCount > 0;
    return {
      idleMs,
      source,
      pieceMs: () => (keepsAll() ? Math.min(importPieceMs, waitOf(pool) / 2) : importPieceMs),
      isWanted: () => keepsAll() || (hasPlace() && importPlaces.areWanted) || budget.used > budget.limit / 2,
    };
  }

  private toPerson(row: PersonRow): Person<Data> {
    const person = Person.fromRow<Data>(row, this.parse);
    if (this.mapper.checksOnRead) void person.data;
    return person;
  }
}

const waitOf = ({ options }: Pool): number => options.connectionTimeoutMillis || DEFAULT_PLACE_WAIT_MS;

/** Changes of one person queue up in this process; another process meets them as conflicts. */
const keyOf = (id: string) => `people:${id.toLowerCase()}`;

function toVersions(ifMatch: string | readonly string[] | undefined): string[] | null {
  if (ifMatch === undefined) return null;
  const versions: unknown[] = [ifMatch].flat();
  if (versions.every((version) => typeof version === 'string')) return versions.map(versionToRow);
  throw invalid([{ pointer: '#/ifMatch', detail: 'must be a version, or an array of versions' }]);
}

async function refusing<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw toPersonError(error);
  }
}
