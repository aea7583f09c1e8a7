import { type CryptoKey, exportJWK, exportSPKI, generateKeyPair, type JWTPayload, SignJWT } from 'jose';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { duringTests } from '../support/during-tests.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';

const SECRET = 'a secret of more than thirty-two characters';
const CLAIMS = { iss: 'https://issuer.test', aud: 'people', scope: 'people:read people:write' };
const ISSUED = { AUTH: 'jwt', AUTH_ISSUER: CLAIMS.iss, AUTH_AUDIENCE: CLAIMS.aud };
const ABSENT = '/people/01938c5e-7a1b-7c3d-9e2f-ffffffffffff';

const bytes = (text: string) => new TextEncoder().encode(text);
const sign = (claims: JWTPayload, key: CryptoKey | Uint8Array, alg: string, expires = '1h', kid = 'k1') =>
  new SignJWT(claims).setProtectedHeader({ alg, kid }).setExpirationTime(expires).sign(key);
const base64 = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

/** What `app` answers to a GET with this token: 404, as nobody has the id, or the refusal. */
const read = (app: PeopleApp, headers?: Record<string, string>) =>
  app.request(ABSENT, headers && { headers });

async function expectRefusal(response: Response, status: number, challenge: string) {
  expect(response.headers.get('www-authenticate')).toBe(challenge);
  expect(response.headers.get('content-type')).toBe('application/problem+json; charset=utf-8');
  expect(await response.json()).toMatchObject({ status, instance: new URL(response.url).pathname });
  expect(response.status).toBe(status);
}
const INVALID = 'Bearer error="invalid_token"';

describe('AUTH=jwt with AUTH_SECRET', () => {
  const app = duringTests(() => startPeopleApp({ ...ISSUED, AUTH_SECRET: SECRET }));
  const hs256 = (claims: JWTPayload, secret = SECRET, expires?: string) =>
    sign(claims, bytes(secret), 'HS256', expires);

  it('asks for a token where there is none, or something else than a bearer token', async () => {
    await expectRefusal(await read(app), 401, 'Bearer');
    for (const authorization of ['Basic dTpw', 'Bearer', 'Bearer a b', await hs256(CLAIMS)]) {
      await expectRefusal(await read(app, { authorization }), 401, 'Bearer');
    }
  });

  it('takes a token of its own issuer for its own audience, one of several too', async () => {
    expect((await read(app, bearer(await hs256(CLAIMS)))).status).toBe(404);
    expect((await read(app, bearer(await hs256({ ...CLAIMS, aud: ['other', 'people'] })))).status).toBe(404);
    expect((await read(app, { authorization: `bearer ${await hs256(CLAIMS)}` })).status).toBe(404);
  });

  it.each<[string, () => string | Promise<string>]>([
    ['is malformed', () => 'no.jwt.atall'],
    ['has expired', () => hs256(CLAIMS, SECRET, '-1h')],
    ['never expires', () => new SignJWT(CLAIMS).setProtectedHeader({ alg: 'HS256' }).sign(bytes(SECRET))],
    ['is signed with another secret', () => hs256(CLAIMS, 'b'.repeat(40))],
    [
      'was changed after signing',
      async () => (await hs256(CLAIMS)).replace(/\..*\./, `.${base64({ ...CLAIMS, exp: 4e9 })}.`),
    ],
    ['is from another issuer', () => hs256({ ...CLAIMS, iss: 'https://other.test' })],
    ['is for another audience', () => hs256({ ...CLAIMS, aud: 'others' })],
    ['names no audience', () => hs256({ iss: CLAIMS.iss, scope: CLAIMS.scope })],
    ['is not yet valid', () => hs256({ ...CLAIMS, nbf: 4e9 })],
    ['is not signed (alg none)', () => `${base64({ alg: 'none' })}.${base64({ ...CLAIMS, exp: 4e9 })}.`],
    ['is signed with another algorithm', () => sign(CLAIMS, bytes(SECRET.repeat(2)), 'HS512')],
  ])('refuses a token that %s', async (_, token) => {
    await expectRefusal(await read(app, bearer(await token())), 401, INVALID);
  });

  it('needs people:read to read and people:write to write', async () => {
    const lacks = (scope: string) => `Bearer error="insufficient_scope", scope="${scope}"`;
    const reader = bearer(await hs256({ ...CLAIMS, scope: 'openid people:read' }));
    const writer = bearer(await hs256({ ...CLAIMS, scope: 'people:write' }));
    const json = '{"name":"Ada"}';
    expect((await read(app, reader)).status).toBe(404);
    expect((await app.request(ABSENT, { method: 'HEAD', headers: reader })).status).toBe(404);
    expect((await app.request('/people?name=Ada', { headers: reader })).status).toBe(200);
    await expectRefusal(await read(app, writer), 403, lacks('people:read'));
    expect((await app.send('POST', '/people', json, writer)).status).toBe(201);
    const writes: [string, string][] = [
      ['POST', '/people'],
      ['POST', '/people/bulk'],
      ['PATCH', ABSENT],
      ['DELETE', ABSENT],
    ];
    for (const [method, path] of writes) {
      const body = method === 'DELETE' ? undefined : json;
      const headers = { ...reader, ...(body && { 'content-type': 'application/json' }) };
      const response = await app.request(path, { method, headers, ...(body && { body }) });
      await expectRefusal(response, 403, lacks('people:write'));
    }
    const rows = await app.database.query('SELECT count(*)::int AS n FROM people');
    expect(rows).toEqual([{ n: 1 }]);
  });

  it('reads scopes from scp and from lists as well, and a longer scope is another scope', async () => {
    const { scope, ...unscoped } = CLAIMS;
    expect((await read(app, bearer(await hs256({ ...unscoped, scp: scope.split(' ') })))).status).toBe(404);
    for (const claims of [unscoped, { ...unscoped, scope: 'people:readers xpeople:read' }]) {
      expect((await read(app, bearer(await hs256(claims)))).status).toBe(403);
    }
  });

  it('tells probes how it is, and the reasons, metrics and documentation to whoever has a token', async () => {
    const known = bearer(await hs256({ ...CLAIMS, scope: '' }));
    for (const path of ['/metrics', '/docs', '/docs/', '/docs/swagger-ui.css', '/docs-json', '/docs-yaml']) {
      await expectRefusal(await app.request(path), 401, 'Bearer');
      await expectRefusal(await app.request(path, { headers: bearer('a.b.c') }), 401, INVALID);
      expect([path, (await app.request(path, { headers: known })).status]).toEqual([path, 200]);
    }
    expect((await app.request('/health/live')).status).toBe(200);
    for (const headers of [{}, bearer('a.b.c')]) {
      const response = await app.request('/health/ready', { headers });
      expect([response.status, await response.json()]).toEqual([200, { status: 'ok' }]);
    }
    expect(await (await app.request('/health/ready', { headers: known })).json()).toMatchObject({
      details: { database: { status: 'up' } },
    });
  });

  it('does not show who may only write the person that is changed', async () => {
    const headers = bearer(await hs256({ ...CLAIMS, scope: 'people:write' }));
    const { id } = await app.people.create({ name: 'Secret', data: { s: 1 } });
    for (const [type, body] of [
      ['application/json', '{}'],
      ['application/merge-patch+json', '{"data":{}}'],
    ]) {
      const response = await app.send('PATCH', `/people/${id}`, body!, { ...headers, 'content-type': type! });
      expect([response.status, await response.text(), response.headers.get('etag')]).toEqual([
        204,
        '',
        expect.stringMatching(/^"[\d.]+"$/),
      ]);
    }
  });
});

