import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';
import { answersTo, RawClient } from '../support/raw-http.js';

const ADA = '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f';
const HOST = 'Host: localhost\r\n';
const JSON_TYPE = 'Content-Type: application/json\r\n';
const CLOSE = 'Connection: close\r\n';
const CHUNKED = 'Transfer-Encoding: chunked\r\n';
const NOT_HTTP = 'The request is not valid HTTP/1.1.';
const FOREIGN_HOST =
  'This service is not for that host (Host). Its names are those of the loopback, and HTTP_ALLOWED_HOSTS.';
const FOREIGN_PAGE = FOREIGN_HOST.replace('host (Host)', 'page (Origin)');
const NO_BODY = 'The request needs a JSON body.';

const get = (target = '/people?name=a', headers = '', version = 'HTTP/1.1') =>
  `GET ${target} ${version}\r\n${headers.includes('Host') ? '' : HOST}${headers}${CLOSE}\r\n`;
const post = (headers: string, body = '') =>
  `POST /people HTTP/1.1\r\n${HOST}${JSON_TYPE}${CLOSE}${headers}\r\n${body}`;
const chunked = (body: string) => post(CHUNKED, body);

/** What is sent, the statuses of the answers, and what a problem of the last says; undefined where it is none. */
type Row = [title: string, bytes: string | Uint8Array, statuses: number[], detail?: string];

const framing: Row[] = [
  [
    'Content-Length and Transfer-Encoding',
    post(`Content-Length: 5\r\n${CHUNKED}`, '0\r\n\r\n'),
    [400],
    NOT_HTTP,
  ],
  [
    'Transfer-Encoding and Content-Length',
    post(`${CHUNKED}Content-Length: 5\r\n`, '0\r\n\r\n'),
    [400],
    NOT_HTTP,
  ],
  ['two lengths', post('Content-Length: 5\r\nContent-Length: 6\r\n', '{"a":'), [400], NOT_HTTP],
  ['one length twice', post('Content-Length: 5\r\nContent-Length: 5\r\n', '{"a":'), [400], NOT_HTTP],
  ...['+5', '5, 5', '0x5', '-1', '1e3', '5 5', '9'.repeat(20), '', ' '].map((value): Row => [
    `the length "${value}"`,
    post(`Content-Length: ${value}\r\n`, '{"a":'),
    [400],
    NOT_HTTP,
  ]),
  ...['chunked, identity', 'xchunked', 'identity', 'chunked, chunked', '"chunked"', 'chunked;q=1'].map(
    (value): Row => [
      `the transfer encoding ${value}`,
      post(`Transfer-Encoding: ${value}\r\n`, '0\r\n\r\n'),
      [400],
      NOT_HTTP,
    ],
  ),
  [
    'a transfer encoding that nobody undoes',
    post('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n'),
    [400],
    'The header transfer-encoding must be chunked, with HTTP/1.1.',
  ],
  [
    'two transfer encodings',
    post(`Transfer-Encoding: identity\r\n${CHUNKED}`, '0\r\n\r\n'),
    [400],
    'The header transfer-encoding must be chunked, with HTTP/1.1.',
  ],
  [
    'a transfer encoding of HTTP/1.0',
    chunked('0\r\n\r\n').replace('HTTP/1.1', 'HTTP/1.0'),
    [400],
    'The header transfer-encoding must be chunked, with HTTP/1.1.',
  ],
  [
    'a space before the colon of a transfer encoding',
    post('Transfer-Encoding : chunked\r\n', '0\r\n\r\n'),
    [400],
    NOT_HTTP,
  ],
  ['an empty chunked body', chunked('0\r\n\r\n'), [400], NO_BODY],
  ['a chunk size that is none', chunked('zz\r\n\r\n'), [400], NOT_HTTP],
  ['a negative chunk size', chunked('-1\r\n\r\n'), [400], NOT_HTTP],
  ['a chunk size beyond 64 bits', chunked('fffffffffffffffff\r\n\r\n'), [400], NOT_HTTP],
  ['chunks ended by LF', chunked('1\n{\n0\n\n'), [400], NOT_HTTP],
  ['a chunk that is longer than it says', chunked('1\r\n{XX0\r\n\r\n'), [400], NOT_HTTP],
  [
    'a chunk extension of 20 kB',
    chunked(`1;${'a'.repeat(20_000)}\r\n{\r\n0\r\n\r\n`),
    [413],
    'The chunk extensions are larger than 16 KiB together.',
  ],
  ['a length in a trailer', chunked('2\r\n{}\r\n0\r\nContent-Length: 7\r\n\r\n'), [400], NOT_HTTP],
  [
    'trailers of 20 kB',
    chunked(`2\r\n{}\r\n0\r\na: ${'x'.repeat(20_000)}\r\n\r\n`),
    [431],
    'The headers are larger than 16 KiB together.',
  ],
  [
    'a request within the body of a GET',
    `GET /people?name=a HTTP/1.1\r\n${HOST}Content-Length: 4\r\n\r\nGET GARBAGE\r\n\r\n`,
    [200, 400],
    NOT_HTTP,
  ],
  ['a body of a GET', get('/people?name=a', 'Content-Length: 2\r\n') + '{}', [200]],
];

