import { isDigit, MINUS, ZERO } from './scanner.js';
import { rawJSON } from './text.js';

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
/** A JSON number. */
export const JSON_NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/** Making a bigint, and writing it, takes the square of its digits. */
const BIGINT_DIGITS = 1000;
/** Such a number is kept as it is, if it is an integer. */
const SAFE_DIGITS = 15;

/** @param literal a JSON number */
export function numberOf(literal: string): JsonNumeric {
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
