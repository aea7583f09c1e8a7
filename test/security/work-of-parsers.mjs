// Counts the steps that each parser of the built package takes for inputs of one shape and several sizes. Steps are the counts of V8's
// blocks: they are the same on a slow machine as on a fast one. Prints one line of JSON a parser and shape: its steps for each size.
import { Session } from 'node:inspector/promises';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import 'reflect-metadata';

const dist = new URL('../../dist/src/', import.meta.url);
const load = (file) => import(new URL(file, dist).href);
const [
  scanner,
  text,
  lossless,
  merge,
  jsonb,
  array,
  input,
  ndjson,
  dto,
  preconditions,
  identity,
  url,
  pipe,
  guard,
] = await Promise.all([
  load('json/scanner.js'),
  load('json/text.js'),
  load('json/lossless.js'),
  load('json/merge.js'),
  load('json/jsonb.js'),
  load('json/array.js'),
  load('json/input.js'),
  load('json/ndjson.js'),
  load('people/person.dto.js'),
  load('people/http/preconditions.js'),
  load('messaging/message-identity.js'),
  load('database/database-url.js'),
  load('people/messages/input.pipe.js'),
  load('app/http/bearer-token.guard.js'),
]);

/** Sizes in characters, of which the larger ones are compared to the smallest. */
const SIZES = [10_000, 30_000];
const SEED = 20260101;

const fill = (unit, size) => unit.repeat(Math.max(1, Math.floor(size / unit.length)));
const list = (unit, size) => fill(`${unit},`, size).slice(0, -1);
const numbered = (size, member) => Array.from({ length: Math.floor(size / 8) }, (_, n) => member(n)).join();

/** JSON of about `size` characters. */
const jsonShapes = {
  'a string': (size) => `{"a":"${fill('x', size)}"}`,
  digits: (size) => `{"a":${fill('9', size)}}`,
  'a fraction': (size) => `{"a":0.${fill('9', size)}}`,
  'zeros and a one': (size) => `{"a":1${fill('0', size)}1}`,
  'an exponent': (size) => `{"a":1e${fill('9', size)}}`,
  'runs of digits': (size) => `{"a":[${list('9'.repeat(1999), size)}]}`,
  escapes: (size) => `{"a":"${fill('\\n', size)}"}`,
  'escaped surrogates': (size) => `{"a":"${fill('\\ud83d\\ude00', size)}"}`,
  backslashes: (size) => `{"a":"${fill('\\\\', size)}"}`,
  numbers: (size) => `{"a":[${list('0', size)}]}`,
  strings: (size) => `{"a":[${list('"b"', size)}]}`,
  'empty objects': (size) => `{"a":[${list('{}', size)}]}`,
  'empty arrays': (size) => `{"a":[${list('[]', size)}]}`,
  keys: (size) => `{${numbered(size, (n) => `"${n}x":0`)}}`,
  'keys of an inner object': (size) => `{"data":{${numbered(size, (n) => `"${n}":0`)}}}`,
  'one key over and over': (size) => `{"data":{${list('"a":0', size)}}}`,
  'a long key': (size) => `{"${fill('k', size)}":0}`,
  'white space': (size) => `{"a":${fill(' \n', size)}0}`,
  'a long string deep down': (size) => `{"a":${'['.repeat(190)}"${fill('x', size)}"${']'.repeat(190)}}`,
  'deep objects': (size) => `{"a":[${list(`${'{"b":'.repeat(190)}0${'}'.repeat(190)}`, size)}]}`,
  'brackets without end': (size) => fill('[', size),
  quotes: (size) => fill('"', size),
  commas: (size) => `[${fill(',', size)}`,
};
for (const [n, unit] of fc.sample(fc.json(), { numRuns: 12, seed: SEED }).entries())
  jsonShapes[`any JSON ${n}`] = (size) => `{"data":[${list(unit, size)}]}`;

const textShapes = Object.fromEntries(
  [
    'x',
    ' ',
    ',',
    '"',
    '"a",',
    'W/',
    '9',
    '9.',
    '/',
    '@',
    ':',
    'a:1,',
    '%',
    '=',
    'A',
    '\ud800',
    '😀',
    '\t',
    '.',
    'Bearer ',
  ].map((unit) => [`${JSON.stringify(unit)} over and over`, (size) => fill(unit, size)]),
);

const person = { version: '1.0.1' };
const place = { what: 'the body', pointer: '#', elementBytes: 1e9, known: dto.INPUT_MEMBERS };
const goThrough = async (iterable) => {
  for await (const each of iterable) void each;
};
const chunks = (body, length) => {
  const bytes = Buffer.from(body);
  return Readable.from(
    Array.from({ length: Math.ceil(bytes.length / length) }, (_, n) =>
      bytes.subarray(n * length, (n + 1) * length),
    ),
  );
};
const bearer = new guard.BearerTokenGuard(
  { method: 'jwt', secret: 'x'.repeat(32) },
  { httpAdapter: { setHeader() {} } },
);
const requestWith = (authorization) => ({
  getClass: () => Object,
  switchToHttp: () => ({
    getRequest: () => ({ method: 'GET', headers: { authorization } }),
    getResponse: () => ({}),
  }),
});
const headersOf = (value) => ({ 'message-id': Buffer.from(value), ce_id: value, ce_source: [value, value] });

