import { jsonbRefusal } from '../json/jsonb.js';
import type { JsonObject } from '../json/lossless.js';
import { assertBytes, invalid } from '../json/refusals.js';
import { JsonText } from '../json/text.js';
import { WorkSlices } from '../json/work-slices.js';
import type { CopyRow } from './importing/copy.js';
import { newId } from './importing/new-id.js';
import type { PeopleOptions } from './people.options.js';
import { PersonDataMapper } from './person-data.js';
import { personLimits, type PersonLimits } from './person-limits.js';
import { CreatePersonDto, type NewPerson, validateInput } from './person.dto.js';
import { Person, type PersonRow } from './person.entity.js';
import type { PeopleTable } from './table/known-table.js';

/** People that come one after the other. */
export type ManyPeople<Data extends object> = Iterable<NewPerson<Data>> | AsyncIterable<NewPerson<Data>>;

/** What counts for a person beside the bytes of its name and data: small ones cost more than their length. */
const BESIDE = 200;

/** Between people as callers give and take them, and the rows of the table. What comes in is checked here. */
export class PersonRows<Data extends object = JsonObject> {
  private readonly limits: PersonLimits;
  private readonly mapper: PersonDataMapper<Data>;
  /** A merge patch is a part of what `dataType` describes: the whole is checked once it is merged. */
  private readonly patches: PersonDataMapper<object>;

  private readonly parse = (id: string, json: string) => this.mapper.fromJson(id, json);

  constructor(
    private readonly table: PeopleTable,
    options: PeopleOptions<Data>,
  ) {
    this.limits = personLimits(options);
    this.mapper = new PersonDataMapper(options.dataType, this.limits.data);
    this.patches = new PersonDataMapper<object>(undefined, this.limits.data);
  }

  toPerson(row: PersonRow): Person<Data> {
    const person = Person.fromRow<Data>(row, this.parse);
    if (this.mapper.checksOnRead) void person.data;
    return person;
  }

  /** @throws InvalidInputError with pointers that begin with `pointer` */
  toRow(input: NewPerson<Data>, pointer: string): CopyRow {
    const { id = newId(), name, data } = validateInput(CreatePersonDto, input, pointer);
    this.assertName(name, pointer);
    return [id.toLowerCase(), name, this.toJson(data, `${pointer}/data`)];
  }

  /** @throws InvalidInputError */
  assertName(name: string, pointer = '#'): void {
    assertBytes(name, this.limits.name, 'UTF-8', `${pointer}/name`);
  }

  /** `data` as the JSON text that is stored. @throws InvalidInputError */
  toJson(data: unknown, pointer = '#/data'): string | null {
    return this.storable(this.mapper.toJson(data, pointer), pointer);
  }

  /** The JSON text of a merge patch. @throws InvalidInputError */
  toPatch(data: unknown): string | null {
    return this.storable(this.patches.toJson(data, '#/data'), '#/data');
  }

  /** The `data` that a merge has made of what is stored. @throws InvalidInputError */
  ofMerged(json: string): string | null {
    return this.mapper.toJson(JsonText.of(json), '#/data');
  }

  private storable(json: string | null, pointer: string): string | null {
    const refusal = json !== null && this.table.isJsonb ? jsonbRefusal(json) : undefined;
    if (!refusal) return json;
    // The column may have become a json again: then the next person is not refused.
    this.table.doubt();
    throw invalid([{ pointer, detail: refusal }]);
  }

  /**
   * The rows of many people; others have their turn meanwhile. Not a generator, whose end would come behind what it waits for.
   *
   * @throws InvalidInputError with the person's place as pointer
   */
  toRows(people: ManyPeople<Data>): AsyncIterableIterator<CopyRow> {
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
}
