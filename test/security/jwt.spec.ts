import {
  type CryptoKey,
  EncryptJWT,
  exportJWK,
  exportSPKI,
  generateKeyPair,
  type JWTPayload,
  SignJWT,
} from 'jose';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { duringTests } from '../support/during-tests.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';
import { answersTo, RawClient } from '../support/raw-http.js';

const SECRET = 'a secret of more than thirty-two characters';
const CLAIMS = { iss: 'https://issuer.test', aud: 'people', sub: 'ada', scope: 'people:read people:write' };
const ISSUED = { AUTH: 'jwt', AUTH_ISSUER: CLAIMS.iss, AUTH_AUDIENCE: CLAIMS.aud };
const ABSENT = '/people/01938c5e-7a1b-7c3d-9e2f-ffffffffffff';
const INVALID = 'Bearer error="invalid_token"';

const bytes = (text: string) => new TextEncoder().encode(text);
const base64 = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const FAR = 4e9;

interface Header {
  alg: string;
  kid?: string;
  [name: string]: unknown;
}
const sign = (claims: JWTPayload, header: Header, key: CryptoKey | Uint8Array) =>
  new SignJWT({ exp: FAR, ...claims }).setProtectedHeader(header).sign(key);
const hs256 = (claims: JWTPayload = CLAIMS, header: Partial<Header> = {}) =>
  sign(claims, { alg: 'HS256', ...header }, bytes(SECRET));

/** Header and claims as they are, with a signature that is none, or empty. */
const forged = (header: unknown, claims: unknown = { ...CLAIMS, exp: FAR }, signature = 'AAAA') =>
  `${base64(header)}.${base64(claims)}.${signature}`;

const table = (app: PeopleApp) => app.database.query('SELECT count(*)::int AS n FROM people');

/** Reads and writes with `token` are both refused alike, and who has a good one is served beside it. */
async function isRefused(
  app: PeopleApp,
  good: string,
  token: string,
  status: number,
  challenge: string | null,
) {
  const [read, write, bystander] = await Promise.all([
    app.request(ABSENT, { headers: bearer(token) }),
    app.send('POST', '/people', '{"name":"Eve"}', bearer(token)),
    app.request(ABSENT, { headers: bearer(good) }),
  ]);
  for (const response of [read, write]) {
    expect([response.status, response.headers.get('www-authenticate')]).toEqual([status, challenge]);
    const problem = (await response.json()) as { detail: string };
    // No more of what came from outside.
    expect(problem.detail.length).toBeLessThan(300);
  }
  expect(bystander.status).toBe(404);
  expect(await table(app)).toEqual([{ n: 0 }]);
}

