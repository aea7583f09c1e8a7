import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { eventually } from '../support/barrier.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

const run = promisify(execFile);
const environment = { PATH: process.env.PATH, HOME: process.env.HOME, SCARF_ANALYTICS: 'false' };
const npm = (cwd: string, ...args: string[]) =>
  run('npm', args, { cwd, env: environment, maxBuffer: 64 * 1024 * 1024 });

let directory: string;
let host: string;
let packed: { path: string }[];
let database: TestDatabase;
let server: ChildProcess | undefined;
let url: string;

/** The example as a team would have it: a directory of its own, our tarball, npm install, build, start. */
beforeAll(async () => {
  mkdirSync('.data', { recursive: true });
  directory = mkdtempSync(path.resolve('.data', 'package-'));
  host = path.join(directory, 'host-app');
  cpSync('examples/host-app', host, {
    recursive: true,
    filter: (file) => !/node_modules|dist|\.tgz$/.test(file),
  });
  const { stdout } = await npm('.', 'pack', '--json', '--ignore-scripts', '--pack-destination', directory);
  const [{ filename, files }] = JSON.parse(stdout);
  packed = files;
  renameSync(path.join(directory, filename), path.join(host, 'nestjs-people.tgz'));
  await npm(host, 'install', '--no-audit', '--no-fund', '--prefer-offline');
  await npm(host, 'run', 'build');
  database = await createDatabase('template0');
  server = spawn(process.execPath, ['dist/src/main.js'], {
    cwd: host,
    env: { ...environment, DATABASE_URL: database.url, PORT: '0' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  server.stdout!.on('data', (data) => (output += data));
  url = await eventually(() => /listening on (\S+)/.exec(output)?.[1], 60_000);
}, 240_000);

afterAll(async () => {
  if (server) {
    const ended = new Promise((resolve) => server!.once('exit', resolve));
    server.kill('SIGTERM');
    await ended;
  }
  await database?.drop();
  rmSync(directory, { recursive: true, force: true });
});

const send = (method: string, route: string, body: string, type = 'application/json') =>
  fetch(`${url}${route}`, { method, body, headers: { 'content-type': type } });
const signer = (name: string) =>
  `{"name":"${name}","data":{"many_many_fields":18446744073709551615,"dict":{"a":"b"}}}`;

it('the tarball holds what is needed to run and to read, and nothing else', () => {
  const paths = packed.map((file) => file.path);
  for (const needed of ['dist/src/index.js', 'dist/src/index.d.ts', 'dist/migrations/index.js', 'dist/src/main.js', 'README.md', 'LICENSE']) {
    expect(paths).toContain(needed);
  } // prettier-ignore
  expect(
    paths.filter((file) => !/^(dist\/.*\.(js|d\.ts|js\.map)|package\.json|LICENSE|[A-Z]+\.md)$/.test(file)),
  ).toEqual([]);
});

it('the package is imported, and required', async () => {
  const names = `['PeopleModule', 'PeopleService', 'TransactionRunner', 'KafkaTransport'].map((name) => typeof people[name])`;
  const evaluate = (script: string) => run(process.execPath, script.split('\n'), { cwd: host });
  const imported = await evaluate(
    `--input-type=module\n-e\nimport * as people from 'nestjs-people'; console.log(${names}.join())`,
  );
  const required = await evaluate(
    `--input-type=commonjs\n-e\nconst people = require('nestjs-people'); console.log(${names}.join())`,
  );
  expect([imported.stdout, required.stdout]).toEqual(Array(2).fill('function,function,function,function\n'));
});

it('a host writes its own row and a person in one transaction', async () => {
  const signed = await send('POST', '/contracts', `{"title":"Lease","signer":${signer('Ada')}}`);
  expect(signed.status).toBe(201);
  const { personId } = (await signed.json()) as { personId: string };
  const person = await fetch(`${url}/people/${personId}`);
  expect(await person.text()).toBe(
    `{"id":"${personId}","name":"Ada","data":{"many_many_fields":18446744073709551615,"dict":{"a":"b"}}}`,
  );
  expect(await database.query(`SELECT title, xmin::text FROM contracts WHERE title = 'Lease'`)).toEqual([
    {
      title: 'Lease',
      xmin: (await database.query<{ xmin: string }>(`SELECT xmin::text FROM people WHERE name = 'Ada'`))[0]!
        .xmin,
    },
  ]);
});

it('and neither when the second of them fails', async () => {
  await send('POST', '/contracts', `{"title":"Twice","signer":${signer('Barbara')}}`);
  const refused = await send('POST', '/contracts', `{"title":"Twice","signer":${signer('Grace')}}`);
  expect(refused.status).toBe(409);
  expect(refused.headers.get('content-type')).toMatch('application/problem+json');
  expect(await database.query(`SELECT FROM people WHERE name = 'Grace'`)).toEqual([]);
});

it('every route of people works on Express', async () => {
  const created = await send('POST', '/people', signer('Linus'));
  expect(created.status).toBe(201);
  const location = created.headers.get('location')!;
  const etag = created.headers.get('etag')!;
  expect((await fetch(`${url}${location}`, { headers: { 'if-none-match': etag } })).status).toBe(304);
  const patched = await send(
    'PATCH',
    location,
    '{"data":{"dict":{"a":null,"c":"d"}}}',
    'application/merge-patch+json',
  );
  expect(await patched.text()).toContain('"data":{"many_many_fields":18446744073709551615,"dict":{"c":"d"}}');
  expect((await fetch(`${url}${location}`, { method: 'DELETE', headers: { 'if-match': etag } })).status).toBe(
    412,
  );
  expect((await fetch(`${url}${location}`, { method: 'DELETE' })).status).toBe(204);
  const bulk = await send(
    'POST',
    '/people/bulk',
    `${signer('b1')}\n${signer('b2')}\n`,
    'application/x-ndjson',
  );
  expect(await bulk.json()).toEqual({ inserted: 2 });
  const array = await send('POST', '/people/bulk', `[${signer('b3')}]`);
  expect(await array.json()).toEqual({ inserted: 1, ids: [expect.any(String)] });
  const lines = await fetch(`${url}/people?name=b3`, { headers: { accept: 'application/x-ndjson' } });
  expect((await lines.text()).trimEnd().split('\n')).toHaveLength(1);
  const page = await fetch(`${url}/people?name=b1&limit=5`);
  expect(await page.json()).toMatchObject({ items: [{ name: 'b1' }], next: null });
});

it('data that does not fit the host’s class is a problem that names the field', async () => {
  const response = await send('POST', '/people', '{"name":"x","data":{"many_many_fields":-1,"dict":{}}}');
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({
    type: '/problems/invalid-input',
    errors: [
      { pointer: '#/data/many_many_fields', detail: 'must be a whole number from 0 to 18446744073709551615' },
    ],
  });
});
