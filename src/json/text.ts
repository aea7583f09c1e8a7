// json/: JSON as text: checked, parsed, merged and compared without changing a number, key or escape.
// Promises: work is linear in the bytes, whatever their shape; what goes through many elements lets other requests run.
// May know: bytes and errors/; neither people nor a database.

import { shown } from '../errors/shown.js';
import {
  assertEnd,
  assertJson,
  BACKSLASH,
  CLOSE_BRACE,
  CLOSE_BRACKET,
  COMMA,
  endOfString,
  JsonError,
  malformed,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
  scanKey,
  scanValue,
  skipSpace,
  tooDeep,
} from './scanner.js';

export { JsonError, MAX_JSON_DEPTH } from './scanner.js';

/**
 * JSON as text, exactly as it came or will be stored. Whatever takes a JSON value takes it as one, and hands it on
 * unread.
 */
export class JsonText {
  private constructor(
    /** The JSON, letter by letter. */
    readonly text: string,
  ) {}

  /** @throws JsonError when `text` is no JSON, or holds a lone surrogate that UTF-8 can't carry (write it as `\\ud800`) */
  static of(text: string): JsonText {
    if (!text.isWellFormed()) throw new JsonError('JSON text with a lone surrogate outside of an escape');
    assertJson(text);
    return new JsonText(text);
  }

  /** For a part of a text that has been checked already. */
  static ofChecked(text: string): JsonText {
    return new JsonText(text);
  }

  /**
   * For JSON.stringify, as frameworks call it: the same JSON, and each number as it is written. Before Node 22 that can't write a number
   * that JavaScript has not: it becomes the nearest; `stringifyJson` keeps it.
   */
  toJSON(): unknown {
    if (!rawJSON) return JSON.parse(this.text);
    const asWritten = (_: string, value: unknown, { source }: { source?: string } = {}) =>
      typeof value === 'number' && source !== undefined ? rawJSON(source) : value;
    return JSON.parse(this.text, asWritten);
  }
}

/** Has JSON.stringify write a number, or another primitive, as it is in `text`; undefined before Node 22. */
export const { rawJSON } = JSON as { rawJSON?: (text: string) => unknown };

/** @throws JsonError `text` has more than `levels` arrays and objects inside one another */
export function assertDepth(text: string, levels: number): void {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === QUOTE) i = endOfString(text, i) - 1;
    else if (c === OPEN_BRACE || c === OPEN_BRACKET) {
      if (++depth > levels) throw tooDeep();
    } else if (c === CLOSE_BRACE || c === CLOSE_BRACKET) depth--;
  }
}

/** No input has more members; what stands behind them is counted. */
const MEMBERS_AT_MOST = 1000;

/** The members of an object, each value as the text it was written as, and how many there are beside the first thousand. */
export interface Members {
  members: Map<string, JsonText>;
  more: number;
}

/**
 * The members of the object in `json`.
 *
 * @returns undefined when it is JSON but no object
 * @throws JsonError when it is no JSON, or one of the first thousand members stands twice
 */
export function readMembers(json: string | JsonText): Members | undefined {
  const text = json instanceof JsonText ? json.text : json;
  let i = skipSpace(text, 0);
  if (text.charCodeAt(i) !== OPEN_BRACE) {
    assertJson(text);
    return undefined;
  }
  const members = new Map<string, JsonText>();
  let more = 0;
  i = skipSpace(text, i + 1);
  while (text.charCodeAt(i) !== CLOSE_BRACE) {
    const valueAt = skipSpace(text, scanKey(text, i));
    const end = scanValue(text, valueAt, 1);
    if (members.size === MEMBERS_AT_MOST) more++;
    else {
      const key = parseString(text.slice(i, endOfString(text, i)));
      if (members.has(key)) throw new JsonError(`the member "${shown(key)}" stands twice`);
      members.set(key, JsonText.ofChecked(text.slice(valueAt, end)));
    }
    i = skipSpace(text, end);
    if (text.charCodeAt(i) !== COMMA) break;
    i = skipSpace(text, i + 1);
    if (text.charCodeAt(i) === CLOSE_BRACE) throw malformed();
  }
  if (text.charCodeAt(i) !== CLOSE_BRACE) throw malformed();
  assertEnd(text, i + 1);
  return { members, more };
}

/** What a JSON string says. @param literal checked already; most have no escape, and JSON.parse is slow for many short texts */
export const parseString = (literal: string): string =>
  literal.includes('\\') ? (JSON.parse(literal) as string) : literal.slice(1, -1);

/** True when both texts are the same JSON but for white space between its tokens. */
export function sameJson(a: string, b: string): boolean {
  if (a === b) return true;
  let [i, j] = [skipSpace(a, 0), skipSpace(b, 0)];
  for (let inString = false; i < a.length && j < b.length; i++, j++) {
    if (!inString) [i, j] = [skipSpace(a, i), skipSpace(b, j)];
    const c = a.charCodeAt(i);
    if (c !== b.charCodeAt(j)) return i >= a.length && j >= b.length;
    if (c === QUOTE) inString = !inString;
    else if (c === BACKSLASH && a.charCodeAt(++i) !== b.charCodeAt(++j)) return false;
  }
  return skipSpace(a, i) >= a.length && skipSpace(b, j) >= b.length;
}
