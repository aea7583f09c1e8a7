import { jsonbRefusal } from '../json/jsonb.js';
import type { JsonObject } from '../json/lossless.js';
import { assertBytes, invalid, relocate } from '../json/refusals.js';
import { JsonText } from '../json/text.js';
import type { CopyRow, RowValues } from './importing/piece.js';
import { newId } from './importing/new-id.js';
import { type Many, RowBatches } from './importing/row-batches.js';
import type { PeopleOptions } from './people.options.js';
import { PersonDataMapper } from './person-data.js';
import { personLimits, type PersonLimits } from './person-limits.js';
import { CreatePersonDto, type NewPerson, validateInput } from './person.dto.js';
import { Person, type PersonRow } from './person.entity.js';
import type { PeopleTable } from './table/known-table.js';

/** People that come one after the other. */
export type ManyPeople<Data extends object> = Many<NewPerson<Data>>;

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
    const row: RowValues = [];
    this.addRow(row, input, pointer);
    return row as unknown as CopyRow;
  }

  private addRow(rows: RowValues, input: NewPerson<Data>, pointer: string): void {
    const { id, name, data } = validateInput(CreatePersonDto, input, pointer);
    this.assertName(name, pointer);
    const json = this.toJson(data, `${pointer}/data`);
    rows.push(id?.toLowerCase() ?? newId(), name, json);
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

  /** The rows of many people. @throws InvalidInputError with the person's place as pointer, as they are gone through */
  toRows(people: ManyPeople<Data>): RowBatches<NewPerson<Data>> {
    return new RowBatches(people, (rows, person, index) => {
      try {
        this.addRow(rows, person, '#');
      } catch (error) {
        // Only now: the engine keeps the texts of thousands of numbers, long enough to take them for what lasts.
        throw relocate(error, /^#/, `#/${index}`);
      }
    });
  }
}
