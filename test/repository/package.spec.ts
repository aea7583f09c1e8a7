import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { builtinModules } from 'node:module';
import path from 'node:path';
import { SERVICE_PACKAGES } from '../../src/app/commands/start.js';
import { eventually } from '../support/barrier.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

const U64_MAX = '18446744073709551615';
const DATA = `{"many_many_fields":${U64_MAX},"dict":{"a":"b"}}`;

/** What programs need to be found, and npm to reach its registry; nothing of this run's own settings. */
const environment = {
  ...pick(
    process.env,
    /^(path|home|tmpdir|npm_config_(registry|cache|userconfig)|(https?|no)_proxy|node_extra_ca_certs)$/i,
  ),
  SCARF_ANALYTICS: 'false',
};

let directory: string | undefined;
let host: string;
let packed: string[];
let database: TestDatabase | undefined;
let url: string;
const children = new Set<ChildProcess>();

/** The example as a team would have it: a directory of its own, our tarball, npm install, build, start. */
beforeAll(async () => {
  mkdirSync('.data', { recursive: true });
  directory = mkdtempSync(path.resolve('.data', 'package-'));
  host = path.join(directory, 'host-app');
  cpSync('examples/host-app', host, {
    recursive: true,
    filter: (file) => !/^(node_modules|dist|package-lock\.json|.*\.tgz)$/.test(path.basename(file)),
  });
  const answer = await npm('.', 'pack', '--json', '--ignore-scripts', '--pack-destination', directory);
  const [{ filename, files }] = JSON.parse(answer) as [{ filename: string; files: { path: string }[] }];
  packed = files.map((file) => file.path);
  renameSync(path.join(directory, filename), path.join(host, 'nestjs-people.tgz'));
  // Nothing that is installed here needs its install script; one of them is telemetry.
  await npm(host, 'install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline');
  await npm(host, 'run', 'build');
  database = await createDatabase('template0');
  url = await startHost(database.url);
}, 240_000);

afterAll(async () => {
  await Promise.all([...children].map(stop));
  await database?.drop();
  if (directory) rmSync(directory, { recursive: true, force: true });
});

