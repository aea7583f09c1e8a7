import { endOfString, isDigit, MINUS, QUOTE, ZERO } from './scanner.js';
import { sameJson } from './text.js';
import { JsonNumber, type JsonNumeric, type JsonValue, parseJson } from './lossless.js';

/** What PostgreSQL's `numeric`, and so a number in `jsonb`, holds at most: digits before and behind the point. */
const DIGITS_BEFORE = 131_072;
const DIGITS_BEHIND = 16_383;
/** Beyond it the server does not look at the digits any more. */
const LARGEST_EXPONENT = 2 ** 30;
/** `9e9999` has ten thousand digits; shorter numbers fit. */
const SHORT_NUMBER = 5;
const NUMBER = /^-?(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/;

/**
 * Why a column of type `jsonb` can't hold JSON that is valid otherwise; undefined when it can. It keeps characters and
 * numbers where `json` keeps their spelling.
 */
export function jsonbRefusal(json: string): string | undefined {
  if (json.includes('\\u')) {
    const refusal = refusedEscape(json);
    if (refusal) return `${refusal}: the column data is jsonb, which can't hold it`;
  }
  if (!hasNumberBeyond(json)) return undefined;
  return `must hold no number beyond ${DIGITS_BEFORE} digits before and ${DIGITS_BEHIND} behind the point: the column data is jsonb`;
}

/** Each character is looked at once or twice: a regular expression that looks for long numbers begins anew at every digit. */
function hasNumberBeyond(json: string): boolean {
  for (let i = 0; i < json.length; i++) {
    const c = json.charCodeAt(i);
    if (c === QUOTE) i = endOfString(json, i) - 1;
    else if (isDigit(c)) {
      const end = endOfNumber(json, i);
      // A short one without a large exponent fits.
      if (end - i > SHORT_NUMBER && !fitsNumeric(json.slice(i, end))) return true;
      i = end - 1;
    }
  }
  return false;
}

/** Index after the digits, points, signs and exponents from `i` on. */
function endOfNumber(json: string, i: number): number {
  for (;;) {
    const c = json.charCodeAt(i);
    if (!isDigit(c) && c !== 0x2e && c !== 0x2b && c !== MINUS && (c | 0x20) !== 0x65) return i;
    i++;
  }
}

/** A surrogate pair has to be written as two escapes in a row: the text itself is well formed. */
function refusedEscape(json: string): string | undefined {
  let highEndsAt = -1;
  for (let i = json.indexOf('\\'); i !== -1; i = json.indexOf('\\', i)) {
    const isCode = json.charAt(i + 1) === 'u';
    const end = i + (isCode ? 6 : 2);
    const code = isCode ? parseInt(json.slice(i + 2, end), 16) : 0x20;
    const isLow = code >= 0xdc00 && code <= 0xdfff;
    if (code === 0) return 'must not contain \\u0000';
    if (highEndsAt >= 0 ? !isLow || highEndsAt !== i : isLow) return LONE_SURROGATE;
    highEndsAt = code >= 0xd800 && code <= 0xdbff ? end : -1;
    i = end;
  }
  return highEndsAt >= 0 ? LONE_SURROGATE : undefined;
}

const LONE_SURROGATE = 'must not contain a lone surrogate';

function fitsNumeric(literal: string): boolean {
  const [, whole = '', fraction = '', exponentText = '0'] = NUMBER.exec(literal)!;
  const exponent = Number(exponentText);
  if (Math.abs(exponent) >= LARGEST_EXPONENT || fraction.length - exponent > DIGITS_BEHIND) return false;
  const leadingZeros = /^0*/.exec(whole + fraction)![0].length;
  const isZero = leadingZeros === whole.length + fraction.length;
  return isZero || whole.length - leadingZeros + exponent <= DIGITS_BEFORE;
}

/**
 * True when `jsonb` takes both texts for the same value: whatever the order of keys, with the last of keys that stand twice,
 * numbers by their value.
 */
export const sameJsonb = (a: string, b: string): boolean =>
  sameJson(a, b) || sameValue(parseJson(a, 'map'), parseJson(b, 'map'));

function sameValue(a: JsonValue, b: JsonValue): boolean {
  if (a === b) return true;
  if (a instanceof Map)
    return (
      b instanceof Map &&
      a.size === b.size &&
      [...a].every(([key, member]) => b.has(key) && sameValue(member, b.get(key)!))
    );
  if (Array.isArray(a))
    return Array.isArray(b) && a.length === b.length && a.every((item, index) => sameValue(item, b[index]!));
  return isNumeric(a) && isNumeric(b) && canonicalNumber(a) === canonicalNumber(b);
}

const isNumeric = (value: JsonValue): value is JsonNumeric =>
  typeof value === 'number' || typeof value === 'bigint' || value instanceof JsonNumber;

/** Its digits without zeros around them, and the power of ten behind. */
function canonicalNumber(number: JsonNumeric): string {
  const literal = String(number);
  const [, whole = '', fraction = '', exponent = '0'] = NUMBER.exec(literal)!;
  const digits = (whole + fraction).replace(/^0+/, '');
  let end = digits.length;
  while (digits.charCodeAt(end - 1) === ZERO) end--;
  if (end === 0) return '0';
  const power = Number(exponent) - fraction.length + digits.length - end;
  return `${literal.startsWith('-') ? '-' : ''}${digits.slice(0, end)}e${power}`;
}
