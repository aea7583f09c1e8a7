import { shown } from '../errors/shown.js';

/** Arrays and objects inside one another at most; PostgreSQL's own limit depends on its `max_stack_depth`. */
export const MAX_JSON_DEPTH = 200;

/** The text is not JSON, or a value can't be written as JSON; the message says where and why. */
export class JsonError extends Error {
  override readonly name = 'JsonError';
}

/** The one way to say that something is nested too deep. */
export const tooDeep = () => new JsonError(`nested deeper than ${MAX_JSON_DEPTH} levels`);

/**
 * JSON as text, exactly as it came or will be stored. Whatever takes a JSON value takes it as one, and hands it on
 * unread.
 */
export class JsonText {
  private constructor(readonly text: string) {}

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
}

/** Checks that `text` is JSON (RFC 8259) of bounded depth. @throws JsonError */
export function assertJson(text: string): void {
  parsePlain(text);
}

/** What JSON.parse makes of `text`, numbers rounded and all, once its depth is known to be bounded. @throws JsonError */
export function parsePlain(text: string): unknown {
  // Depth first: it needs no valid JSON and protects whatever recurses later.
  assertDepth(text, MAX_JSON_DEPTH);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new JsonError('malformed JSON', { cause });
  }
}

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

/**
 * The members of the object in `json`, each value as the text it was written as.
 *
 * @returns undefined when it is JSON but no object
 * @throws JsonError when it is no JSON, or a member stands twice
 */
export function readMembers(json: string | JsonText): Map<string, JsonText> | undefined {
  const text = checkedText(json);
  let i = skipSpace(text, 0);
  if (text.charCodeAt(i) !== OPEN_BRACE) return undefined;
  const members = new Map<string, JsonText>();
  i = skipSpace(text, i + 1);
  while (text.charCodeAt(i) !== CLOSE_BRACE) {
    const keyEnd = endOfString(text, i);
    const key = JSON.parse(text.slice(i, keyEnd)) as string;
    if (members.has(key)) throw new JsonError(`the member "${shown(key)}" stands twice`);
    const start = skipSpace(text, skipSpace(text, keyEnd) + 1);
    const end = endOfValue(text, start);
    members.set(key, JsonText.ofChecked(text.slice(start, end)));
    i = skipSpace(text, end);
    if (text.charCodeAt(i) === COMMA) i = skipSpace(text, i + 1);
  }
  return members;
}

/** The elements of the array in `json`, each as text; undefined when it is no array. @throws JsonError */
export function readElements(json: string | JsonText): JsonText[] | undefined {
  const text = checkedText(json);
  let i = skipSpace(text, 0);
  if (text.charCodeAt(i) !== OPEN_BRACKET) return undefined;
  const elements: JsonText[] = [];
  i = skipSpace(text, i + 1);
  while (text.charCodeAt(i) !== CLOSE_BRACKET) {
    const end = endOfValue(text, i);
    elements.push(JsonText.ofChecked(text.slice(i, end)));
    i = skipSpace(text, end);
    if (text.charCodeAt(i) === COMMA) i = skipSpace(text, i + 1);
  }
  return elements;
}

/** A JsonText has been checked, be it as part of another. */
function checkedText(json: string | JsonText): string {
  if (json instanceof JsonText) return json.text;
  assertJson(json);
  return json;
}

/** True when both texts are the same JSON but for white space between its tokens. */
export function sameJson(a: string, b: string): boolean {
  return a === b || tokens(a) === tokens(b);
}

const tokens = (text: string) => text.match(/"(?:[^"\\]|\\.)*"|[^\s"]+/g)?.join('');

export const QUOTE = 0x22;
const BACKSLASH = 0x5c;
export const COMMA = 0x2c;
export const MINUS = 0x2d;
export const ZERO = 0x30;
export const NINE = 0x39;
export const OPEN_BRACKET = 0x5b;
export const CLOSE_BRACKET = 0x5d;
export const OPEN_BRACE = 0x7b;
export const CLOSE_BRACE = 0x7d;

/** Index of the first character from `i` on that is no white space. */
export function skipSpace(text: string, i: number): number {
  for (;;) {
    const c = text.charCodeAt(i);
    if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return i;
    i++;
  }
}

/** Index after the closing quote of the string that opens at `i`; the text's length when it never closes. */
export function endOfString(text: string, i: number): number {
  for (i++; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === BACKSLASH) i++;
    else if (c === QUOTE) return i + 1;
  }
  return text.length;
}

/** Index after the value that begins at `i`, in a text that is valid JSON. */
export function endOfValue(text: string, i: number): number {
  let depth = 0;
  for (; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === QUOTE) {
      i = endOfString(text, i) - 1;
      if (depth === 0) return i + 1;
    } else if (c === OPEN_BRACE || c === OPEN_BRACKET) depth++;
    else if (c === CLOSE_BRACE || c === CLOSE_BRACKET) {
      if (depth === 0) return i;
      if (--depth === 0) return i + 1;
    } else if (depth === 0 && (c === COMMA || c <= 0x20)) return i;
  }
  return i;
}