describe('with a shared secret', () => {
  let good: string;
  const app = duringTests(() => startPeopleApp({ ...ISSUED, AUTH_SECRET: SECRET }));
  beforeAll(async () => {
    good = await hs256();
  });

  it.each<[string, () => string | Promise<string>]>([
    ['alg none', () => forged({ alg: 'none' }, undefined, '')],
    ['alg None', () => forged({ alg: 'None' }, undefined, '')],
    ['alg nOnE and a signature', () => forged({ alg: 'nOnE' })],
    ['no alg', () => forged({ typ: 'JWT' })],
    ['alg as a number', () => forged({ alg: 256 })],
    ['alg as a list', () => forged({ alg: ['HS256'] })],
    ['another HMAC', () => sign(CLAIMS, { alg: 'HS512' }, bytes(SECRET.repeat(2)))],
    [
      'an RSA signature',
      async () => sign(CLAIMS, { alg: 'RS256' }, (await generateKeyPair('RS256')).privateKey),
    ],
    ['an empty signature', async () => (await hs256()).replace(/[^.]*$/, '')],
    ['no signature', async () => (await hs256()).replace(/\.[^.]*$/, '')],
    ['a signature that is cut off', async () => (await hs256()).slice(0, -4)],
    ['another signature', () => forged({ alg: 'HS256' })],
    ['a signature by an empty secret', () => forged({ alg: 'HS256' }, undefined, '')],
    [
      'claims that were changed',
      async () => (await hs256()).replace(/\..*\./, `.${base64({ ...CLAIMS, sub: 'eve', exp: FAR })}.`),
    ],
    ['claims that are a list', () => forged({ alg: 'HS256' }, [1])],
    ['claims that are null', () => forged({ alg: 'HS256' }, null)],
    ['a header that is null', () => forged(null)],
    ['a header that is no JSON', () => `bm8.${base64(CLAIMS)}.AAAA`],
    [
      'a header named __proto__',
      () => `${Buffer.from('{"__proto__":{"alg":"HS256"}}').toString('base64url')}.${base64(CLAIMS)}.AAAA`,
    ],
    ['text of base64 and not base64url', async () => `${await hs256()}==`],
    ['five parts', async () => `${await hs256()}.a.b`],
    ['dots alone', () => '..'],
    [
      'an encrypted token',
      () =>
        new EncryptJWT(CLAIMS)
          .setProtectedHeader({ alg: 'dir', enc: 'A256GCM' })
          .encrypt(bytes('k'.repeat(32))),
    ],
    ['a critical extension', () => forged({ alg: 'HS256', crit: ['x'], x: 1 })],
    ['a critical extension of 5 kB', () => forged({ alg: 'HS256', crit: ['x'.repeat(5000)] })],
    ['unencoded claims (b64)', () => forged({ alg: 'HS256', crit: ['b64'], b64: false })],
    ['an end that is past', () => hs256({ ...CLAIMS, exp: 1 })],
    ['an end that is text', () => hs256({ ...CLAIMS, exp: '4000000000' as unknown as number })],
    ['a begin that is ahead', () => hs256({ ...CLAIMS, nbf: FAR })],
    ['no issuer', () => hs256({ aud: 'people', scope: CLAIMS.scope })],
    ['an issuer that is a list', () => hs256({ ...CLAIMS, iss: [CLAIMS.iss] as unknown as string })],
    ['another audience', () => hs256({ ...CLAIMS, aud: 'peoples' })],
    ['no audience', () => hs256({ iss: CLAIMS.iss, scope: CLAIMS.scope })],
    ['9 kB', () => hs256({ ...CLAIMS, x: 'x'.repeat(6800) })],
  ])('a token with %s is refused', async (_title, token) => {
    await isRefused(app, good, await token(), 401, INVALID);
  });

  it.each<[string, object]>([
    ['jku', { jku: 'http://127.0.0.1:1/keys' }],
    ['x5u', { x5u: 'http://127.0.0.1:1/cert' }],
    ['jwk', { jwk: { kty: 'oct', k: 'AAAA' } }],
    ['a kid that is a path', { kid: '../../../../dev/null' }],
    ['a kid that is SQL', { kid: "' UNION SELECT 'AAAA" }],
  ])('where keys are is not taken from a token: %s', async (_title, header) => {
    const signed = await hs256(CLAIMS, header);
    expect((await app.request(ABSENT, { headers: bearer(signed) })).status).toBe(404);
    const other = await sign(
      CLAIMS,
      { alg: 'HS256', ...header },
      Buffer.from('AAAA'.padEnd(32, 'A'), 'base64'),
    );
    await isRefused(app, good, other, 401, INVALID);
  });

  it.each<[string, JWTPayload]>([
    ['an empty scope', { scope: '' }],
    ['no scope', { scope: undefined }],
    ['a scope that is a number', { scope: 1 }],
    ['a scope that is an object', { scope: { 'people:read': true } }],
    ['longer scopes', { scope: 'people:readers people:writers' }],
    ['capital letters', { scope: 'PEOPLE:READ' }],
    ['scopes separated by commas', { scope: 'people:read,people:write' }],
    ['an asterisk', { scope: 'people:*' }],
    ['a list within a list', { scope: [['people:read']] }],
  ])('a token with %s may nothing', async (_title, claims) => {
    const token = await hs256({ ...CLAIMS, ...claims });
    const isListed = Array.isArray(claims.scope);
    const response = await app.send('POST', '/people', '{"name":"Eve"}', bearer(token));
    expect(response.status).toBe(403);
    expect(response.headers.get('www-authenticate')).toBe(
      'Bearer error="insufficient_scope", scope="people:write"',
    );
    // A list of one list reads as its text.
    expect((await app.request(ABSENT, { headers: bearer(token) })).status).toBe(isListed ? 404 : 403);
    expect(await table(app)).toEqual([{ n: 0 }]);
  });

  const HOST = 'Host: localhost\r\nConnection: close\r\n';
  it.each<[string, (token: string) => string, number]>([
    ['two headers', (token) => `Authorization: Bearer ${token}\r\nAuthorization: Bearer x\r\n`, 400],
    ['two tokens in one', (token) => `Authorization: Bearer ${token}, Bearer ${token}\r\n`, 401],
    ['another scheme', (token) => `Authorization: Basic ${token}\r\n`, 401],
    ['a tab', (token) => `Authorization: Bearer\t${token}\r\n`, 401],
    ['a header of a proxy', (token) => `Proxy-Authorization: Bearer ${token}\r\n`, 401],
    ['a cookie', (token) => `Cookie: access_token=${token}\r\n`, 401],
    ['capital letters and spaces', (token) => `AUTHORIZATION:   BEARER   ${token}\r\n`, 404],
  ])('a good token by %s', async (_title, header, status) => {
    const { statuses } = await answersTo(app.url, `GET ${ABSENT} HTTP/1.1\r\n${HOST}${header(good)}\r\n`);
    expect(statuses).toEqual([status]);
  });

  it.each(['query', 'body'])('a good token in the %s is none', async (place) => {
    const response =
      place === 'query'
        ? await app.request(`${ABSENT}?access_token=${good}`)
        : await app.request('/people', {
            method: 'POST',
            body: `access_token=${good}`,
            headers: { 'content-type': 'application/json' },
          });
    expect([response.status, response.headers.get('www-authenticate')]).toEqual([401, 'Bearer']);
  });

  it.each([
    ['POST', '/people', 'application/json'],
    ['POST', '/people/bulk', 'application/json'],
    ['POST', '/people/bulk', 'application/x-ndjson'],
    ['PATCH', ABSENT, 'application/json'],
    ['PATCH', ABSENT, 'application/merge-patch+json'],
  ])('who asks is known before a body is read: %s %s with %s', async (method, path, type) => {
    const client = await RawClient.connect(app.url);
    // The body has not begun, and never ends.
    client.send(
      `${method} ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${type}\r\nContent-Length: 1000000\r\n\r\n`,
    );
    await client.receives('A bearer token is needed');
    client.socket.destroy();
    expect(client.statuses).toEqual([401]);
    expect(client.received).toMatch(/^connection: close\r$/im);
  });
});

