import type { Type } from '@nestjs/common';
import { plainToInstance, Transform } from 'class-transformer';
import { getMetadataStorage, ValidateBy, validateSync, type ValidationError } from 'class-validator';
import { applyDecorators } from '@nestjs/common';
import { type FieldError, InvalidInputError } from '../errors/application-error.js';
import { PROBLEMS_AT_MOST, shown, shownFields, TEXT_CHARACTERS } from '../errors/shown.js';
import { JsonError, JsonText } from './json-text.js';
import { parseJson, stringifyJson } from './lossless-json.js';
import { StoredDataInvalidError } from './people.errors.js';

/**
 * Between a person's `data` in the program and the JSON text in the table. With a `dataType` (a class-validator class)
 * both directions are checked against it and reading gives its instances.
 */
export class PersonDataMapper<Data extends object> {
  /** @param maxBytes what the JSON may have, in UTF-8 */
  constructor(
    private readonly dataType: Type<Data> | undefined,
    private readonly maxBytes = Infinity,
  ) {}

  /**
   * @param data an object, a `JsonText` of one, or null
   * @param pointer where `data` stands in the input, for the error
   * @throws InvalidInputError naming each field
   */
  toJson(data: unknown, pointer: string): string | null {
    if (data === null || data === undefined) return null;
    const text = writeJson(data, pointer).trim();
    if (text === 'null') return null;
    if (!text.startsWith('{')) throw invalid([{ pointer, detail: 'must be a JSON object or null' }]);
    assertBytes(text, this.maxBytes, 'JSON', pointer);
    if (this.dataType) {
      const { errors, more } = this.typed(this.dataType, parseJson(text), pointer);
      if (errors.length > 0) throw invalid(errors, { more });
    }
    return text;
  }

  /** @throws StoredDataInvalidError what is stored does not fit `dataType` */
  fromJson(id: string, text: string): Data | null {
    const plain = parseStored(id, text);
    if (!this.dataType || plain === null) return plain as Data | null;
    const { value, errors } = this.typed(this.dataType, plain, '#/data');
    if (errors.length > 0) throw new StoredDataInvalidError(id, errors);
    return value;
  }

  /** True when what is stored must be checked before it is handed out, rather than when somebody looks. */
  get checksOnRead(): boolean {
    return this.dataType !== undefined;
  }

  private typed(dataType: Type<Data>, plain: unknown, pointer: string): { value: Data } & Refusals {
    const refused = (at: string, detail: string) => ({
      value: plain as Data,
      errors: [{ pointer: at, detail }],
      more: 0,
    });
    if (!isPlainObject(plain)) return refused(pointer, 'must be a JSON object or null');
    const lost = findLostKey(plain, pointer);
    if (lost) return refused(lost, 'is not a possible key of typed data');
    const value = plainToInstance(dataType, plain);
    // class-validator would make an object of each.
    const unknown = unknownFields(value, fieldsOf(dataType), pointer);
    if (unknown.more > 0) return { value, ...unknown };
    const failures = validateSync(value, {
      whitelist: true,
      forbidNonWhitelisted: true,
      forbidUnknownValues: true,
    });
    return { value, ...refuseFields(noRefusals(), failures, pointer) };
  }
}

function unknownFields(value: object, known: ReadonlySet<string>, pointer: string): Refusals {
  const refusals = noRefusals();
  for (const key of Object.keys(value)) {
    if (!known.has(key)) refuse(refusals, `${pointer}/${escapePointer(key)}`, 'is not a known field');
  }
  return refusals;
}

/** Fields that were refused: those that are named, and how many there are beside them. */
export interface Refusals {
  errors: FieldError[];
  more: number;
}

export const noRefusals = (): Refusals => ({ errors: [], more: 0 });

/** Keeps a refusal as long as it will be named, and counts it else: a million of them make no million objects. */
export function refuse(refusals: Refusals, pointer: string, detail: string): void {
  if (refusals.errors.length < PROBLEMS_AT_MOST) refusals.errors.push({ pointer, detail });
  else refusals.more++;
}

/** Adds the failures of class-validator; one entry a field, nested ones with their whole path. */
export function refuseFields(
  refusals: Refusals,
  failures: readonly ValidationError[],
  pointer: string,
): Refusals {
  for (const { property, constraints, children } of failures) {
    const at = `${pointer}/${escapePointer(property)}`;
    // class-validator starts its messages with the property, which the pointer names already.
    const details = Object.entries(constraints ?? {}).map(([rule, text]) =>
      rule === 'whitelistValidation'
        ? 'is not a known field'
        : text.startsWith(`${property} `)
          ? text.slice(property.length + 1)
          : text,
    );
    if (details.length > 0) refuse(refusals, at, details.join('; '));
    refuseFields(refusals, children ?? [], at);
  }
  return refusals;
}