const heads: Row[] = [
  ['a folded header', get(undefined, 'X-A: b\r\n c\r\n'), [400], NOT_HTTP],
  ['lines ended by LF', get().replaceAll('\r\n', '\n'), [400], NOT_HTTP],
  ['lines ended by CR', get().replaceAll('\r\n', '\r'), [400], NOT_HTTP],
  ['NUL in a header', get(undefined, 'X-A: a\0b\r\n'), [400], NOT_HTTP],
  ['CR in a header', get(undefined, 'X-A: a\rb\r\n'), [400], NOT_HTTP],
  ['a space before a colon', get(undefined, 'X-A : b\r\n'), [400], NOT_HTTP],
  ['a header without a name', get(undefined, ': b\r\n'), [400], NOT_HTTP],
  ['a header without a colon', get(undefined, 'abc\r\n'), [400], NOT_HTTP],
  ['a header named __proto__', get(undefined, '__proto__: x\r\nconstructor: y\r\n'), [200]],
  [
    'a header of 100 kB',
    get(undefined, `X-A: ${'a'.repeat(100_000)}\r\n`),
    [431],
    'The headers are larger than 16 KiB together.',
  ],
  [
    'a target of 17 kB',
    get(`/people?name=${'a'.repeat(17_000)}`),
    [431],
    'The headers are larger than 16 KiB together.',
  ],
  ['1,000 headers', get(undefined, 'a: b\r\n'.repeat(1000)), [200]],
  [
    '10,000 headers',
    get(undefined, 'a: b\r\n'.repeat(10_000)),
    [431],
    'The headers are larger than 16 KiB together.',
  ],
  ['HTTP/0.9', 'GET /people?name=a\r\n', [408], 'The headers of the request did not come in time.'],
  ['HTTP/1.0 without a host', 'GET /people?name=a HTTP/1.0\r\n\r\n', [200]],
  [
    'HTTP/2.0 in the words of HTTP/1.1',
    get(undefined, '', 'HTTP/2.0'),
    [400],
    'HTTP/1.1 is needed, not HTTP/2.0.',
  ],
  ['HTTP/1.2', get(undefined, '', 'HTTP/1.2'), [400], NOT_HTTP],
  ['HTTP/11', get(undefined, '', 'HTTP/11'), [400], NOT_HTTP],
  ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', [400], NOT_HTTP],
  ['a TLS hello', Buffer.from('16030100c5010000c1030300', 'hex'), [400], NOT_HTTP],
  ['SSH', 'SSH-2.0-OpenSSH_9.0\r\n', [400], NOT_HTTP],
  ['an upgrade to websockets', get(undefined, 'Connection: Upgrade\r\nUpgrade: websocket\r\n'), [200]],
  [
    'an upgrade to HTTP/2',
    get(undefined, 'Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n'),
    [200],
  ],
  ['CONNECT', `CONNECT evil.example:443 HTTP/1.1\r\n${HOST}\r\n`, []],
  ['TRACE', get('/people').replace('GET', 'TRACE'), [405], 'TRACE is not a method of /people.'],
  ['a method in small letters', get().replace('GET', 'get'), [400], NOT_HTTP],
  ['a method that there is not', get().replace('GET', 'FOO'), [400], NOT_HTTP],
  [
    'an expectation that there is not',
    post('Expect: 200-ok\r\nContent-Length: 2\r\n', '{}'),
    [417],
    'The header Expect may ask for 100-continue alone.',
  ],
  [
    'two authorizations',
    get(undefined, 'Authorization: a\r\nAuthorization: b\r\n'),
    [400],
    'The header authorization must stand once.',
  ],
  [
    'two content types',
    post(`${JSON_TYPE}Content-Length: 2\r\n`, '{}'),
    [400],
    'The header content-type must stand once.',
  ],
  [
    'two idempotency keys',
    post('Idempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: 12\r\n', '{"name":"A"}'),
    [400],
    'The header idempotency-key must stand once.',
  ],
];

