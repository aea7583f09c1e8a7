import { shown } from '../errors/shown.js';
import {
  CLOSE_BRACE,
  CLOSE_BRACKET,
  COMMA,
  endOfString,
  endOfValue,
  isDigit,
  JsonError,
  MAX_JSON_DEPTH,
  MINUS,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
  skipSpace,
  tooDeep,
  ZERO,
} from './scanner.js';
import { assertDepth, JsonText, parsePlain, parseString, rawJSON } from './text.js';

/**
 * A number that neither a JavaScript number nor a bigint can hold as it was written: `0.10000000000000000001`, `1e400`,
 * `1.0`. `text` is the number as written.
 */
export class JsonNumber {
  constructor(
    /** A JSON number as it was written. */
    readonly text: string,
  ) {}

  /** The nearest JavaScript number; may differ from `text`. */
  valueOf(): number {
    return Number(this.text);
  }

  /** The number as it was written. */
  toString(): string {
    return this.text;
  }

  /** For JSON.stringify: the number as written; before Node 22 the nearest that JavaScript has. */
  toJSON(): unknown {
    return rawJSON ? rawJSON(this.text) : Number(this.text);
  }
}

/**
 * What `parseJson` makes of a number: a bigint of an integer beyond 2^53, a JsonNumber of what would lose a digit, and of an
 * integer of more than a thousand digits, which a bigint takes too long for.
 */
export type JsonNumeric = number | bigint | JsonNumber;
/** Any value `parseJson` returns. */
export type JsonValue =
  string | JsonNumeric | boolean | null | JsonValue[] | JsonObject | Map<string, JsonValue>;
/** Any JSON object. */
export interface JsonObject {
  [key: string]: unknown;
}

// A fraction, an exponent, sixteen digits in a row or "-0": what JSON.parse might not keep. May match inside strings too,
// which only costs time.
const NUMBER_AT_RISK = /\d[.eE]|\d{16}|-0/;

/**
 * Parses JSON without changing a number: see `JsonNumeric`. `__proto__` is a key like any other; of keys that stand twice
 * the last one counts.
 *
 * @param objects `map` keeps the order of every key; a plain object puts keys that look like array indexes first
 * @throws JsonError
 */
export function parseJson(text: string, objects: 'plain' | 'map' = 'plain'): JsonValue {
  const plain = parsePlain(text);
  if (objects === 'plain' && !NUMBER_AT_RISK.test(text)) return plain as JsonValue;
  return parseValue(text, { at: skipSpace(text, 0) }, objects);
}

function parseValue(text: string, cursor: { at: number }, objects: 'plain' | 'map'): JsonValue {
  const c = text.charCodeAt(cursor.at);
  if (c === OPEN_BRACE) return parseObject(text, cursor, objects);
  if (c === OPEN_BRACKET) {
    const array: JsonValue[] = [];
    forEachItem(text, cursor, CLOSE_BRACKET, () => array.push(parseValue(text, cursor, objects)));
    return array;
  }
  const start = cursor.at;
  cursor.at = endOfValue(text, start);
  const literal = text.slice(start, cursor.at);
  return c === MINUS || isDigit(c) ? parseNumber(literal) : parseLiteral(literal);
}

/** A string, true, false or null. */
const parseLiteral = (literal: string): JsonValue =>
  literal.charCodeAt(0) === QUOTE ? parseString(literal) : (JSON.parse(literal) as JsonValue);

function parseObject(text: string, cursor: { at: number }, objects: 'plain' | 'map'): JsonValue {
  const entries: [string, JsonValue][] = [];
  forEachItem(text, cursor, CLOSE_BRACE, () => {
    const keyEnd = endOfString(text, cursor.at);
    const key = parseString(text.slice(cursor.at, keyEnd));
    cursor.at = skipSpace(text, skipSpace(text, keyEnd) + 1);
    entries.push([key, parseValue(text, cursor, objects)]);
  });
  // fromEntries defines properties; assigning would make `__proto__` the prototype.
  return objects === 'map' ? new Map(entries) : Object.fromEntries(entries);
}

function forEachItem(text: string, cursor: { at: number }, close: number, read: () => void): void {
  cursor.at = skipSpace(text, cursor.at + 1);
  while (text.charCodeAt(cursor.at) !== close) {
    read();
    cursor.at = skipSpace(text, cursor.at);
    if (text.charCodeAt(cursor.at) === COMMA) cursor.at = skipSpace(text, cursor.at + 1);
  }
  cursor.at++;
}

