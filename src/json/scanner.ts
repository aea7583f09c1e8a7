/** Arrays and objects inside one another at most; PostgreSQL's own limit depends on its `max_stack_depth`. */
export const MAX_JSON_DEPTH = 200;

/** The text is not JSON, or a value can't be written as JSON; the message says where and why. */
export class JsonError extends Error {
  /** Always `JsonError`. */
  override readonly name = 'JsonError';
}

/** The one way to say that something is nested too deep. */
export const tooDeep = () => new JsonError(`nested deeper than ${MAX_JSON_DEPTH} levels`);
/** The one way to say that a text is no JSON. */
export const MALFORMED = 'malformed JSON';
export const malformed = (cause?: unknown) => new JsonError(MALFORMED, cause === undefined ? {} : { cause });

export const QUOTE = 0x22;
export const BACKSLASH = 0x5c;
export const COMMA = 0x2c;
const COLON = 0x3a;
export const PLUS = 0x2b;
export const MINUS = 0x2d;
export const POINT = 0x2e;
export const ZERO = 0x30;
const NINE = 0x39;
export const LOWER_E = 0x65;
export const OPEN_BRACKET = 0x5b;
export const CLOSE_BRACKET = 0x5d;
export const OPEN_BRACE = 0x7b;
export const CLOSE_BRACE = 0x7d;

export const isSpace = (c: number) => c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09;
export const isDigit = (c: number) => c >= ZERO && c <= NINE;

/** Index of the first character from `i` on that is no white space. */
export function skipSpace(text: string, i: number): number {
  while (isSpace(text.charCodeAt(i))) i++;
  return i;
}

/**
 * Index after the JSON value (RFC 8259) that begins at `i`, white space before it skipped. Looks at each character once and keeps nothing, so that
 * checking a text costs the same whatever its shape; `JSON.parse` would make an object of each brace.
 *
 * @param depth arrays and objects that are open around it
 * @throws JsonError
 */
export function scanValue(text: string, i: number, depth = 0): number {
  /** What closes each array and object that is open. */
  const closers: number[] = [];
  for (;;) {
    i = skipSpace(text, i);
    const c = text.charCodeAt(i);
    if (c === OPEN_BRACE || c === OPEN_BRACKET) {
      if (depth + closers.length === MAX_JSON_DEPTH) throw tooDeep();
      // In ASCII what closes is two behind what opens.
      const closer = c + 2;
      i = skipSpace(text, i + 1);
      if (text.charCodeAt(i) !== closer) {
        closers.push(closer);
        if (closer === CLOSE_BRACE) i = scanKey(text, i);
        continue;
      }
      i++;
    } else i = scanScalar(text, i, c);
    for (;;) {
      const closer = closers[closers.length - 1];
      if (closer === undefined) return i;
      i = skipSpace(text, i);
      const next = text.charCodeAt(i++);
      if (next === closer) closers.pop();
      else if (next !== COMMA) throw malformed();
      else {
        if (closer === CLOSE_BRACE) i = scanKey(text, skipSpace(text, i));
        break;
      }
    }
  }
}

/** Checks that `text` is JSON (RFC 8259) of bounded depth. @throws JsonError */
export function assertJson(text: string): void {
  assertEnd(text, scanValue(text, 0));
}

/** @throws JsonError something but white space stands at `i` or behind */
export function assertEnd(text: string, i: number): void {
  if (skipSpace(text, i) !== text.length) throw malformed();
}

/** Index after a key and its colon. @throws JsonError */
export function scanKey(text: string, i: number): number {
  if (text.charCodeAt(i) !== QUOTE) throw malformed();
  i = skipSpace(text, scanString(text, i));
  if (text.charCodeAt(i) !== COLON) throw malformed();
  return i + 1;
}

/** Index after the string that opens at `i`. @throws JsonError */
function scanString(text: string, i: number): number {
  for (i++; ; i++) {
    const c = text.charCodeAt(i);
    if (c === QUOTE) return i + 1;
    if (c === BACKSLASH) i = scanEscape(text, i + 1);
    // NaN, behind the text's end, is not greater either.
    else if (!(c >= 0x20)) throw malformed();
  }
}

/** Index of the last character of the escape whose letter stands at `i`. */
function scanEscape(text: string, i: number): number {
  const letter = text.charAt(i);
  if (letter === 'u') {
    for (let digit = i + 1; digit <= i + 4; digit++)
      if (!isHexDigit(text.charCodeAt(digit))) throw malformed();
    return i + 4;
  }
  if (letter === '' || !'"\\/bfnrt'.includes(letter)) throw malformed();
  return i;
}

function isHexDigit(c: number): boolean {
  const lower = c | 0x20;
  return isDigit(c) || (lower >= 0x61 && lower <= 0x66);
}

function scanScalar(text: string, i: number, c: number): number {
  if (c === QUOTE) return scanString(text, i);
  if (c === MINUS || isDigit(c)) return scanNumber(text, i);
  for (const literal of ['true', 'false', 'null']) if (text.startsWith(literal, i)) return i + literal.length;
  throw malformed();
}

function scanNumber(text: string, i: number): number {
  if (text.charCodeAt(i) === MINUS) i++;
  i = text.charCodeAt(i) === ZERO ? i + 1 : scanDigits(text, i);
  if (text.charCodeAt(i) === POINT) i = scanDigits(text, i + 1);
  if ((text.charCodeAt(i) | 0x20) !== LOWER_E) return i;
  const sign = text.charCodeAt(i + 1);
  return scanDigits(text, sign === PLUS || sign === MINUS ? i + 2 : i + 1);
}

/** At least one. */
function scanDigits(text: string, i: number): number {
  const start = i;
  while (isDigit(text.charCodeAt(i))) i++;
  if (i === start) throw malformed();
  return i;
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