const hosts: Row[] = [
  ['no host', `GET /people?name=a HTTP/1.1\r\n${CLOSE}\r\n`, [400], 'The header host is missing.'],
  ['two hosts', get(undefined, `${HOST}${HOST}`), [400], 'The header host must stand once.'],
  [
    'two hosts that differ',
    get(undefined, `${HOST}Host: evil.example\r\n`),
    [400],
    'The header host must stand once.',
  ],
  ...[
    '',
    'evil.example',
    'x',
    '192.168.1.7',
    '[::2]',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    'localhost@evil.example',
    '0.0.0.0',
    '2130706433',
  ].map((name): Row => [`the host "${name}"`, get(undefined, `Host: ${name}\r\n`), [403], FOREIGN_HOST]),
  ...[
    'localhost',
    'LOCALHOST:1',
    'a.localhost:80',
    '127.0.0.1',
    '127.9.9.9:3000',
    '[::1]:3000',
    'people.test',
  ].map((name): Row => [`the host "${name}", which is ours`, get(undefined, `Host: ${name}\r\n`), [200]]),
  ...['http://evil.example', 'null', 'https://localhost.evil.example', 'chrome-extension://abc'].map(
    (origin): Row => [`the origin ${origin}`, get(undefined, `Origin: ${origin}\r\n`), [403], FOREIGN_PAGE],
  ),
  ...['http://localhost:8080', 'https://127.0.0.1', 'http://people.test'].map((origin): Row => [
    `the origin ${origin}, which is ours`,
    get(undefined, `Origin: ${origin}\r\n`),
    [200],
  ]),
  ['a target that names a foreign host', get('http://evil.example/people?name=a'), [403], FOREIGN_HOST],
  [
    'a target that names our host, with a foreign header',
    get('http://localhost/people?name=a', 'Host: evil.example\r\n'),
    [200],
  ],
];

