import { ApiProperty, ApiPropertyOptional, PartialType, PickType } from '@nestjs/swagger';
import { Allow, IsInt, IsOptional, Max, Min, ValidateBy, ValidateIf, validateSync } from 'class-validator';
import type { Type } from '@nestjs/common';
import type { KnownMembers } from '../json/input.js';
import type { JsonText } from '../json/text.js';
import type { JsonObject } from '../json/lossless.js';
import { surelyKeepsRules } from '../json/rules.js';
import { escapePointer, fieldsOf, invalid, noRefusals, refuse, refuseFields } from '../json/refusals.js';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** True when PostgreSQL can store the text as it is: it knows no NUL, and UTF-8 knows no lone surrogate. */
const isStorable = (text: string) => !text.includes('\0') && text.isWellFormed();

const rule = (name: string, expected: string, validate: (value: unknown) => boolean) =>
  ValidateBy({ name, validator: { validate, defaultMessage: () => `$property must be ${expected}` } });

/** Any uuid, as PostgreSQL takes it, whatever its version says. */
const isUuid = (value: unknown) => typeof value === 'string' && UUID.test(value);
const IsUuid = () => rule('isUuid', 'a uuid', isUuid);
const isName = (value: unknown) => typeof value === 'string' && value !== '' && isStorable(value);
const IsName = () => rule('isName', 'a non-empty string without NUL and without lone surrogates', isName);
const IfGiven = () => ValidateIf((_, value) => value !== undefined);

const DATA_SCHEMA = {
  description: 'Any JSON object, or null. Numbers, key order and escapes come back as they were sent.',
  type: 'object',
  nullable: true,
  additionalProperties: true,
  example: { many_many_fields: 42, dict: { first: 'a', second: 'b' } },
} as const;

/** The members of all that clients send. */
export const INPUT_MEMBERS: KnownMembers = {
  parsed: new Set(['id', 'name', 'ifMatch', 'limit', 'cursor', 'ids']),
  asText: new Set(['data', 'people']),
};

/** What a client sends to create a person. */
export class CreatePersonDto<Data extends object = JsonObject> {
  /** A uuid of the caller's own; left out, one is made. The same id and person again is answered with the stored person. */
  @ApiPropertyOptional({
    description: "The client's own id. The same id and person again is answered with the stored person.",
    format: 'uuid',
    example: '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f',
  })
  @IfGiven()
  @IsUuid()
  id?: string;

  /** Any text that is not empty, without NUL. */
  @ApiProperty({ minLength: 1, example: 'Ada Lovelace' })
  @IsName()
  name!: string;

  /** A JSON object, an instance of `dataType`, or null for none. */
  @ApiPropertyOptional(DATA_SCHEMA)
  @Allow()
  data?: Data | JsonText | null;
}

/** What a client sends to change a person: what is left out stays, `data: null` clears. */
export class UpdatePersonDto<Data extends object = JsonObject> extends PartialType(
  PickType(CreatePersonDto, ['name', 'data'] as const),
  { skipNullProperties: false },
) {
  /** Replaces what is stored (or is merged into it); null clears it. */
  declare data?: Data | JsonText | null;
}

/** What `create` takes: `data` may be a plain value (bigints welcome), an instance of `dataType`, or a `JsonText`. */
export type NewPerson<Data extends object = JsonObject> = Pick<CreatePersonDto<Data>, 'id' | 'name' | 'data'>;
/** What `update` takes; what is left out stays. */
export type PersonChanges<Data extends object = JsonObject> = Pick<UpdatePersonDto<Data>, 'name' | 'data'>;

/** Which people, and which page of them. */
export class FindPeopleDto {
  /** The whole name. */
  @ApiProperty({ description: 'The whole name.', example: 'Ada Lovelace' })
  @IsName()
  name!: string;

