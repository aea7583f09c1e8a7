import type { Type } from '@nestjs/common';
import { getMetadataStorage, type ValidationError } from 'class-validator';
import { type FieldError, InvalidInputError } from '../errors/application-error.js';
import { PROBLEMS_AT_MOST, shown, shownFields, TEXT_CHARACTERS } from '../errors/shown.js';

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
