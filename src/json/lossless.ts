import { JSON_NUMBER, type JsonNumeric, numberOf } from './numbers.js';
import {
  CLOSE_BRACE,
  CLOSE_BRACKET,
  COMMA,
  endOfString,
  endOfValue,
  isDigit,
  LOWER_E,
  malformed,
  MAX_JSON_DEPTH,
  MINUS,
  OPEN_BRACE,
  OPEN_BRACKET,
  PLUS,
  POINT,
  QUOTE,
  skipSpace,
  tooDeep,
} from './scanner.js';
import { parseString } from './text.js';

export { JsonNumber, type JsonNumeric } from './numbers.js';
export { stringifyJson } from './stringify.js';

/** Any value `parseJson` returns. */
export type JsonValue =
  string | JsonNumeric | boolean | null | JsonValue[] | JsonObject | Map<string, JsonValue>;
/** Any JSON object. */
export interface JsonObject {
  [key: string]: unknown;
}

/**
 * Parses JSON without changing a number: see `JsonNumeric`. `__proto__` is a key like any other; of keys that stand twice
 * the last one counts.
 *
 * @param objects `map` keeps the order of every key; a plain object puts keys that look like array indexes first
 * @throws JsonError
 */
export function parseJson(text: string, objects: 'plain' | 'map' = 'plain'): JsonValue {
  const { replaced, literals } = withoutRiskyNumbers(text);
  let value: JsonValue;
  try {
    value = JSON.parse(replaced) as JsonValue;
  } catch (cause) {
    throw malformed(cause);
  }
  if (objects === 'map') return parseIntoMaps(text, { at: skipSpace(text, 0) });
  return literals.length > 0 ? withNumbers(value, literals) : value;
}

/** An integer of fewer digits is kept by JSON.parse as it is. */
const RISKY_LENGTH = 16;
const A_HALF = 0.5;

/**
 * The text with another number in place of each that JSON.parse might not keep: 0.5 for the first, 1.5 for the second, and so on. As
 * whatever has a fraction or an exponent is among them, no other number is like those.
 *
 * @throws JsonError nested too deep: whatever goes through the value relies on it
 */
function withoutRiskyNumbers(text: string): { replaced: string; literals: readonly string[] } {
  const literals: string[] = [];
  let replaced = '';
  let from = 0;
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === QUOTE) i = endOfString(text, i) - 1;
    else if (c === OPEN_BRACE || c === OPEN_BRACKET) {
      if (++depth > MAX_JSON_DEPTH) throw tooDeep();
    } else if (c === CLOSE_BRACE || c === CLOSE_BRACKET) depth--;
    else if (isDigit(c) || c === MINUS) {
      const start = i;
      let isRisky = false;
      for (let next = text.charCodeAt(++i); isOfNumber(next); next = text.charCodeAt(++i))
        isRisky ||= !isDigit(next);
      if (isRisky || i - start >= RISKY_LENGTH) {
        const literal = text.slice(start, i);
        // What is none is left for JSON.parse to refuse.
        if (JSON_NUMBER.test(literal)) {
          replaced += `${text.slice(from, start)}${literals.length + A_HALF}`;
          literals.push(literal);
          from = i;
        }
      }
      i--;
    }
  }
  return { replaced: from === 0 ? text : replaced + text.slice(from), literals };
}

/** Behind its first character. */
const isOfNumber = (c: number) =>
  isDigit(c) || c === MINUS || c === PLUS || c === POINT || (c | 0x20) === LOWER_E;

/** What JSON.parse has made of the text, with the numbers that stood there. */
function withNumbers(value: JsonValue, literals: readonly string[]): JsonValue {
  if (typeof value === 'number') return Number.isInteger(value) ? value : numberOf(literals[value - A_HALF]!);
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) value[index] = withNumbers(value[index]!, literals);
    return value;
  }
  const members = value as Record<string, JsonValue>;
  // `__proto__`, where it is a key, is a property of its own here, and stays one.
  for (const key of Object.keys(members)) {
    const member = members[key]!;
    if (typeof member === 'number' || typeof member === 'object') {
      const kept = withNumbers(member, literals);
      if (kept !== member) members[key] = kept;
    }
  }
  return value;
}

function parseIntoMaps(text: string, cursor: { at: number }): JsonValue {
  const c = text.charCodeAt(cursor.at);
  if (c === OPEN_BRACE) {
    const entries: [string, JsonValue][] = [];
    forEachItem(text, cursor, CLOSE_BRACE, () => {
      const keyEnd = endOfString(text, cursor.at);
      const key = parseString(text.slice(cursor.at, keyEnd));
      cursor.at = skipSpace(text, skipSpace(text, keyEnd) + 1);
      entries.push([key, parseIntoMaps(text, cursor)]);
    });
    return new Map(entries);
  }
  if (c === OPEN_BRACKET) {
    const array: JsonValue[] = [];
    forEachItem(text, cursor, CLOSE_BRACKET, () => array.push(parseIntoMaps(text, cursor)));
    return array;
  }
  const start = cursor.at;
  cursor.at = endOfValue(text, start);
  const literal = text.slice(start, cursor.at);
  return c === MINUS || isDigit(c) ? numberOf(literal) : parseLiteral(literal);
}

/** A string, true, false or null. */
const parseLiteral = (literal: string): JsonValue =>
  literal.charCodeAt(0) === QUOTE ? parseString(literal) : (JSON.parse(literal) as JsonValue);

function forEachItem(text: string, cursor: { at: number }, close: number, read: () => void): void {
  cursor.at = skipSpace(text, cursor.at + 1);
  while (text.charCodeAt(cursor.at) !== close) {
    read();
    cursor.at = skipSpace(text, cursor.at);
    if (text.charCodeAt(cursor.at) === COMMA) cursor.at = skipSpace(text, cursor.at + 1);
  }
  cursor.at++;
}