  /** People of a page at most: 1 to 1000, default 100. */
  @ApiPropertyOptional({ minimum: 1, maximum: 1000, default: 100 })
  @IfGiven()
  @IsInt()
  @Min(1)
  @Max(1000)
  limit?: number;

  /** `next` of the page before; null or left out for the first. */
  @ApiPropertyOptional({ description: '`next` of the page before.' })
  @IsOptional()
  @rule(
    'isCursor',
    '`next` of the page before',
    (value) => typeof value === 'string' && decodeCursor(value) !== undefined,
  )
  cursor?: string | null;
}

/** A message that is about one person. */
export class PersonIdDto {
  @IsUuid()
  id!: string;
}

/** A message that brings many people. */
export class PeopleDto {
  @Allow()
  people!: unknown;

  @IfGiven()
  @rule('isBoolean', 'true or false', (value) => typeof value === 'boolean')
  ids?: boolean;
}

/** @throws InvalidInputError `id` is no uuid */
export function assertPersonId(id: unknown): asserts id is string {
  if (!isUuid(id)) throw invalid([{ pointer: '#/id', detail: 'must be a uuid' }]);
}

/** A person as HTTP and message replies show it. */
export class PersonDto {
  /** A uuid. */
  @ApiProperty({ format: 'uuid', example: '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f' })
  id!: string;

  /** As it is stored. */
  @ApiProperty({ example: 'Ada Lovelace' })
  name!: string;

  /** As it is stored; null where there is none. */
  @ApiProperty(DATA_SCHEMA)
  data!: object | null;
}

/** A page of people and where the next one begins; `next` is null on the last page. */
export class PeoplePageDto {
  /** The people, ordered by id. */
  @ApiProperty({ type: [PersonDto] })
  items!: PersonDto[];

  /** Cursor of the next page; null on the last. */
  @ApiProperty({ type: String, nullable: true, example: null })
  next!: string | null;
}

/** How many people were stored, and their ids in the order given where they were asked for. */
export class InsertedDto {
  /** How many were stored. */
  @ApiProperty({ example: 2 })
  inserted!: number;

  /** Their ids in the order given. */
  @ApiPropertyOptional({ type: [String], format: 'uuid' })
  ids?: string[];
}

const CURSOR_CHARACTERS = 22;

/** The opaque place of `id` in a list of people: where the next page begins, whether or not the person is still there. */
export const encodeCursor = (id: string) => Buffer.from(id.replaceAll('-', ''), 'hex').toString('base64url');

/** The id a cursor stands for; undefined when it is no cursor. */
export function decodeCursor(cursor: string): string | undefined {
  if (cursor.length !== CURSOR_CHARACTERS) return undefined;
  const hex = Buffer.from(cursor, 'base64url').toString('hex');
  if (hex.length !== 32 || encodeCursor(hex) !== cursor) return undefined;
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/**
 * `input` as an instance of the DTO, checked. Every door ends here, so what is refused is refused alike.
 *
 * @param pointer where `input` stands in what the caller sent
 * @throws InvalidInputError naming each field: wrong, missing or unknown
 */
export function validateInput<Dto extends object>(dtoClass: Type<Dto>, input: unknown, pointer = '#'): Dto {
  if (typeof input !== 'object' || input === null || Array.isArray(input)) {
    throw invalid([{ pointer, detail: 'must be an object' }]);
  }
  const dto = new dtoClass();
  const known = fieldsOf(dtoClass);
  const refusals = noRefusals();
  for (const key of Object.keys(input)) {
    if (known.has(key)) dto[key as keyof Dto] = (input as Dto)[key as keyof Dto];
    else refuse(refusals, `${pointer}/${escapePointer(key)}`, 'is not a known field');
  }
  if (!surelyKeepsRules(dtoClass, dto)) refuseFields(refusals, validateSync(dto), pointer);
  if (refusals.errors.length > 0) throw invalid(refusals.errors, { more: refusals.more });
  return dto;
}
