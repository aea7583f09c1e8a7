/** Data that jsonb can't hold, as it is written in a request, and what is said of it. */
export const REFUSED: [json: string, detail: RegExp][] = [
  ['{"a":"\\u0000"}', /must not contain \\u0000/],
  ['{"\\u0000":1}', /must not contain \\u0000/],
  ['{"a":{"b":["x\\u0000y"]}}', /must not contain \\u0000/],
  ['{"a":"\\\\\\u0000"}', /must not contain \\u0000/],
  ['{"a":"\\ud83d"}', /lone surrogate/],
  ['{"a":"\\ude00"}', /lone surrogate/],
  ['{"a":"\\ude00\\ud83d"}', /lone surrogate/],
  ['{"a":"\\ud83dx\\ude00"}', /lone surrogate/],
  ['{"a":"\\ud83d\\n\\ude00"}', /lone surrogate/],
  ['{"\\uD83D":1}', /lone surrogate/],
  ['{"a":1e131072}', /131072 digits before/],
  ['{"a":-0.1E+131073}', /131072 digits before/],
  ['{"a":1e-16384}', /16383 behind/],
  ['{"a":0e-20000}', /16383 behind/],
  ['{"a":1e99999999999}', /131072 digits before/],
  [`{"a":0.${'1'.repeat(16_384)}}`, /16383 behind/],
];

/** What it holds, and as what. */
export const KEPT: [json: string, stored: string][] = [
  ['{"b":1,"a":2}', '{"a": 2, "b": 1}'],
  ['{"long":1,"b":2,"a":1,"a":3}', '{"a": 3, "b": 2, "long": 1}'],
  ['{"n":18446744073709551615}', '{"n": 18446744073709551615}'],
  ['{"n":[1.0,1.50,1e2,1.5e1,-0,0.10000000000000000001]}', '{"n": [1.0, 1.50, 100, 15, 0, 0.10000000000000000001]}'],
  ['{"n":1e400}', `{"n": 1${'0'.repeat(400)}}`],
  ['{"n":9e131071}', `{"n": 9${'0'.repeat(131_071)}}`],
  ['{"n":0e200000}', '{"n": 0}'],
  ['{"s":"\\u00e9 \\ud83d\\ude00 \\/ \\\\u0000"}', '{"s": "é 😀 / \\\\u0000"}'],
  ['{"__proto__":{"a":1},"2":1,"10":2}', '{"2": 1, "10": 2, "__proto__": {"a": 1}}'],
  ['{"a":null,"b":[],"c":{},"d":true,"e":""}', '{"a": null, "b": [], "c": {}, "d": true, "e": ""}'],
]; // prettier-ignore