/** Making a bigint, and writing it, takes the square of its digits. */
const BIGINT_DIGITS = 1000;
/** Such a number is kept as it is, if it is an integer. */
const SAFE_DIGITS = 15;

function parseNumber(literal: string): JsonNumeric {
  if (literal.length <= SAFE_DIGITS && isInteger(literal)) return Number(literal);
  if (!isInteger(literal)) return parseReal(literal);
  if (literal.length > BIGINT_DIGITS) return new JsonNumber(literal);
  const number = Number(literal);
  // Beyond 2^53 without exception: a field is not to be a number or a bigint by the luck of its digits.
  return Number.isSafeInteger(number) ? number : BigInt(literal);
}

function parseReal(literal: string): JsonNumeric {
  const number = literal.length <= LONGEST_DOUBLE ? Number(literal) : NaN;
  return String(number) === literal || literal === '-0' ? number : new JsonNumber(literal);
}

/** As JavaScript writes one: `-2.2250738585072014e-308`. */
const LONGEST_DOUBLE = 25;

/** Digits alone, after a minus; zero is one without it. */
function isInteger(literal: string): boolean {
  let i = literal.charCodeAt(0) === MINUS ? 1 : 0;
  if (literal.charCodeAt(i) === ZERO) return i === 0 && literal.length === 1;
  while (isDigit(literal.charCodeAt(i))) i++;
  return i === literal.length;
}

/**
 * Writes a value as JSON: what `parseJson` returns comes out as it was. Beyond `JSON.stringify` it takes bigint,
 * `JsonNumber`, `JsonText` and `Map`; where `JSON.stringify` would change a value in silence (NaN, Infinity, functions,
 * undefined in an array) it refuses.
 *
 * @throws JsonError naming the place, as a JSON Pointer
 */
export function stringifyJson(value: unknown): string {
  const text = write(value, '', 0);
  if (text === undefined) throw new JsonError(`${typeof value} is not a JSON value`);
  return text;
}

function write(value: unknown, path: string, depth: number): string | undefined {
  if (value === null) return 'null';
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return JSON.stringify(value);
    case 'bigint':
      return value.toString();
    case 'number':
      if (!Number.isFinite(value))
        throw new JsonError(`${value} is not a JSON value (at ${shown(path) || '/'})`);
      return Object.is(value, -0) ? '-0' : String(value);
    case 'undefined':
      return undefined;
    case 'object':
      return writeObject(value, path, depth);
    case 'function':
    case 'symbol':
      throw new JsonError(`a ${typeof value} is not a JSON value (at ${shown(path) || '/'})`);
  }
}

function writeObject(value: object, path: string, depth: number): string | undefined {
  if (value instanceof JsonText) {
    if (depth > 0) assertDepth(value.text, MAX_JSON_DEPTH - depth);
    return value.text;
  }
  if (value instanceof JsonNumber) {
    if (JSON_NUMBER.test(value.text)) return value.text;
    throw new JsonError(
      `${JSON.stringify(shown(value.text))} is not a JSON number (at ${shown(path) || '/'})`,
    );
  }
  if (hasToJson(value)) return write(value.toJSON(), path, depth);
  if (depth >= MAX_JSON_DEPTH) throw tooDeep();
  if (Array.isArray(value)) {
    const elements = Array.from(value, (element, index) => {
      const text = write(element, `${path}/${index}`, depth + 1);
      if (text === undefined)
        throw new JsonError(`undefined is not a JSON value (at ${shown(`${path}/${index}`)})`);
      return text;
    });
    return `[${elements.join(',')}]`;
  }
  const members: string[] = [];
  for (const [key, member] of value instanceof Map
    ? (value as Map<unknown, unknown>)
    : Object.entries(value)) {
    if (typeof key !== 'string')
      throw new JsonError(`a Map's keys must be strings (at ${shown(path) || '/'})`);
    const text = write(member, `${path}/${key}`, depth + 1);
    if (text !== undefined) members.push(`${JSON.stringify(key)}:${text}`);
  }
  return `{${members.join(',')}}`;
}

const JSON_NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

const hasToJson = (value: object): value is { toJSON(): unknown } =>
  'toJSON' in value && typeof value.toJSON === 'function';
