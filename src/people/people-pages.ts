import type { JsonObject } from '../json/lossless.js';
import { DEFAULT_PAGE_BYTES, type PeopleOptions } from './people.options.js';
import type { PeopleStore } from './people-store.js';
import { SURELY_INDEXED_NAME_BYTES } from './people.statements.js';
import { decodeCursor, encodeCursor, FindPeopleDto, validateInput } from './person.dto.js';
import type { Person, PersonRow } from './person.entity.js';
import type { PersonRows } from './person-rows.js';

/** A page of people, ordered by id. */
export interface PeoplePage<Data extends object = JsonObject> {
  /** The people; at least one, unless there are none any more. */
  items: Person<Data>[];
  /** Cursor of the next page; null on the last. */
  next: string | null;
}

const DEFAULT_PAGE = 100;
/** What the people that a stream holds may take: there may be many with slow readers. */
const EXPORT_BYTES = 1024 * 1024;
const LARGEST_PAGE = 1000;
const SMALLEST_ID = '00000000-0000-0000-0000-000000000000';

/** The people with a name, by pages whose number of people and of bytes is bounded. */
export class PeoplePages<Data extends object = JsonObject> {
  private readonly pageBytes: number;

  constructor(
    private readonly store: PeopleStore,
    private readonly rows: PersonRows<Data>,
    { pageBytes = DEFAULT_PAGE_BYTES }: PeopleOptions<Data>,
  ) {
    this.pageBytes = pageBytes;
  }

  /** What the people that a stream holds take at most, unless one of them alone is larger. */
  get exportBytes(): number {
    return Math.min(this.pageBytes, EXPORT_BYTES);
  }

  async page(
    name: string,
    page: { limit?: number; cursor?: string | null },
    { bytes = this.pageBytes, continues = false }: { bytes?: number; continues?: boolean },
  ): Promise<PeoplePage<Data>> {
    const { limit = DEFAULT_PAGE, cursor } = validateInput(FindPeopleDto, { name, ...page });
    const { table } = this.store;
    if (!table.isKnown) await table.learn();
    const from = cursor ? decodeCursor(cursor)! : SMALLEST_ID;
    const largest = Math.min(bytes, this.pageBytes);
    const rows = await this.rowsOf(name, from, limit, largest, continues);
    // One row more than the page tells whether there is another.
    const shown = rows.findIndex(({ withheld }, index) => withheld || index === limit);
    const items = rows.slice(0, shown === -1 ? rows.length : shown).map((row) => this.rows.toPerson(row));
    const following = rows[items.length];
    return { items, next: following ? encodeCursor(following.id) : null };
  }

  async *stream(name: string): AsyncGenerator<Person<Data>> {
    let cursor: string | null = null;
    let limit = LARGEST_PAGE;
    do {
      // An answer that has begun is not cut short because the application stops.
      const options = { bytes: this.exportBytes, continues: cursor !== null };
      const page: PeoplePage<Data> = await this.page(name, { limit, cursor }, options);
      yield* page.items;
      cursor = page.next;
      // Where people are large, looking at a thousand of them for each page would be much work for few.
      limit = Math.min(LARGEST_PAGE, 2 * page.items.length);
    } while (cursor);
  }

  /** The rows of a page and the one behind it, as far as the bytes go: of the others there are the ids. */
  private async rowsOf(
    name: string,
    from: string,
    limit: number,
    bytes: number,
    continues: boolean,
  ): Promise<PersonRow[]> {
    const reading = { writes: false, continues };
    const isIndexed = Buffer.byteLength(name) <= SURELY_INDEXED_NAME_BYTES;
    const { statements } = this.store;
    const small = isIndexed ? statements.findByName : statements.findByLongName;
    const each = Math.floor(bytes / limit);
    const { rows } = await this.store.send<PersonRow>(small(name, from, limit + 1, each), reading);
    if (!rows.slice(0, limit).some(({ withheld }) => withheld)) return rows;
    const large = isIndexed ? statements.findLargeByName : statements.findLargeByLongName;
    return (await this.store.send<PersonRow>(large(name, from, limit + 1, bytes), reading)).rows;
  }
}