const targets: Row[] = [
  ['OPTIONS *', get('*').replace('GET', 'OPTIONS'), [404], 'Cannot OPTIONS *'],
  ['a relative target', get('people?name=a'), [400], NOT_HTTP],
  ['a space in the target', get('/people?name=a b'), [400], NOT_HTTP],
  ['NUL in the target', get('/people?name=\0'), [400], NOT_HTTP],
  ['raw UTF-8 in the query', Buffer.from(get('/people?name=é')), [400], NOT_HTTP],
  ['raw UTF-8 in the path', Buffer.from(get('/people/é')), [400], NOT_HTTP],
  [
    'a path that begins as a host does',
    post('Content-Length: 2\r\n', '{}').replace('/people', '//evil.example/people'),
    [404],
    'Cannot POST //evil.example/people',
  ],
  ['dots in a path', get('/people/../metrics'), [404], 'Cannot GET /people/../metrics'],
  ['an encoded slash', get('/people%2fx'), [404], 'Cannot GET /people%2fx'],
  ['overlong UTF-8 in a path', get('/people/%c0%af'), [400], "'/people/%c0%af' is not a valid url component"],
  [
    'percent-encoding in a path that is none',
    get('/people/%zz'),
    [400],
    "'/people/%zz' is not a valid url component",
  ],
  ['an id with NUL', get('/people/%00'), [400], 'id must be a uuid.'],
  ...['name=%zz', 'name=%', 'name=%f', 'name=%c0%af', 'name=%ed%a0%80', 'name=%ff', 'name=a#b'].map(
    (query): Row => [
      `the query ${query}`,
      get(`/people?${query}`),
      [400],
      'name must be percent-encoded UTF-8.',
    ],
  ),
  [
    'a parameter whose name is no UTF-8',
    get('/people?name=a&%ff=1'),
    [400],
    '%ff must be percent-encoded UTF-8.',
  ],
  ...['limit[]', 'Limit', 'name[$ne]', '__proto__', 'constructor', 'a.b', ''].map((name): Row => [
    `the parameter "${name}"`,
    get(`/people?name=a&${name}=1`),
    [400],
    `${name || 'the input'} is not a known query parameter.`,
  ]),
  ...['limit', 'name'].map((name): Row => [
    `the parameter ${name} of a person's own route`,
    get(`/people/${ADA}?${name}=1`),
    [400],
    `${name} is not a known query parameter.`,
  ]),
  [
    'a parameter of a creation',
    post('Content-Length: 12\r\n', '{"name":"A"}').replace('/people', '/people?a=1'),
    [400],
    'a is not a known query parameter.',
  ],
  ['empty parameters', get('/people?&name=a&&'), [200]],
  ['a name that is encoded in all ways', get('/people?n%61me=%41+%20b'), [200]],
];

const bodies: Row[] = [
  ...[
    'text/plain',
    'application/xml',
    'multipart/form-data; boundary=x',
    'application/json-seq',
    'json',
    'application/jsonx',
  ].map((type): Row => [
    `the type ${type}`,
    post('Content-Length: 2\r\n', '{}').replace('application/json', type),
    [415],
    'Unsupported Media Type',
  ]),
  [
    'NDJSON for one person',
    post('Content-Length: 2\r\n', '{}').replace('application/json', 'application/x-ndjson'),
    [415],
    'The content type must be application/json.',
  ],
  ...['gzip', 'br', 'deflate', 'gzip, identity', 'x'].map((encoding): Row => [
    `the content encoding ${encoding}`,
    post(`Content-Encoding: ${encoding}\r\nContent-Length: 2\r\n`, '{}'),
    [415],
    'The body must not be encoded: leave Content-Encoding out.',
  ]),
  ...['latin1', 'utf-16', '"iso-8859-1"', 'utf-7', 'utf-8; charset=latin1'].map((charset): Row => [
    `the charset ${charset}`,
    post('Content-Length: 2\r\n', '{}').replace('application/json', `application/json; charset=${charset}`),
    [415],
    'The charset of the body must be utf-8.',
  ]),
  ...['utf-8', 'UTF8', '"utf-8"'].map((charset): Row => [
    `the charset ${charset}, which it is`,
    post('Content-Length: 2\r\n', '{}').replace('application/json', `application/json; charset=${charset}`),
    [400],
    'name must be a non-empty string without NUL and without lone surrogates.',
  ]),
  [
    'NDJSON in another charset',
    `POST /people/bulk HTTP/1.1\r\n${HOST}${CLOSE}Content-Type: application/x-ndjson; charset=latin1\r\nContent-Length: 2\r\n\r\n{}`,
    [415],
    'The charset of the body must be utf-8.',
  ],
];

