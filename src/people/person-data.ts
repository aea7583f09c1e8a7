import { applyDecorators, type Type } from '@nestjs/common';
import { plainToInstance, Transform } from 'class-transformer';
import { ValidateBy, validateSync } from 'class-validator';
import {
  assertBytes,
  escapePointer,
  fieldsOf,
  invalid,
  noRefusals,
  refuse,
  refuseFields,
  type Refusals,
} from '../json/refusals.js';
import { JsonError, JsonText } from '../json/text.js';
import { parseJson, stringifyJson } from '../json/lossless.js';
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