describe('AUTH=jwt with AUTH_JWKS_URL', () => {
  let app: PeopleApp;
  let issuer: Server;
  let publicKey: CryptoKey;
  let privateKey: CryptoKey;
  let unavailable = false;

  beforeAll(async () => {
    ({ publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true }));
    const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', use: 'sig' }] });
    issuer = createServer((_, response) => {
      response.writeHead(unavailable ? 500 : 200, { 'content-type': 'application/json' }).end(jwks);
    });
    await new Promise<void>((resolve) => issuer.listen(0, '127.0.0.1', resolve));
    app = await startIssued();
  });
  afterAll(async () => {
    await app.close();
    await new Promise((resolve) => issuer.close(resolve));
  });
  const startIssued = () =>
    startPeopleApp({
      ...ISSUED,
      AUTH_JWKS_URL: `http://127.0.0.1:${(issuer.address() as AddressInfo).port}/`,
    });

  it("takes what one of the issuer's keys has signed", async () => {
    expect((await read(app, bearer(await sign(CLAIMS, privateKey, 'RS256')))).status).toBe(404);
  });

  it.each<[string, () => Promise<string>]>([
    ['by another key', async () => sign(CLAIMS, (await generateKeyPair('RS256')).privateKey, 'RS256')],
    ['by a key that the issuer does not have', () => sign(CLAIMS, privateKey, 'RS256', '1h', 'k2')],
    ['as HS256 with the public key', async () => sign(CLAIMS, bytes(await exportSPKI(publicKey)), 'HS256')],
    ['too long ago', () => sign(CLAIMS, privateKey, 'RS256', '-1h')],
  ])('refuses what was signed %s', async (_, token) => {
    await expectRefusal(await read(app, bearer(await token())), 401, INVALID);
  });

  it('answers 503, not that the token is bad, while the keys cannot be had', async () => {
    unavailable = true;
    const other = await startIssued();
    const headers = bearer(await sign(CLAIMS, privateKey, 'RS256'));
    const response = await read(other, headers);
    expect([response.status, response.headers.get('www-authenticate')]).toEqual([503, null]);
    expect(response.headers.get('retry-after')).toBe('1');
    expect(await response.json()).toMatchObject({
      type: '/problems/token-keys-unavailable',
      instance: ABSENT,
    });
    unavailable = false;
    expect((await read(other, headers)).status).toBe(404);
    await other.close();
  });
});