describe('with keys of an issuer', () => {
  let issuer: Server;
  let answer: RequestListener;
  let publicKey: CryptoKey;
  let privateKey: CryptoKey;
  let keys: string;
  let open: PeopleApp[] = [];

  beforeAll(async () => {
    ({ publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true }));
    keys = JSON.stringify({
      keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', use: 'sig', alg: 'RS256' }],
    });
    issuer = createServer((request, response) => answer(request, response));
    await new Promise<void>((resolve) => issuer.listen(0, '127.0.0.1', resolve));
  });
  afterEach(async () => {
    for (const app of open) await app.close();
    open = [];
  });
  afterAll(() => {
    issuer.closeAllConnections();
    issuer.close();
  });

  const url = (credentials = '') =>
    `http://${credentials}127.0.0.1:${(issuer.address() as AddressInfo).port}/keys`;
  const start = async (jwksUrl = url()) => {
    const app = await startPeopleApp({ ...ISSUED, AUTH_JWKS_URL: jwksUrl, AUTH_JWKS_TIMEOUT_MS: '300' });
    open.push(app);
    return app;
  };
  const token = (header: Partial<Header> = {}) =>
    sign(CLAIMS, { alg: 'RS256', kid: 'k1', ...header }, privateKey);

  it.each<[string, () => string | Promise<string>]>([
    [
      'HS256 by the public key',
      async () => sign(CLAIMS, { alg: 'HS256', kid: 'k1' }, bytes(await exportSPKI(publicKey))),
    ],
    [
      'HS256 by the modulus',
      async () => sign(CLAIMS, { alg: 'HS256', kid: 'k1' }, bytes((await exportJWK(publicKey)).n!)),
    ],
    ['a key that is not there', () => token({ kid: 'k2' })],
    ['a kid that is a path', () => token({ kid: '/dev/null' })],
    ['a kid of a prototype', () => token({ kid: '__proto__' })],
    ['alg none', () => forged({ alg: 'none', kid: 'k1' }, undefined, '')],
    ['its own key', async () => token({ jwk: await exportJWK(publicKey), kid: 'k3' })],
    ['RS1', () => forged({ alg: 'RS1', kid: 'k1' })],
  ])('a token with %s is refused', async (_title, bad) => {
    answer = (_, response) => response.end(keys);
    await isRefused(await start(), await token(), await bad(), 401, INVALID);
  });

  it.each<[string, RequestListener]>([
    [
      '200 MB',
      (_, response) => {
        const chunk = Buffer.alloc(1024 * 1024, ' ');
        let sent = 0;
        const more = () => {
          while (sent++ < 200) if (!response.write(chunk)) return response.once('drain', more);
          return response.end(keys);
        };
        more();
      },
    ],
    ['a redirect', (_, response) => response.writeHead(302, { location: `${url()}?again` }).end()],
    ['no JSON', (_, response) => response.end('<html>')],
    ['null', (_, response) => response.end('null')],
    ['a list', (_, response) => response.end('[]')],
    ['keys that are none', (_, response) => response.end('{"keys":[1]}')],
    ['500', (_, response) => response.writeHead(500).end(keys)],
    ['204', (_, response) => response.writeHead(204).end()],
    ['nothing', () => undefined],
    [
      'half an answer',
      (_, response) => response.writeHead(200, { 'content-length': '1000' }).write('{"keys":'),
    ],
    ['a connection that is cut', (request) => request.socket.destroy()],
  ])('an issuer that answers %s makes 503, and no token bad', async (_title, listener) => {
    const app = await start();
    answer = listener;
    const rss = process.memoryUsage().rss;
    const response = await app.request(ABSENT, { headers: bearer(await token()) });
    expect([response.status, response.headers.get('www-authenticate')]).toEqual([503, null]);
    expect(await response.json()).toMatchObject({ type: '/problems/token-keys-unavailable' });
    expect(process.memoryUsage().rss - rss).toBeLessThan(100 * 1024 * 1024);
    expect((await app.request('/health/live')).status).toBe(200);
    // It works by itself when the issuer does.
    answer = (_, ok) => ok.end(keys);
    expect((await app.request(ABSENT, { headers: bearer(await token()) })).status).toBe(404);
  });

  it.each([['that is none', '{"kty":"RSA","kid":"k1","alg":"RS256","n":"!","e":"!"}']])(
    'a key %s makes 503, and no token bad',
    async (_title, key) => {
      answer = (_, response) => response.end(`{"keys":[${key}]}`);
      const app = await start();
      const response = await app.request(ABSENT, { headers: bearer(await token()) });
      expect([response.status, ((await response.json()) as { type: string }).type]).toEqual([
        503,
        '/problems/token-keys-unavailable',
      ]);
    },
  );

  it('a user and a password of the address are sent as HTTP Basic', async () => {
    let authorization: string | undefined;
    answer = ({ headers }, response) => {
      ({ authorization } = headers);
      response.end(keys);
    };
    const app = await start(url('ada:p%40ss@'));
    expect((await app.request(ABSENT, { headers: bearer(await token()) })).status).toBe(404);
    expect(authorization).toBe(`Basic ${Buffer.from('ada:p@ss').toString('base64')}`);
  });
});