let before: unknown;
const app = duringTests(() =>
  startPeopleApp({
    HTTP_ALLOWED_HOSTS: 'people.test',
    HTTP_HEADERS_TIMEOUT_MS: '500',
    HTTP_LINGER_MS: '2000',
  }),
);
beforeAll(async () => {
  await app.people.create({ id: ADA, name: 'Ada' });
  before = await table();
});

const table = () => app.database.query('SELECT id, name, data::text, xmin::text FROM people ORDER BY id');

async function isHarmless(bytes: string | Uint8Array, statuses: number[], detail?: string) {
  const [client, bystander] = await Promise.all([
    answersTo(app.url, bytes),
    app.request(`/people/${ADA}`).then(({ status }) => status),
  ]);
  expect([client.statuses, await client.ended, bystander]).toEqual([statuses, 'end', 200]);
  const body = client.received.split('\r\n\r\n').at(-1)!;
  if (detail !== undefined) {
    expect(JSON.parse(body)).toMatchObject({ status: statuses.at(-1), detail });
    expect(client.received).toContain('application/problem+json; charset=utf-8');
  } else if (statuses.length > 0) expect(body).toBe('{"items":[],"next":null}');
  expect(await table()).toEqual(before);
}

describe('a message that is cut otherwise by others:', () => {
  it.each(framing)('%s', async (_title, ...row) => isHarmless(...row));
});
describe('the head of a request:', () => {
  it.each(heads)('%s', async (_title, ...row) => isHarmless(...row));
});
describe('whom a request is for:', () => {
  it.each(hosts)('%s', async (_title, ...row) => isHarmless(...row));
});
describe('a target:', () => {
  it.each(targets)('%s', async (_title, ...row) => isHarmless(...row));
});
describe('what a body is said to be:', () => {
  it.each(bodies)('%s', async (_title, ...row) => isHarmless(...row));
});

it('500 requests that are sent at once are all answered, in order', async () => {
  const limits = Array.from({ length: 500 }, (_, i) => i + 1);
  const requests = limits.map(
    (limit) => `GET /people?name=${limit > 250 ? '&x=1' : 'a'} HTTP/1.1\r\n${HOST}\r\n`,
  );
  const client = await answersTo(app.url, requests.join('') + get('/nowhere'));
  expect(client.statuses).toEqual([...Array(250).fill(200), ...Array(250).fill(400), 404]);
});

it('where a person was created is told as a path, whatever host was asked for', async () => {
  const bytes = post('Content-Length: 12\r\n', '{"name":"B"}').replace(
    '/people',
    'http://localhost:1/people',
  );
  const { received } = await answersTo(app.url, bytes);
  const { id } = JSON.parse(received.split('\r\n\r\n')[1]!) as { id: string };
  expect(/^location: (.*)\r$/im.exec(received)?.[1]).toBe(`/people/${id}`);
  await app.people.remove(id);
  before = await table();
});

