/** What every bad request of `bad-input.spec.ts` is about: this person is stored, and stays as it is. */
export const ADA = '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f';
export const ADA_JSON = `{"id":"${ADA}","name":"Ada","data":{"many_many_fields":18446744073709551615}}`;
export const UNKNOWN_ID = '01938c5e-7a1b-7c3d-9e2f-000000000000';

export interface BadRequest {
  method: string;
  path: string;
  body?: string | Uint8Array;
  headers?: Record<string, string>;
}
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  errors?: { pointer: string; detail: string }[];
}
type Case = [title: string, request: BadRequest, answer: Problem];
type Field = [pointer: string, detail: string];

const JSON_TYPE = { 'content-type': 'application/json' };
const MERGE_PATCH = { 'content-type': 'application/merge-patch+json' };
const NDJSON_TYPE = { 'content-type': 'application/x-ndjson' };
const NDJSON_ANSWER = { accept: 'application/x-ndjson' };

const post = (body: string | Uint8Array, headers = {}): BadRequest => ({
  method: 'POST',
  path: '/people',
  body,
  headers: { ...JSON_TYPE, ...headers },
});
const patch = (body: string | Uint8Array, headers = {}, id = ADA): BadRequest => ({
  method: 'PATCH',
  path: `/people/${id}`,
  body,
  headers: { ...JSON_TYPE, ...headers },
});
const bulk = (body: string | Uint8Array, headers: Record<string, string> = JSON_TYPE): BadRequest => ({
  method: 'POST',
  path: '/people/bulk',
  body,
  headers,
});
const get = (path: string, headers = {}): BadRequest => ({ method: 'GET', path, headers });
const withoutType = (method: string, path: string, body: string): BadRequest => ({
  method,
  path,
  body: Buffer.from(body),
});

/** A refusal as a whole. */
export const refused = (detail: string): Problem => ({
  type: '/problems/invalid-input',
  title: 'Invalid input',
  status: 400,
  detail,
});
/** A refusal that names fields. */
export const refusedFields = (...fields: Field[]): Problem => ({
  ...refused(`${fields.map(([pointer, detail]) => `${pointer.slice(2)} ${detail}`).join('; ')}.`),
  errors: fields.map(([pointer, detail]) => ({ pointer, detail })),
});
const atLine = (line: number, problem: Problem): Problem => ({
  ...problem,
  detail: `Line ${line}: ${problem.detail}`,
});
const answer = (status: number, title: string, detail: string): Problem => ({
  type: `/problems/${title.toLowerCase().replaceAll(' ', '-')}`,
  title,
  status,
  detail,
});

export const NAME = 'must be a non-empty string without NUL and without lone surrogates';
export const UUID = 'must be a uuid';
export const DATA = 'must be a JSON object or null';
export const UNKNOWN = 'is not a known field';
export const TOO_DEEP = 'nested deeper than 200 levels';
const LIMIT = 'must not be greater than 1000; must not be less than 1; must be an integer number';
const CURSOR = 'must be `next` of the page before';
/** Routes name what they take of the types the server knows; the others it refuses by itself. */
const unsupported = (types?: string) =>
  answer(
    415,
    'Unsupported Media Type',
    types ? `The content type must be ${types}.` : 'Unsupported Media Type',
  );

/** An object around `levels - 1` arrays. */
export const nested = (levels: number) => `{"a":${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}}`;
const MEBIBYTE = 1024 * 1024;
const NO_UTF8 = Buffer.concat([Buffer.from('{"name":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')]);