describe('the tarball', () => {
  it('holds what was built and the documents, and nothing else', () => {
    const documents = [
      'package.json',
      'README.md',
      'LICENSE',
      'ARCHITECTURE.md',
      'CHANGELOG.md',
      'CONTRIBUTING.md',
      'SECURITY.md',
      ...readdirSync('docs', { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map(({ parentPath, name }) => path.join(parentPath, name)),
    ];
    const page = readdirSync('src/operations/console/assets').map(
      (file) => `dist/src/operations/console/assets/${file}`,
    );
    const others = [...page, 'dist/src/app/init/collection.json'];
    const built = packed.filter(
      (file) => /^dist\/.*\.(js|js\.map|d\.ts)$/.test(file) || others.includes(file),
    );
    expect(built).toEqual(expect.arrayContaining(others));
    expect([...packed].sort()).toEqual([...built, ...documents].sort());
    expect(built.filter((file) => /(^|\/)(test|bench|examples|\.data)\/|\.spec\./.test(file))).toEqual([]);
    expect(built).toEqual(
      expect.arrayContaining([
        'dist/src/index.js',
        'dist/src/index.d.ts',
        'dist/migrations/index.js',
        ...['transactions', 'messaging', 'testing', 'main'].map((entry) => `dist/src/${entry}.js`),
      ]),
    );
  });

  it('imports only what its package.json names', () => {
    const root = path.join(host, 'node_modules', 'nestjs-people');
    const { dependencies, peerDependencies } = JSON.parse(
      readFileSync(path.join(root, 'package.json'), 'utf8'),
    );
    const known = { ...dependencies, ...peerDependencies };
    // What only the service needs is said by its command where it is missing.
    const named = [...Object.keys(known), ...SERVICE_PACKAGES, ...builtinModules];
    const imported = readdirSync(path.join(root, 'dist'), { recursive: true, encoding: 'utf8' })
      // The embedded servers come from a development dependency: they are for the checkout.
      .filter((file) => /\.(js|d\.ts)$/.test(file) && !file.startsWith('src/dev/'))
      .flatMap((file) => importsOf(readFileSync(path.join(root, 'dist', file), 'utf8')));
    expect(imported).toContain('@nestjs/common');
    expect([...new Set(imported)].filter((name) => !named.includes(name))).toEqual([]);
  });

  it.each([
    ['imported', '--input-type=module', (entry: string) => `import * as it from '${entry}';`],
    ['required', '--input-type=commonjs', (entry: string) => `const it = require('${entry}');`],
  ])('can be %s', async (_, type, load) => {
    const show = (entry: string, what: string) =>
      run(process.execPath, [type, '-e', `${load(entry)} console.log(${what})`], host);
    const kinds =
      '[it.PeopleModule, it.PeopleService, it.TransactionRunner, it.KafkaTransport].map((each) => typeof each).join()';
    expect(await show('nestjs-people', kinds)).toBe('function,function,function,function\n');
    expect(await show('nestjs-people/migrations', 'it.peopleMigrations.length > 0')).toBe('true\n');
    expect(await show('nestjs-people/transactions', '[typeof it.TransactionsModule, it.PeopleModule]')).toBe(
      "[ 'function', undefined ]\n",
    );
    expect(await show('nestjs-people/messaging', 'typeof it.MessagingModule')).toBe('function\n');
    expect(await show('nestjs-people/testing', 'typeof it.fakeTransactionRunner')).toBe('function\n');
  });

  it('brings nothing along that only the service needs', () => {
    const installed = (name: string) => existsSync(path.join(host, 'node_modules', name));
    expect(SERVICE_PACKAGES.filter(installed)).toEqual([]);
    const { dependencies } = JSON.parse(readFileSync('src/app/package.json', 'utf8'));
    expect(Object.keys(dependencies)).toEqual(SERVICE_PACKAGES);
  });

  it('has a command for dead letters that works there', async () => {
    const command = path.join(host, 'node_modules/.bin/nestjs-people');
    const listed = run(command, ['dead-letters', 'list'], host, { DATABASE_URL: database!.url });
    await expect(listed).resolves.toBe('');
  });
});

describe('a route of the host’s own', () => {
  it('writes a row of its own and a person in one transaction', async () => {
    const signed = await sign('Lease', person('Ada'));
    expect(signed.status).toBe(201);
    const contract = await json<{ personId: string }>(signed);
    expect(await json(await fetch(`${url}/contracts`))).toContainEqual(contract);
    expect(await (await fetch(`${url}/people/${contract.personId}`)).text()).toBe(
      `{"id":"${contract.personId}","name":"Ada","data":${DATA}}`,
    );
    // Both rows were made by the same transaction.
    const contracts = await database!.query(`SELECT xmin FROM contracts WHERE title = 'Lease'`);
    expect(await database!.query(`SELECT xmin FROM people WHERE name = 'Ada'`)).toEqual(contracts);
    expect(contracts).toHaveLength(1);
  });

  it('writes neither when the second of them fails', async () => {
    await sign('Sale', person('Barbara'));
    const refused = await sign('Sale', person('Grace'));
    expect(await problem(refused)).toMatchObject({ status: 409, type: '/problems/conflict' });
    expect(await signers('Sale')).toEqual(['Barbara']);
    expect(await database!.query(`SELECT FROM people WHERE name = 'Grace'`)).toEqual([]);
  });

  it('writes neither when the person is refused, and says which field it was', async () => {
    const refused = await sign('Will', person('Hedy').replace(U64_MAX, '-1'));
    const pointer = expect.stringContaining('/data/many_many_fields');
    expect(await problem(refused)).toMatchObject({ status: 400, errors: [{ pointer }] });
    expect(await signers('Will')).toEqual([]);
    expect(await database!.query(`SELECT FROM people WHERE name = 'Hedy'`)).toEqual([]);
  });

  it('runs again when it collides: of four at once one signs, the others then find it signed', async () => {
    const query = (text: string) => database!.query(text);
    await query('BEGIN');
    await query('LOCK contracts');
    const answers = Promise.all([1, 2, 3, 4].map(() => sign('Deed', person('Emmy'))));
    // All four wait where they look for the title, in snapshots in which nobody has signed it.
    const waiting = `SELECT FROM pg_locks WHERE relation = 'contracts'::regclass AND NOT granted`;
    await eventually(async () => (await query(waiting)).length === 4).finally(() => query('COMMIT'));
    expect((await answers).map(({ status }) => status).sort()).toEqual([201, 409, 409, 409]);
    expect(await signers('Deed')).toEqual(['Emmy']);
    expect(await query(`SELECT FROM people WHERE name = 'Emmy'`)).toHaveLength(1);
  });

  it.each([
    ['no body', 400, '/contracts', ''],
    ['half a body', 400, '/contracts', '{"title":'],
    ['a field that is wrong', 400, '/contracts', `{"title":1,"signer":${person('x')}}`],
    ['half a body of people', 400, '/people', '{"name":'],
    ['a path that is not there', 404, '/nothing', '{}'],
  ])('answers %s with a problem', async (_, status, route, body) => {
    expect(await problem(await send('POST', route, body))).toMatchObject({ status });
  });
});

describe('the routes of people, on Express', () => {
  it('create, and keep every digit', async () => {
    const created = await send('POST', '/people', person('Linus'));
    expect(created.status).toBe(201);
    const text = await created.text();
    expect(text).toContain(`"name":"Linus","data":${DATA}`);
    const stored = await fetch(`${url}${created.headers.get('location')}`);
    expect(await stored.text()).toBe(text);
    expect(stored.headers.get('etag')).toBe(created.headers.get('etag'));
  });

  it('refuse data that does not fit the host’s class, naming each field', async () => {
    const wrong = `{"many_many_fields":18446744073709551616,"dict":{"a":1},"more":true}`;
    const refused = await problem(await send('POST', '/people', `{"name":"x","data":${wrong}}`));
    expect(refused).toMatchObject({ status: 400, type: '/problems/invalid-input', instance: '/people' });
    expect(refused.errors).toEqual(
      expect.arrayContaining([
        { pointer: '#/data/many_many_fields', detail: `must be a whole number from 0 to ${U64_MAX}` },
        { pointer: '#/data/dict', detail: 'must have strings only for values' },
        { pointer: '#/data/more', detail: 'is not a known field' },
      ]),
    );
  });

  it('answer 304 to the version that is known', async () => {
    const { location, etag } = await create('Margaret');
    const known = await fetch(`${url}${location}`, { headers: { 'if-none-match': etag } });
    expect([known.status, await known.text()]).toEqual([304, '']);
    const other = await fetch(`${url}${location}`, { headers: { 'if-none-match': '"1.2.3"' } });
    expect(other.status).toBe(200);
  });

  it('merge a merge patch, replace otherwise, and only the version that was asked for', async () => {
    const { location, etag } = await create('Katherine');
    const patch = '{"data":{"dict":{"a":null,"c":"d"}}}';
    const merged = await send('PATCH', location, patch, 'application/merge-patch+json', { 'if-match': etag });
    expect([merged.status, await merged.text()]).toEqual([
      200,
      expect.stringContaining(`"data":{"many_many_fields":${U64_MAX},"dict":{"c":"d"}}`),
    ]);
    const late = await send('PATCH', location, patch, 'application/merge-patch+json', { 'if-match': etag });
    expect(await problem(late)).toMatchObject({ status: 412, type: '/problems/person-changed' });
    const cleared = await send('PATCH', location, '{"data":null}');
    expect(await cleared.json()).toMatchObject({ name: 'Katherine', data: null });
  });

  it('delete, once', async () => {
    const { location } = await create('Edsger');
    const remove = () => fetch(`${url}${location}`, { method: 'DELETE' });
    expect((await remove()).status).toBe(204);
    expect(await problem(await remove())).toMatchObject({ status: 404, type: '/problems/person-not-found' });
  });

  it('take many people as an array longer than Express would by itself, and as lines', async () => {
    const people = Array.from({ length: 1500 }, (_, index) => person(`many ${index}`));
    const array = `[${people.join(',')}]`;
    expect(array.length).toBeGreaterThan(100 * 1024);
    expect(await (await send('POST', '/people/bulk', array)).json()).toMatchObject({ inserted: 1500 });
    const lines = `${people.join('\n')}\n`;
    const streamed = await send('POST', '/people/bulk', lines, 'application/x-ndjson');
    expect([streamed.status, await streamed.json()]).toEqual([201, { inserted: 1500 }]);
  });

  it('store no line when one is wrong, and say which', async () => {
    const lines = `${person('line')}\n${person('line').replace(U64_MAX, '-1')}\n`;
    const refused = await problem(await send('POST', '/people/bulk', lines, 'application/x-ndjson'));
    expect(refused).toMatchObject({ status: 400, detail: expect.stringMatching(/^Line 2: /) });
    expect(await database!.query(`SELECT FROM people WHERE name = 'line'`)).toEqual([]);
  });

  it('find by name, in pages and as lines', async () => {
    await send('POST', '/people/bulk', `[${person('Same')},${person('Same')},${person('Same')}]`);
    const page = async (cursor = '') =>
      json<{ items: unknown[]; next: string | null }>(
        await fetch(`${url}/people?name=Same&limit=2${cursor}`),
      );
    const first = await page();
    const rest = await page(`&cursor=${first.next}`);
    expect([first.items.length, rest.items.length, rest.next]).toEqual([2, 1, null]);
    const lines = await fetch(`${url}/people?name=Same`, { headers: { accept: 'application/x-ndjson' } });
    const texts = (await lines.text()).trimEnd().split('\n');
    expect(texts).toEqual(Array(3).fill(expect.stringContaining(`"data":${DATA}`)));
  });
});

function person(name: string): string {
  return `{"name":"${name}","data":${DATA}}`;
}

function send(
  method: string,
  route: string,
  body: string,
  type = 'application/json',
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(`${url}${route}`, { method, body, headers: { 'content-type': type, ...headers } });
}

const sign = (title: string, signer: string) =>
  send('POST', '/contracts', `{"title":"${title}","signer":${signer}}`);

async function create(name: string): Promise<{ location: string; etag: string }> {
  const { headers } = await send('POST', '/people', person(name));
  return { location: headers.get('location')!, etag: headers.get('etag')! };
}

async function problem(response: Response) {
  expect(response.headers.get('content-type')).toMatch(/^application\/problem\+json/);
  const body = await json<{ status: number; errors?: unknown }>(response);
  expect(body.status).toBe(response.status);
  return body;
}

async function json<Body>(response: Response): Promise<Body> {
  return (await response.json()) as Body;
}

/** The names of those who signed what has this title. */
async function signers(title: string): Promise<string[]> {
  const signed = 'SELECT name FROM people JOIN contracts ON person_id = people.id WHERE title = $1';
  return (await database!.query<{ name: string }>(signed, [title])).map(({ name }) => name);
}

async function startHost(databaseUrl: string): Promise<string> {
  const server = start(process.execPath, ['dist/src/main.js'], host, {
    DATABASE_URL: databaseUrl,
    PORT: '0',
    NO_COLOR: '1',
  });
  let output = '';
  for (const stream of [server.stdout, server.stderr]) stream.on('data', (data) => (output += data));
  return eventually(() => {
    if (server.exitCode !== null) throw new Error(`The host application did not start:\n${output}`);
    return /listening on (\S+)/.exec(output)?.[1];
  }, 30_000);
}

/** Runs a program to its end and resolves with what it wrote. */
async function run(
  command: string,
  args: string[],
  cwd: string,
  extra: Record<string, string> = {},
): Promise<string> {
  const child = start(command, args, cwd, extra);
  let output = '';
  let errors = '';
  child.stdout.on('data', (data) => (output += data));
  child.stderr.on('data', (data) => (errors += data));
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}:\n${output}${errors}`);
  return output;
}

function npm(cwd: string, ...args: string[]): Promise<string> {
  return run('npm', [...args, '--logs-max=0'], cwd);
}

function start(command: string, args: string[], cwd: string, extra: Record<string, string> = {}) {
  const child = spawn(command, args, {
    cwd,
    env: { ...environment, ...extra },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.add(child);
  for (const event of ['exit', 'error']) child.once(event, () => children.delete(child));
  return child;
}

async function stop(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const kill = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await ended;
  clearTimeout(kill);
}

function importsOf(text: string): string[] {
  return [...text.matchAll(/(?:\bfrom|\bimport|\bimport\(|\brequire\()\s*['"](@?\w[^'"\s]*)['"]/g)].map(
    ([, name]) => name!.replace(/^node:/, '').replace(/^((?:@[^/]+\/)?[^/]+).*$/, '$1'),
  );
}

function pick(from: NodeJS.ProcessEnv, name: RegExp): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(from).filter(([key]) => name.test(key)));
}
