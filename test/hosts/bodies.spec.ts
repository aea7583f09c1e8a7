import type { INestApplication } from '@nestjs/common';
import type { NestExpressApplication } from '@nestjs/platform-express';
import { preparePeopleHost } from '../../src/people/http/prepare-host.js';
import { duringTests } from '../support/during-tests.js';
import { createDatabase } from '../support/test-database.js';
import { PLATFORMS } from '../support/transactions-host.js';
import { type HttpHost, type HttpHostOptions, startHttpHost } from './http-host.js';

const U64 = '18446744073709551615';
const MERGE_PATCH = 'application/merge-patch+json';
/** Past what Express' parsers take where they are told nothing. */
const LONG = 'x'.repeat(200_000);

const database = duringTests(() => createDatabase());
let host: HttpHost | undefined;
afterEach(() => host?.close());

const asPrefixed = (app: INestApplication) => void app.setGlobalPrefix('api/:tenant');
const ownParsers = (app: INestApplication) => {
  (app as NestExpressApplication).useBodyParser('json', { type: '*/*', limit: '50kb' });
  (app as NestExpressApplication).useBodyParser('raw', { type: '*/*', limit: '50kb' });
};
const prepared = (app: INestApplication) => void preparePeopleHost(app);

const HOSTS: [string, (typeof PLATFORMS)[number], HttpHostOptions][] = [
  ...PLATFORMS.flatMap((platform): typeof HOSTS => [
    [`as it is, on ${platform}`, platform, {}],
    [`with a prefix, on ${platform}`, platform, { prepare: asPrefixed }],
    [`with no parsers, on ${platform}`, platform, { nest: { bodyParser: false } }],
    [`with rawBody, on ${platform}`, platform, { nest: { rawBody: true }, prepare: prepared }],
  ]),
  ['with parsers of its own for all types, on express', 'express', { prepare: ownParsers }],
];

// @trap parsers of the application round numbers, or refuse what they were not told of
it.each(HOSTS)(
  'a host %s, has people created, patched and imported with every digit',
  async (name, platform, options) => {
    const { send } = (host = await startHttpHost(platform, database.url, options));
    const people = name.includes('prefix') ? '/api/a/people' : '/people';
    const created = await send(
      'POST',
      people,
      `{"name":"Ada","data":{"n":${U64}}}`,
      'application/json; charset=utf-8',
    );
    const { id } = (await created.clone().json()) as { id: string };
    expect([created.status, await created.text()]).toEqual([201, expect.stringContaining(U64)]);
    const replaced = await send('PATCH', `${people}/${id}`, `{"data":{"n":${U64}},"name":"${LONG}"}`);
    expect(replaced.status).toBe(200);
    const merged = await send('PATCH', `${people}/${id}`, `{"name":"Ada","data":{"m":${U64},"long":"${LONG}"}}`, MERGE_PATCH); // prettier-ignore
    expect([merged.status, (await merged.text()).split(U64)]).toMatchObject([200, { length: 3 }]);
    const many = await send(
      'POST',
      `${people}/bulk`,
      `[{"name":"Bulk","data":{"n":${U64}}},{"name":"${LONG}"}]`,
    );
    expect([many.status, await many.json()]).toEqual([201, { inserted: 2 }]);
    const imported = await send('POST', `${people}/bulk`, `{"name":"Line","data":{"n":${U64}}}\n`, 'application/x-ndjson'); // prettier-ignore
    expect([imported.status, await imported.json()]).toEqual([201, { inserted: 1 }]);
    for (const [type, status] of [
      ['text/csv', 415],
      ['application/vnd.nestjs-people.unread', 415],
      ['application/json', 400],
    ] as const)
      // prettier-ignore
      expect((await send('POST', people, 'a,b', type)).status).toBe(status);
  },
);

it.each(PLATFORMS)(
  'a host’s own routes on %s have their bodies parsed, bounded and kept as it has asked for',
  async (platform) => {
    const json = '{"n":1}';
    const { send } = (host = await startHttpHost(platform, database.url));
    expect(await (await send('POST', '/host/echo', json)).json()).toEqual({ body: { n: 1 }, raw: null });
    expect((await send('POST', '/host/echo', `"${'x'.repeat(2_000_000)}"`)).status).toBe(413);
    expect((await send('POST', '/host/echo', json, 'application/vnd.nestjs-people.unread')).status).toBe(platform === 'fastify' ? 415 : 201); // prettier-ignore
    await host.close();
    const { send: sendRaw } = (host = await startHttpHost(platform, database.url, {
      nest: { rawBody: true },
    }));
    expect(await (await sendRaw('POST', '/host/echo', json)).json()).toEqual({ body: { n: 1 }, raw: json });
    // Whoever checks signatures of raw bodies in a guard does so for people as well.
    const created = await sendRaw('POST', '/people', `{"name":"Ada","data":{"n":${U64}}}`);
    expect(await created.text()).toContain(U64);
  },
);

it.each(PLATFORMS)('the limits of preparePeopleHost hold on %s, for people alone', async (platform) => {
  const prepare = (app: INestApplication) =>
    void preparePeopleHost(app, { bodyLimitBytes: 100, bulkBodyLimitBytes: 200 });
  const { send } = (host = await startHttpHost(platform, database.url, { prepare }));
  const long = JSON.stringify({ name: 'x'.repeat(100) });
  expect((await send('POST', '/people', long)).status).toBe(413);
  expect((await send('POST', '/people/bulk', `[${long}]`)).status).toBe(201);
  expect((await send('POST', '/people/bulk', `[${long},${long}]`)).status).toBe(413);
  expect((await send('POST', '/host/echo', long)).status).toBe(201);
});

it('preparePeopleHost names what is wrong, and a parser that nobody can know of is told what to do', async () => {
  const { app } = (host = await startHttpHost('express', database.url, {
    people: { controllers: { http: true, messages: false } },
    prepare: (own) =>
      own.use(async (request: AsyncIterable<Buffer> & { body?: unknown }, _: unknown, next: () => void) => {
        for await (const chunk of request) request.body = JSON.parse(String(chunk));
        next();
      }),
  }));
  expect(() => preparePeopleHost(app, { bodyLimitBytes: 0 })).toThrow(
    'bodyLimitBytes must be a whole number',
  );
  expect(() => preparePeopleHost(app, { bodyLimit: 1 } as never)).toThrow('there is no option bodyLimit');
  const bare = { get: () => { throw new Error('unknown'); } } as unknown as INestApplication; // prettier-ignore
  expect(() => preparePeopleHost(bare)).toThrow('import PeopleModule');
  expect((await host.send('POST', '/people', '{"name":"Ada"}')).status).toBe(500);
});
