import { shown } from '../errors/shown.js';
import { JSON_NUMBER, JsonNumber } from './numbers.js';
import { JsonError, MAX_JSON_DEPTH, tooDeep } from './scanner.js';
import { assertDepth, JsonText } from './text.js';

/**
 * Writes a value as JSON: what `parseJson` returns comes out as it was. Beyond `JSON.stringify` it takes bigint,
 * `JsonNumber`, `JsonText` and `Map`; where `JSON.stringify` would change a value in silence (NaN, Infinity, functions,
 * undefined in an array) it refuses.
 *
 * @throws JsonError naming the place, as a JSON Pointer
 */
export function stringifyJson(value: unknown): string {
  const text = write(value, []);
  if (text === undefined) throw new JsonError(`${typeof value} is not a JSON value`);
  return text;
}

/** The keys and indexes on the way to a value. */
type Path = (string | number)[];

function write(value: unknown, path: Path): string | undefined {
  if (value === null) return 'null';
  switch (typeof value) {
    case 'string':
      return quoted(value);
    case 'boolean':
      return value ? 'true' : 'false';
    case 'bigint':
      return value.toString();
    case 'number':
      if (!Number.isFinite(value)) throw refused(String(value), path);
      return Object.is(value, -0) ? '-0' : String(value);
    case 'undefined':
      return undefined;
    case 'object':
      return writeObject(value, path);
    case 'function':
    case 'symbol':
      throw refused(`a ${typeof value}`, path);
  }
}

function writeObject(value: object, path: Path): string | undefined {
  if (value instanceof JsonText) {
    if (path.length > 0) assertDepth(value.text, MAX_JSON_DEPTH - path.length);
    return value.text;
  }
  if (value instanceof JsonNumber) {
    if (JSON_NUMBER.test(value.text)) return value.text;
    throw new JsonError(`${JSON.stringify(shown(value.text))} is not a JSON number (at ${placeOf(path)})`);
  }
  if (hasToJson(value)) return write(value.toJSON(), path);
  if (path.length >= MAX_JSON_DEPTH) throw tooDeep();
  if (Array.isArray(value)) return writeArray(value, path);
  let members = '';
  const entries = value instanceof Map ? (value as Map<unknown, unknown>) : Object.entries(value);
  for (const [key, member] of entries) {
    if (typeof key !== 'string') throw new JsonError(`a Map's keys must be strings (at ${placeOf(path)})`);
    const text = writeAt(key, member, path);
    if (text !== undefined) members += `${members && ','}${quoted(key)}:${text}`;
  }
  return `{${members}}`;
}

function writeArray(array: readonly unknown[], path: Path): string {
  let elements = '';
  for (let index = 0; index < array.length; index++) {
    const text = writeAt(index, array[index], path);
    if (text === undefined) throw refused('undefined', [...path, index]);
    elements += `${elements && ','}${text}`;
  }
  return `[${elements}]`;
}

function writeAt(key: string | number, value: unknown, path: Path): string | undefined {
  path.push(key);
  const text = write(value, path);
  path.pop();
  return text;
}

const refused = (what: string, path: Path) =>
  new JsonError(`${what} is not a JSON value (at ${placeOf(path)})`);

const placeOf = (path: Path) => shown(path.map((key) => `/${key}`).join('')) || '/';

const TO_BE_ESCAPED = /["\\\p{Cc}\p{Cs}]/u;

/** Most texts have nothing to escape, which is seen in less time than JSON.stringify takes. */
const quoted = (text: string) => (TO_BE_ESCAPED.test(text) ? JSON.stringify(text) : `"${text}"`);

const hasToJson = (value: object): value is { toJSON(): unknown } =>
  'toJSON' in value && typeof value.toJSON === 'function';