export const bodies: Case[] = [
  ['an empty body', post(''), refused('The request needs a JSON body.')],
  ['white space', post('  \n'), refused('The body: malformed JSON.')],
  ['a truncated object', post('{"name":"Ada"'), refused('The body: malformed JSON.')],
  ['a truncated string', post('{"name":"Ada'), refused('The body: malformed JSON.')],
  ['a trailing comma', post('{"name":"Ada",}'), refused('The body: malformed JSON.')],
  ['two values', post('{"name":"Ada"}{"name":"Ada"}'), refused('The body: malformed JSON.')],
  ['single quotes', post("{'name':'Ada'}"), refused('The body: malformed JSON.')],
  [
    'a number with a leading zero',
    post('{"name":"A","data":{"n":01}}'),
    refused('The body: malformed JSON.'),
  ],
  ['NaN', post('{"name":"Ada","data":{"n":NaN}}'), refused('The body: malformed JSON.')],
  ['a raw NUL character', post('{"name":"A\0"}'), refused('The body: malformed JSON.')],
  ['invalid UTF-8', post(NO_UTF8), refused('The body is not valid UTF-8.')],
  ['an array for an object', post('[{"name":"Ada"}]'), refused('The body must be a JSON object.')],
  ['a string for an object', post('"Ada"'), refused('The body must be a JSON object.')],
  ['null for an object', post('null'), refused('The body must be a JSON object.')],
  ['a member twice', post('{"name":"A","name":"B"}'), refused('The body: the member "name" stands twice.')],
  [
    'a member twice by an escape',
    post('{"id":1,"\\u0069d":2}'),
    refused('The body: the member "id" stands twice.'),
  ],
  ['an array for a patch', patch('[]'), refused('The body must be a JSON object.')],
  ['an empty patch body', patch(''), refused('The request needs a JSON body.')],
  ['data 201 levels below', post(`{"name":"Ada","data":${nested(200)}}`), refused(`The body: ${TOO_DEEP}.`)],
  ['brackets without end', post('['.repeat(500_000)), refused(`The body: ${TOO_DEEP}.`)],
  [
    'a body of 10 MB',
    post(`{"name":"${'a'.repeat(10 * MEBIBYTE)}"}`),
    answer(413, 'Payload Too Large', 'Request body is too large'),
  ],
  [
    'a patch of 10 MB',
    patch(`{"name":"${'a'.repeat(10 * MEBIBYTE)}"}`),
    answer(413, 'Payload Too Large', 'Request body is too large'),
  ],
  ['no content type', withoutType('POST', '/people', '{"name":"Ada"}'), unsupported()],
  ['plain text', post('{"name":"Ada"}', { 'content-type': 'text/plain' }), unsupported()],
  ['a form', post('name=Ada', { 'content-type': 'application/x-www-form-urlencoded' }), unsupported()],
  ['a content type that is none', post('{"name":"Ada"}', { 'content-type': 'json' }), unsupported()],
  ['a merge patch to create', post('{"name":"Ada"}', MERGE_PATCH), unsupported('application/json')],
  ['NDJSON to create one', post('{"name":"Ada"}', NDJSON_TYPE), unsupported('application/json')],
  [
    'NDJSON to change one',
    patch('{"name":"Ada"}', NDJSON_TYPE),
    unsupported('application/json or application/merge-patch+json'),
  ],
];

export const fields: Case[] = [
  ['no name', post('{}'), refusedFields(['#/name', NAME])],
  ['a name that is null', post('{"name":null}'), refusedFields(['#/name', NAME])],
  ['a name that is a number', post('{"name":5}'), refusedFields(['#/name', NAME])],
  ['a name that is an array', post('{"name":["Ada"]}'), refusedFields(['#/name', NAME])],
  ['an empty name', post('{"name":""}'), refusedFields(['#/name', NAME])],
  ['NUL in the name', post('{"name":"A\\u0000"}'), refusedFields(['#/name', NAME])],
  ['a lone surrogate in the name', post('{"name":"A\\ud800"}'), refusedFields(['#/name', NAME])],
  ['surrogates the wrong way round', post('{"name":"\\udc00\\ud800"}'), refusedFields(['#/name', NAME])],
  ['an id that is no uuid', post('{"id":"7","name":"Ada"}'), refusedFields(['#/id', UUID])],
  ['an id that is null', post('{"id":null,"name":"Ada"}'), refusedFields(['#/id', UUID])],
  ['an id in braces', post(`{"id":"{${ADA}}","name":"Ada"}`), refusedFields(['#/id', UUID])],
  ['data that is an array', post('{"name":"Ada","data":[1]}'), refusedFields(['#/data', DATA])],
  ['data that is a string', post('{"name":"Ada","data":"{}"}'), refusedFields(['#/data', DATA])],
  ['data that is a number', post('{"name":"Ada","data":5}'), refusedFields(['#/data', DATA])],
  ['data that is true', post('{"name":"Ada","data":true}'), refusedFields(['#/data', DATA])],
  ['an unknown field', post('{"name":"Ada","nick":"A"}'), refusedFields(['#/nick', UNKNOWN])],
  ['a field in another case', post('{"Name":"Ada"}'), refusedFields(['#/Name', UNKNOWN], ['#/name', NAME])],
  [
    'a field `__proto__`',
    post('{"name":"Ada","__proto__":{"admin":true}}'),
    refusedFields(['#/__proto__', UNKNOWN]),
  ],
  [
    'a field `constructor`',
    post('{"name":"Ada","constructor":{}}'),
    refusedFields(['#/constructor', UNKNOWN]),
  ],
  ['a field `toString`', post('{"name":"Ada","toString":"x"}'), refusedFields(['#/toString', UNKNOWN])],
  ['a field `toJSON`', post('{"name":"Ada","toJSON":1}'), refusedFields(['#/toJSON', UNKNOWN])],
  [
    'a field with / and ~',
    post('{"name":"Ada","a/b~c":1}'),
    { ...refused('a~1b~0c is not a known field.'), errors: [{ pointer: '#/a~1b~0c', detail: UNKNOWN }] },
  ],
  [
    'three wrong fields',
    post('{"id":1,"name":2,"x":3}'),
    refusedFields(['#/x', UNKNOWN], ['#/id', UUID], ['#/name', NAME]),
  ],
  ['an id in a patch', patch(`{"id":"${UNKNOWN_ID}"}`), refusedFields(['#/id', UNKNOWN])],
  ['a name that is null in a patch', patch('{"name":null}'), refusedFields(['#/name', NAME])],
  [
    'a name that is null in a merge patch',
    patch('{"name":null}', MERGE_PATCH),
    refusedFields(['#/name', NAME]),
  ],
  ['data that is an array in a patch', patch('{"data":[]}'), refusedFields(['#/data', DATA])],
  [
    'data that is an array in a merge patch',
    patch('{"data":[]}', MERGE_PATCH),
    refusedFields(['#/data', DATA]),
  ],
  [
    'an empty Idempotency-Key',
    post('{"name":"Ada"}', { 'idempotency-key': '' }),
    refused('The header Idempotency-Key must have 1 to 255 characters.'),
  ],
  [
    'a long Idempotency-Key',
    post('{"name":"Ada"}', { 'idempotency-key': 'k'.repeat(256) }),
    refused('The header Idempotency-Key must have 1 to 255 characters.'),
  ],
];