describe('a body that is too large is refused so that the client reads it:', () => {
  const MEBIBYTE = 1024 * 1024;
  const refusal = (client: RawClient) => {
    expect(client.statuses).toEqual([413]);
    expect(client.received).toContain('"detail":"Request body is too large"');
  };

  it('one that says so and is sent all the same, 20 MB of it', async () => {
    const client = await RawClient.connect(app.url);
    client.send(post(`Content-Length: ${20 * MEBIBYTE}\r\n`)).send(Buffer.alloc(20 * MEBIBYTE, 'x'));
    // Not reset: that would take the answer from a client that has not read it yet.
    expect(await client.ended).toBe('end');
    refusal(client);
  });

  it('one in chunks, once it is', async () => {
    const client = await RawClient.connect(app.url);
    client
      .send(chunked(`${(2 * MEBIBYTE).toString(16)}\r\n`))
      .send(Buffer.alloc(2 * MEBIBYTE, ' '))
      .send('\r\n0\r\n\r\n');
    expect(await client.ended).toBe('end');
    refusal(client);
  });

  it('a million chunks of a byte', async () => {
    const client = await RawClient.connect(app.url);
    client.send(chunked('1\r\n \r\n'.repeat(MEBIBYTE + 1) + '0\r\n\r\n'));
    expect(await client.ended).toBe('end');
    refusal(client);
  });

  it('one that asks first is not asked for', async () => {
    const client = await RawClient.connect(app.url);
    client.send(post(`Expect: 100-continue\r\nContent-Length: ${20 * MEBIBYTE}\r\n`));
    await client.receives('too large');
    client.socket.end();
    await client.ended;
    refusal(client);
  });

  it('one that never ends is read away up to a bound', async () => {
    const client = await RawClient.connect(app.url, { allowHalfOpen: true });
    client.send(post(`Content-Length: ${10 ** 15}\r\n`));
    const chunk = Buffer.alloc(MEBIBYTE);
    const more = () => {
      if (!client.socket.destroyed) client.socket.write(chunk, () => setImmediate(more));
    };
    more();
    await client.ended;
    expect(client.statuses).toEqual([413]);
    expect(client.socket.bytesWritten).toBeGreaterThan(64 * MEBIBYTE);
  });
});

it('a body that asks first is asked for once it is wanted', async () => {
  const client = await RawClient.connect(app.url);
  client.send(
    `PATCH /people/${ADA} HTTP/1.1\r\n${HOST}${JSON_TYPE}${CLOSE}Expect: 100-continue\r\nContent-Length: 14\r\n\r\n`,
  );
  await client.receives('100 Continue');
  client.send('{"name":"Ada"}');
  await client.ended;
  expect(client.statuses).toEqual([100, 200]);
  before = await table();
});

describe('every answer', () => {
  it.each([
    ['/people?name=a', 200],
    ['/people/7', 400],
    ['/nowhere', 404],
    ['/people/%zz', 400],
    ['/health/live', 200],
    ['/metrics', 200],
  ])('tells browsers to take it for what it is, and nobody to keep it: %s', async (path, status) => {
    const { headers, status: answered } = await app.request(path);
    expect([answered, headers.get('x-content-type-options'), headers.get('cache-control')]).toEqual([
      status,
      'nosniff',
      'no-store',
    ]);
  });
});

describe('the documentation', () => {
  it('is a page for phones too, whose policy lets its own scripts in and nothing else', async () => {
    const response = await app.request('/docs');
    const page = await response.text();
    expect(page).toContain('<meta name="viewport" content="width=device-width, initial-scale=1">');
    const policy = response.headers.get('content-security-policy')!;
    expect(policy).toContain("default-src 'none'; script-src 'self';");
    expect(policy).toContain("frame-ancestors 'none'");
    // What the page asks for is there, and none of its scripts stands in the page.
    const assets = [...page.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, url]) => url!);
    expect(assets).toHaveLength(6);
    for (const asset of assets)
      expect([asset, (await fetch(new URL(asset, `${app.url}/docs`))).status]).toEqual([asset, 200]);
    expect(page).not.toMatch(/<script(?![^>]*src=)/);
  });

  it.each([
    'package.json',
    'README.md',
    'index.js',
    'absolute-path.js',
    'swagger-ui.js.map',
    'swagger-ui-es-bundle.js',
    'oauth2-redirect.html',
    'LICENSE',
    'NOTICE',
    '.npmignore',
    '%2e%2e/package.json',
    'swagger-initializer.js',
  ])('does not serve %s', async (file) => expect((await app.request(`/docs/${file}`)).status).toBe(404));
});