const fields = new WeakMap<object, ReadonlySet<string>>();

/** The properties that a class-validator class knows. */
export function fieldsOf(dtoClass: Type): ReadonlySet<string> {
  let known = fields.get(dtoClass);
  if (!known) {
    const metadata = getMetadataStorage().getTargetValidationMetadatas(dtoClass, '', false, false);
    fields.set(dtoClass, (known = new Set(metadata.map(({ propertyName }) => propertyName))));
  }
  return known;
}

/** A key as a part of a JSON Pointer that is shown. */
export const escapePointer = (key: string) => shown(key).replaceAll('~', '~0').replaceAll('/', '~1');

/** @throws InvalidInputError the text has more than `most` bytes in UTF-8; `what` it is measured as */
export function assertBytes(text: string, most: number, what: string, pointer: string): void {
  // A character has three bytes at most, so that most texts need no counting.
  if (text.length * 3 <= most) return;
  const bytes = Buffer.byteLength(text);
  if (bytes > most)
    throw invalid([{ pointer, detail: `must be at most ${most} bytes of ${what}, and would be ${bytes}` }]);
}

/**
 * One sentence that names every field, and the list: at most 20 of them, and how many there are beside them.
 *
 * @param options.more fields that were refused beside `errors`
 */
export function invalid(
  errors: readonly FieldError[],
  options?: ErrorOptions & { more?: number },
): InvalidInputError {
  const named = shownFields(errors);
  const fields = named.map(
    ({ pointer, detail }) => `${pointer.replace(/^#\/?/, '') || 'the input'} ${detail}`,
  );
  const more = errors.length - named.length + (options?.more ?? 0);
  const rest = more > 0 ? `; and ${more} more` : '';
  return new InvalidInputError(`${shown(fields.join('; '), TEXT_CHARACTERS - 100)}${rest}.`, named, {
    ...options,
    more,
  });
}

/** The same refusal with its pointers as the caller knows the input; any other error, and one that stands there already, as it is. */
export function relocate(error: unknown, from: RegExp, to: string): unknown {
  if (!(error instanceof InvalidInputError) || !error.errors) return error;
  const errors = error.errors.map(({ pointer, detail }) => ({ pointer: pointer.replace(from, to), detail }));
  if (errors.every(({ pointer }, index) => pointer === error.errors![index]!.pointer)) return error;
  return invalid(errors, { cause: error, more: error.more });
}

/**
 * For a property of a `dataType` that is a 64-bit unsigned integer, Rust's `u64`: a bigint in the program, a JSON number
 * with all its digits outside.
 */
export function IsUint64(): PropertyDecorator {
  return applyDecorators(
    Transform(
      ({ value }: { value: unknown }) =>
        Number.isSafeInteger(value) && !Object.is(value, -0) ? BigInt(value as number) : value,
      {
        toClassOnly: true,
      },
    ),
    ValidateBy({
      name: 'isUint64',
      validator: {
        validate: (value: unknown) => typeof value === 'bigint' && value >= 0n && value < 2n ** 64n,
        defaultMessage: () => '$property must be a whole number from 0 to 18446744073709551615',
      },
    }),
  );
}

function writeJson(data: unknown, pointer: string): string {
  if (data instanceof JsonText) return data.text;
  try {
    return stringifyJson(data);
  } catch (cause) {
    if (!(cause instanceof JsonError)) throw cause;
    throw invalid([{ pointer, detail: `must be JSON: ${cause.message}` }], { cause });
  }
}

/** Of what `parseJson` returns: no array and no JsonNumber. */
const isPlainObject = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;

function parseStored(id: string, text: string): unknown {
  try {
    return parseJson(text);
  } catch (cause) {
    if (!(cause instanceof JsonError)) throw cause;
    throw new StoredDataInvalidError(id, [{ pointer: '#/data', detail: cause.message }], { cause });
  }
}

/** `toString`, `__proto__` and the like: class-validator takes them for known fields, class-transformer drops them. */
const isInherited = (key: string) => key in Object.prototype;

/** A key that class-transformer would drop in silence, which would be a change of the data. */
function findLostKey(value: unknown, pointer: string): string | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  for (const [key, member] of Object.entries(value)) {
    if (isInherited(key)) return `${pointer}/${key}`;
    if (typeof member !== 'object') continue;
    const inner = findLostKey(member, `${pointer}/${escapePointer(key)}`);
    if (inner) return inner;
  }
  return undefined;
}