const changed = answer(
  412,
  'Person changed',
  `The person ${ADA} is not the version that was asked for; nothing was changed. Read it again.`,
);
const missing = answer(404, 'Person not found', `No person has the id ${UNKNOWN_ID}.`);

export const addresses: Case[] = [
  ['GET with an id that is no uuid', get('/people/7'), refusedFields(['#/id', UUID])],
  [
    'GET with SQL for an id',
    get(`/people/${encodeURIComponent("' OR 1=1 --")}`),
    refusedFields(['#/id', UUID]),
  ],
  ['PATCH with an id that is no uuid', patch('{"name":"Ada"}', {}, '7'), refusedFields(['#/id', UUID])],
  [
    'DELETE with an id that is no uuid',
    { method: 'DELETE', path: '/people/7' },
    refusedFields(['#/id', UUID]),
  ],
  ['GET of nobody', get(`/people/${UNKNOWN_ID}`), missing],
  ['PATCH of nobody', patch('{"name":"Ada"}', {}, UNKNOWN_ID), missing],
  ['a merge patch of nobody', patch('{"data":{"a":1}}', MERGE_PATCH, UNKNOWN_ID), missing],
  ['DELETE of nobody', { method: 'DELETE', path: `/people/${UNKNOWN_ID}` }, missing],
  ['PATCH of another version', patch('{"name":"B"}', { 'if-match': '"1.0.1"' }), changed],
  [
    'a merge patch of another version',
    patch('{"data":{"b":1}}', { ...MERGE_PATCH, 'if-match': '"1.0.1"' }),
    changed,
  ],
  ['PATCH with an If-Match that is no ETag', patch('{"name":"B"}', { 'if-match': 'x' }), changed],
  [
    'DELETE of another version',
    { method: 'DELETE', path: `/people/${ADA}`, headers: { 'if-match': '"1.0.1"' } },
    changed,
  ],
  [
    'the id of another person',
    post(`{"id":"${ADA}","name":"Eve"}`),
    answer(
      409,
      'Person conflict',
      `A person with the id ${ADA} exists already and differs from the one given; nothing was changed.`,
    ),
  ],
  ['no name to find', get('/people'), refusedFields(['#/name', NAME])],
  ['an empty name to find', get('/people?name='), refusedFields(['#/name', NAME])],
  ['two names to find', get('/people?name=a&name=b'), refusedFields(['#/name', NAME])],
  ['NUL in the name to find', get('/people?name=a%00'), refusedFields(['#/name', NAME])],
  ['no name to stream', get('/people', NDJSON_ANSWER), refusedFields(['#/name', NAME])],
  ['limit 0', get('/people?name=Ada&limit=0'), refusedFields(['#/limit', 'must not be less than 1'])],
  [
    'limit 1001',
    get('/people?name=Ada&limit=1001'),
    refusedFields(['#/limit', 'must not be greater than 1000']),
  ],
  ['limit abc', get('/people?name=Ada&limit=abc'), refusedFields(['#/limit', LIMIT])],
  ['limit 1.5', get('/people?name=Ada&limit=1.5'), refusedFields(['#/limit', LIMIT])],
  ['limit -1', get('/people?name=Ada&limit=-1'), refusedFields(['#/limit', LIMIT])],
  ['an empty limit', get('/people?name=Ada&limit='), refusedFields(['#/limit', LIMIT])],
  ['two limits', get('/people?name=Ada&limit=1&limit=2'), refusedFields(['#/limit', LIMIT])],
  ['a cursor that is none', get('/people?name=Ada&cursor=x'), refusedFields(['#/cursor', CURSOR])],
  ['an empty cursor', get('/people?name=Ada&cursor='), refusedFields(['#/cursor', CURSOR])],
  [
    'a URL that is malformed',
    get('/people/%ZZ'),
    answer(400, 'Bad Request', "'/people/%ZZ' is not a valid url component"),
  ],
  ['an unknown path', get('/nowhere'), answer(404, 'Not Found', 'Cannot GET /nowhere')],
  [
    'an unknown path below a person',
    get(`/people/${ADA}/friends`),
    answer(404, 'Not Found', `Cannot GET /people/${ADA}/friends`),
  ],
];

