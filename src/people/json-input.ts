import { type FieldError, InvalidInputError } from '../errors/application-error.js';
import { JsonError, JsonText, readElements, readMembers } from './json-text.js';
import { invalid } from './person-data.js';

/** The members of a JSON object, parsed; `data` and `people` stay the text they came as. */
export type JsonInput = Record<string, unknown>;

/**
 * The JSON object in `bytes`, for `validateInput`: `data` stays text, so no number in it can change.
 *
 * @throws InvalidInputError no UTF-8, no JSON, no object, a member twice, or nested too deep
 */
export function readJsonObject(bytes: Uint8Array, what: string): JsonInput {
  return toInput(decodeJson(bytes, what), '#', what);
}

/** The JSON array of objects in `bytes`, as `readJsonObject`. */
export function readJsonArray(bytes: Uint8Array, what: string): JsonInput[] {
  const text = decodeJson(bytes, what);
  return toInputs(text, '#', `${what} must be a JSON array`);
}

/** The objects of the array that stands in the member `name` of `input`, as `readJsonObject` would read each. */
export function readMemberArray(input: JsonInput, name: string): JsonInput[] {
  const pointer = `#/${name}`;
  const value = input[name];
  if (!Array.isArray(value) && !(value instanceof JsonText))
    throw invalid([{ pointer, detail: 'must be an array' }]);
  if (Array.isArray(value)) return value as JsonInput[];
  return toInputs(value, pointer, `${name} must be an array`);
}

const KEPT_AS_TEXT = new Set(['data', 'people']);

function toInput(json: string | JsonText, pointer: string, what: string): JsonInput {
  const members = checked(() => readMembers(json), pointer, what);
  if (!members) throw refuse(`${what} must be a JSON object.`, pointer, 'must be a JSON object');
  // fromEntries defines properties; assigning would make `__proto__` the prototype.
  return Object.fromEntries(
    [...members].map(([key, member]) => [
      key,
      KEPT_AS_TEXT.has(key) ? member : (JSON.parse(member.text) as unknown),
    ]),
  );
}

function toInputs(json: string | JsonText, pointer: string, expected: string): JsonInput[] {
  const elements = checked(() => readElements(json), pointer, expected);
  if (!elements) throw refuse(`${expected}.`, pointer, 'must be an array');
  return elements.map((element, index) => toInput(element, `${pointer}/${index}`, `element ${index}`));
}

function decodeJson(bytes: Uint8Array, what: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw refuse(`${what} is not valid UTF-8.`, '#', '', { cause });
  }
}

function checked<T>(read: () => T, pointer: string, what: string): T {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof JsonError)) throw cause;
    throw refuse(`${what}: ${cause.message}.`, pointer, cause.message, { cause });
  }
}

function refuse(message: string, pointer: string, detail: string, options?: ErrorOptions): InvalidInputError {
  const errors: FieldError[] | undefined = pointer === '#' ? undefined : [{ pointer, detail }];
  return new InvalidInputError(message.charAt(0).toUpperCase() + message.slice(1), errors, options);
}
