import fc, { type Arbitrary } from 'fast-check';
import { JsonNumber } from '../../src/index.js';

/** The same examples in every run; SEED=<number> tries others. fast-check names seed and path when it fails. */
export const RUN = { seed: Number(process.env.SEED ?? 20_260_101), endOnFailure: false };
console.info(`fast-check seed ${RUN.seed}`);

/** What JSON.parse, jsonb or a plain object would change. */
export const surprises = [
  '{"many_many_fields":18446744073709551615,"dict":{"first":"a","second":"b"}}',
  '{"n":9007199254740993,"m":-9223372036854775808,"big":123456789012345678901234567890}',
  '{"n":1.0,"m":1.10,"tiny":0.10000000000000000000001,"pi":3.14159265358979323846264338327950288}',
  '{"n":1e400,"m":-1E-400,"k":1e+2,"l":1.5E3,"z":-0,"y":-0.0,"x":0e0}',
  '{"10":1,"9":2,"b":3,"a":4,"-1":5,"01":6}',
  '{"__proto__":{"admin":true},"constructor":{"prototype":1},"toString":"x","hasOwnProperty":null}',
  '{"a":1,"a":2,"\\u0061":3}',
  '{"nul":"\\u0000","high":"\\ud800","low":"\\udfff","pair":"\\ud83d\\ude00","slash":"\\/","\\u0000":1,"\\uD800":2}',
  '{"raw":"😀 é e\u0301 \u2028\u2029\ufeff\u007f","escaped":"\\u00e9\\b\\f\\n\\r\\t\\"\\\\"}',
  '{\n\t"spaced" : [ 1 , 2 ] , "":{ } }',
  '{"":""}',
  '{}',
];

const digits = (min: number, max: number) =>
  fc.array(fc.nat(9), { minLength: min, maxLength: max }).map((all) => all.join(''));
const integer = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(String),
  fc.bigInt({ min: -(2n ** 80n), max: 2n ** 80n }).map(String),
  fc.integer().map(String),
  fc.constantFrom(
    '0',
    '-0',
    '18446744073709551615',
    '9007199254740993',
    '10000000000000000',
    '-9223372036854775808',
  ),
);
const sign = fc.constantFrom('', '+', '-');
const exponent = fc.tuple(fc.constantFrom('e', 'E'), sign, digits(1, 3)).map((parts) => parts.join(''));
const number = fc
  .tuple(integer, fc.option(digits(1, 30)), fc.option(exponent))
  .map(([whole, fraction, power]) => whole + (fraction === null ? '' : `.${fraction}`) + (power ?? ''));

/** A character of a JSON string as it may be written: itself, or one of its escapes. */
const character = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .string({ minLength: 1, maxLength: 3, unit: 'binary' })
      .map((raw) => JSON.stringify(raw).slice(1, -1)),
  },
  fc.nat(0xffff).map((code) => `\\u${code.toString(16).padStart(4, '0')}`),
  fc.nat(0xffff).map((code) => `\\u${code.toString(16).padStart(4, '0').toUpperCase()}`),
  fc.constantFrom(
    '\\u0000',
    '\\ud800',
    '\\udfff',
    '\\ud83d\\ude00',
    '\\/',
    '\\"',
    '\\\\',
    '\\b',
    '\\n',
    '\\t',
    '-0 1.0',
  ),
);
const string = fc.array(character, { maxLength: 8 }).map((all) => `"${all.join('')}"`);
const key = fc.oneof(
  string,
  fc.nat(20).map((index) => `"${index}"`),
  fc.constantFrom('"__proto__"', '"constructor"', '"toString"', '"toJSON"', '"a"', '"text"', '""'),
);
const space = fc.constantFrom('', '', '', ' ', '\n', '\t ', '\r\n');

const list = (open: string, items: Arbitrary<string>, close: string) =>
  fc
    .tuple(
      fc.array(
        fc.tuple(space, items, space).map((parts) => parts.join('')),
        { maxLength: 5 },
      ),
      space,
    )
    .map(([all, inside]) => open + (all.length > 0 ? all.join(',') : inside) + close);
const member = (value: Arbitrary<string>) =>
  fc.tuple(key, space, fc.constant(':'), space, value).map((parts) => parts.join(''));
/** Duplicate keys included. */
const object = (value: Arbitrary<string>) => list('{', member(value), '}');

const value = fc.letrec<{ value: string }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.oneof(number, string, fc.constantFrom('true', 'false', 'null')),
    list('[', tie('value'), ']'),
    object(tie('value')),
    // Far down, but within the bound.
    fc
      .tuple(fc.integer({ min: 1, max: 30 }), tie('value'))
      .map(([levels, inner]) => '['.repeat(levels) + inner + ']'.repeat(levels)),
  ),
})).value;

/** The text of any JSON object. */
export const dataText = object(value).filter((text) => depthOf(text) <= 199);

function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{}]/gs)) {
    if (token === '[' || token === '{') deepest = Math.max(deepest, ++depth);
    else if (token === ']' || token === '}') depth--;
  }
  return deepest;
}

/** A value as a program gives it, and as it gets it back. */
export interface Pair {
  given: unknown;
  expected: unknown;
}
const same = (arbitrary: Arbitrary<unknown>) => arbitrary.map((it): Pair => ({ given: it, expected: it }));
const isSafe = (big: bigint) => Number.isSafeInteger(Number(big));
const names = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('__proto__', 'constructor', '1', '0', '\ud800', '\0'),
);

const pair = fc.letrec<{ pair: Pair }>((tie) => ({
  pair: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    same(
      fc.oneof(
        fc.boolean(),
        fc.constant(null),
        fc.string({ unit: 'binary' }),
        fc.constantFrom('\ud800', '\udfff\0'),
      ),
    ),
    same(fc.oneof(fc.maxSafeInteger(), fc.constantFrom(-0, 1e21, 5e-324, Number.MAX_VALUE))),
    same(fc.double({ noNaN: true, noDefaultInfinity: true }).filter((it) => !Number.isInteger(it))),
    same(
      fc
        .constantFrom('1.0', '1e400', '-0.0', '0.10000000000000000000001')
        .map((text) => new JsonNumber(text)),
    ),
    // A bigint that a number holds exactly comes back as one.
    fc
      .bigInt({ min: -(2n ** 70n), max: 2n ** 70n })
      .map((given) => ({ given, expected: isSafe(given) ? Number(given) : given })),
    fc
      .array(tie('pair'), { maxLength: 4 })
      .map((all) => ({ given: all.map((it) => it.given), expected: all.map((it) => it.expected) })),
    record(tie('pair')),
  ),
})).pair;

function record(member: Arbitrary<Pair>): Arbitrary<Pair> {
  return fc
    .tuple(fc.array(fc.tuple(names, member), { maxLength: 4 }), fc.boolean())
    .map(([members, asMap]) => {
      const given = members.map(([name, { given }]) => [name, given] as const);
      return {
        given: asMap ? new Map(given) : Object.fromEntries(given),
        expected: Object.fromEntries(members.map(([name, { expected }]) => [name, expected])),
      };
    });
}

/** `data` as objects and Maps. */
export const dataValue = record(pair);