const line = (text: string) => Buffer.from(text);
const GOOD = '{"name":"good"}';

export const many: Case[] = [
  ['an object for an array', bulk('{"name":"Ada"}'), refused('The body must be a JSON array.')],
  [
    'a question for ids that is none',
    { ...bulk(`[${GOOD}]`), path: '/people/bulk?ids=1' },
    refusedFields(['#/ids', 'must be true or false']),
  ],
  [
    'two questions for ids',
    { ...bulk(`[${GOOD}]`), path: '/people/bulk?ids=true&ids=true' },
    refusedFields(['#/ids', 'must be true or false']),
  ],
  [
    'a question for the ids of a stream',
    { ...bulk(`${GOOD}\n`, NDJSON_TYPE), path: '/people/bulk?ids=true' },
    refusedFields(['#/ids', 'must be false for newline-delimited JSON']),
  ],
  ['no body', bulk(''), refused('The request needs a JSON body.')],
  ['an array that is cut off', bulk(`[${GOOD}`), refused('The body must be a JSON array: malformed JSON.')],
  [
    'one element of three without a name',
    bulk(`[${GOOD},{},${GOOD}]`),
    { ...refused(`1/name ${NAME}.`), errors: [{ pointer: '#/1/name', detail: NAME }] },
  ],
  [
    'an element that is no object',
    bulk(`[${GOOD},5]`),
    {
      ...refused('Element 1 must be a JSON object.'),
      errors: [{ pointer: '#/1', detail: 'must be a JSON object' }],
    },
  ],
  [
    'an element with a member twice',
    bulk(`[${GOOD},{"name":"a","name":"b"}]`),
    {
      ...refused('Element 1: the member "name" stands twice.'),
      errors: [{ pointer: '#/1', detail: 'the member "name" stands twice' }],
    },
  ],
  [
    'an element with data that is an array',
    bulk(`[{"name":"a","data":[]}]`),
    refusedFields(['#/0/data', DATA]),
  ],
  [
    'the id of somebody stored',
    bulk(`[${GOOD},${ADA_JSON}]`),
    answer(
      409,
      'Person conflict',
      `A person with the id ${ADA} exists already and differs from the one given; nothing was changed.`,
    ),
  ],
  ['a merge patch', bulk(`[${GOOD}]`, MERGE_PATCH), unsupported('application/json or application/x-ndjson')],
  ['text that is neither JSON nor NDJSON', bulk(GOOD, { 'content-type': 'text/csv' }), unsupported()],
  [
    'a line without a name',
    bulk(`${GOOD}\n{}\n${GOOD}\n`, NDJSON_TYPE),
    atLine(2, refusedFields(['#/name', NAME])),
  ],
  [
    'a line, after blank ones, with a wrong id',
    bulk(`\n \r\n${GOOD}\n{"id":7,"name":"a"}`, NDJSON_TYPE),
    atLine(4, refusedFields(['#/id', UUID])),
  ],
  [
    'a malformed line',
    bulk(`${GOOD}\n{"name":\n`, NDJSON_TYPE),
    atLine(2, refused('The line: malformed JSON.')),
  ],
  [
    'a line that is an array',
    bulk(`[${GOOD}]\n`, NDJSON_TYPE),
    atLine(1, refused('The line must be a JSON object.')),
  ],
  [
    'a line in invalid UTF-8',
    bulk(Buffer.concat([line(`${GOOD}\n`), NO_UTF8]), NDJSON_TYPE),
    atLine(2, refused('The line is not valid UTF-8.')),
  ],
  [
    'a line that is too long',
    bulk(`${GOOD}\n{"name":"${'a'.repeat(MEBIBYTE)}"}\n${GOOD}`, NDJSON_TYPE),
    atLine(2, refused('The line is longer than 1048576 bytes.')),
  ],
  [
    'a last line that is cut off',
    bulk(`${GOOD}\n${GOOD}\n{"na`, NDJSON_TYPE),
    atLine(3, refused('The line: malformed JSON.')),
  ],
];