const json = {
  assertJson: (body) => scanner.assertJson(body),
  readMembers: (body) => text.readMembers(body),
  assertDepth: (body) => text.assertDepth(body, 200),
  parseJson: (body) => lossless.parseJson(body),
  'parseJson into Maps': (body) => lossless.parseJson(body, 'map'),
  stringifyJson: (body) => lossless.stringifyJson(lossless.parseJson(body, 'map')),
  sameJson: (body) => text.sameJson(body, `${body} `),
  mergeJson: (body) => (JSON.parse(body), merge.mergeJson(body, body)),
  jsonbRefusal: (body) => (JSON.parse(body), jsonb.jsonbRefusal(body)),
  sameJsonb: (body) => jsonb.sameJsonb(body, body.replace('{', '{"z":1,')),
  readJsonObject: (body) => input.readJsonObject(Buffer.from(body), 'the body', dto.INPUT_MEMBERS),
  validateInput: (body) =>
    dto.validateInput(
      dto.CreatePersonDto,
      input.readJsonObject(Buffer.from(body), 'the body', dto.INPUT_MEMBERS),
    ),
  'MessageInputPipe, parsed before': (body) => new pipe.MessageInputPipe().transform(JSON.parse(body)),
  jsonArray: (body) => goThrough(array.jsonArray(Buffer.from(`[${body}]`), place)),
  'jsonArray of many': (body) =>
    goThrough(array.jsonArray(Buffer.from(body.replace(/^\{"[a-z]+":/, '').slice(0, -1)), place)),
  'NdjsonReader in one chunk': (body) =>
    goThrough(new ndjson.NdjsonReader(chunks(body, 1e9), dto.INPUT_MEMBERS, 1e9)),
  'NdjsonReader byte by byte': (body) =>
    goThrough(new ndjson.NdjsonReader(chunks(body, 1), dto.INPUT_MEMBERS, 1e9)),
};
const texts = {
  'NdjsonReader of blank lines': (body) =>
    goThrough(new ndjson.NdjsonReader(chunks(body.replace(/./gsu, '\n'), 1000), dto.INPUT_MEMBERS)),
  'NdjsonReader of white space': (body) =>
    goThrough(new ndjson.NdjsonReader(chunks(body.replace(/./gsu, ' \n'), 1000), dto.INPUT_MEMBERS)),
  decodeCursor: (body) => dto.decodeCursor(body),
  assertPersonId: (body) => dto.assertPersonId(body),
  toIfMatch: (body) => preconditions.toIfMatch(body),
  matchesAny: (body) => preconditions.matchesAny(body, person),
  headerText: (body) => identity.headerText(headersOf(body), 'message-id'),
  ownIdOf: (body) => identity.ownIdOf(headersOf(body)),
  urlsOfHosts: (body) => url.urlsOfHosts(`postgres://a:b@${body}/c`),
  hostsOfList: (body) => url.hostsOfList(body, 1),
  'bearer header': (body) => bearer.canActivate(requestWith(`Bearer ${body}`)),
};
/** What the measure has to tell from the others. */
const quadratic = {
  quadratic: (body) => {
    for (let i = 0; i < body.length / 100; i++) for (let j = 0; j < i; j++) body.charCodeAt(j);
  },
};

const session = new Session();
session.connect();
await session.post('Profiler.enable');
await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });

/** Blocks that ran since it was asked last. */
async function steps() {
  const { result } = await session.post('Profiler.takePreciseCoverage');
  let sum = 0;
  for (const { url: file, functions } of result) {
    if (!file.startsWith(dist.href) && !file.endsWith('work-of-parsers.mjs')) continue;
    for (const { functionName, ranges } of functions) {
      if (file.endsWith('work-of-parsers.mjs') && functionName !== 'quadratic') continue;
      for (const { count } of ranges) sum += count;
    }
  }
  return sum;
}

async function measure(parsers, shapes) {
  for (const [parser, parse] of Object.entries(parsers)) {
    for (const [shape, make] of Object.entries(shapes)) {
      const counted = [];
      for (const size of SIZES) {
        const body = make(size);
        await steps();
        try {
          await parse(body);
        } catch {
          // A refusal is as good an answer as any; what it took is measured.
        }
        counted.push({ size: body.length, steps: await steps() });
      }
      console.log(JSON.stringify({ parser, shape, counted }));
    }
  }
}
await measure(json, jsonShapes);
await measure(texts, textShapes);
await measure(quadratic, { x: textShapes['"x" over and over'] });
process.exit();
