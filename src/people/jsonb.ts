import { JsonNumber, type JsonValue, parseJson } from './lossless-json.js';

/** What PostgreSQL's `numeric`, and so a number in `jsonb`, holds at most: digits before and behind the point. */
const DIGITS_BEFORE = 131_072;
const DIGITS_BEHIND = 16_383;
/** Beyond it the server does not look at the digits any more. */
const LARGEST_EXPONENT = 2 ** 30;

const ESCAPE = /\\(?:u([\da-fA-F]{4})|.)/g;
// A large exponent, or very many digits. May match inside strings too, which only costs time.
const NUMBER_AT_RISK = /[eE][+-]?\d{4}|[\d.]{16384}/;
const STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g;
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
  if (!NUMBER_AT_RISK.test(json)) return undefined;
  const isTooLarge = (token: string) => !token.startsWith('"') && !fitsNumeric(token);
  if (!json.match(STRING_OR_NUMBER)?.some(isTooLarge)) return undefined;
  return `must hold no number beyond ${DIGITS_BEFORE} digits before and ${DIGITS_BEHIND} behind the point: the column data is jsonb`;
}

/** A surrogate pair has to be written as two escapes in a row: the text itself is well formed. */
function refusedEscape(json: string): string | undefined {
  let highEndsAt = -1;
  for (const { 0: escape, 1: hex, index } of json.matchAll(ESCAPE)) {
    const code = hex === undefined ? 0x20 : parseInt(hex, 16);
    const isLow = code >= 0xdc00 && code <= 0xdfff;
    if (code === 0) return 'must not contain \\u0000';
    if (highEndsAt >= 0 ? !isLow || highEndsAt !== index : isLow) return LONE_SURROGATE;
    highEndsAt = code >= 0xd800 && code <= 0xdbff ? index + escape.length : -1;
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
export function sameJsonb(a: string, b: string): boolean {
  return canonical(parseJson(a, 'map')) === canonical(parseJson(b, 'map'));
}

function canonical(value: JsonValue): string {
  if (value instanceof Map) {
    const members = [...value].map(([key, member]) => `${JSON.stringify(key)}:${canonical(member)}`);
    return `{${members.sort().join(',')}}`;
  }
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  const isNumber = typeof value === 'number' || typeof value === 'bigint' || value instanceof JsonNumber;
  return isNumber ? canonicalNumber(String(value)) : JSON.stringify(value);
}

/** Its digits without zeros around them, and the power of ten behind. */
function canonicalNumber(literal: string): string {
  const [, whole = '', fraction = '', exponent = '0'] = NUMBER.exec(literal)!;
  const digits = (whole + fraction).replace(/^0+/, '');
  const significant = digits.replace(/0+$/, '');
  if (significant === '') return '0';
  const power = Number(exponent) - fraction.length + digits.length - significant.length;
  return `${literal.startsWith('-') ? '-' : ''}${significant}e${power}`;
}
