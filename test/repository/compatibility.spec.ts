import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import satisfies from 'semver/functions/satisfies.js';
import minVersion from 'semver/ranges/min-version.js';
import { SERVICE_PACKAGES } from '../../src/app/commands/start.js';

interface Environment {
  name: string;
  node: number;
  versions: Record<string, string>;
}

const page = readFileSync('docs/compatibility.md', 'utf8');
const read = <T>(file: string) => JSON.parse(readFileSync(file, 'utf8')) as T;
const { engines, peerDependencies, peerDependenciesMeta } = read<{
  engines: { node: string };
  peerDependencies: Record<string, string>;
  peerDependenciesMeta: Record<string, { optional?: boolean }>;
}>('package.json');
const { packages } = read<{ packages: Record<string, { version: string }> }>('package-lock.json');
const { environments } = read<{ environments: Environment[] }>('.ci/matrix.json');
const needed = Object.entries(peerDependencies).filter(([name]) => !peerDependenciesMeta[name]?.optional);
/** A row's version; where it names none, the lock's. */
const versionIn = ({ versions }: Environment, name: string) =>
  versions[name] ?? packages[`node_modules/${name}`]!.version;

it('the page of compatibility has the ranges of package.json', () => {
  const rows = [...page.matchAll(/^\| (?:`([@\w/-]+)`|(Node)) \| `([^`]+)` \|/gm)].map(
    ([, name, node, range]) => [name ?? node, range!.replaceAll('\\|', '|')],
  );
  expect(Object.fromEntries(rows)).toEqual({ Node: engines.node, ...peerDependencies });
});

it('the page of compatibility has the versions of the matrix, and no tests that have failed', () => {
  const columns = ['@nestjs/core', '@nestjs/typeorm', 'typeorm', 'pg', 'class-validator', '@nestjs/swagger'];
  const rows = [...page.matchAll(/^\| `([\w-]+)` \| (\d+) \| (.*) \| (\d+|–) \|$/gm)];
  const told = rows.map(([, name, node, versions]) => [name, Number(node), ...versions!.split(' | ')]);
  const expected = environments.map((environment) => [
    environment.name,
    environment.node,
    ...columns.map((name) => versionIn(environment, name)),
  ]);
  expect(told).toEqual(expected);
});

it.each(needed)(
  'the matrix has the first version of each line of %s that is supported: %s',
  (name, range) => {
    const tested = environments.map((environment) => versionIn(environment, name));
    expect(tested.filter((version) => !satisfies(version, range))).toEqual([]);
    const firsts = range.split(' || ').map((line) => minVersion(line)!.version);
    expect(firsts.filter((first) => !tested.includes(first))).toEqual([]);
  },
);

it('the matrix has each Node that is supported and has not ended', () => {
  expect(environments.map(({ node }) => node)).toEqual([20, 22, 24, 26]);
});

it('the page of testing shows the recipes as they are run', () => {
  const testing = readFileSync('docs/testing.md', 'utf8');
  const shown = [...testing.matchAll(/^```[jt]s\n\/\/ (.*)\n([^]*?)```$/gm)].map(([, , text]) => text);
  const files = readdirSync('.ci/recipes', { recursive: true, encoding: 'utf8' })
    .filter((file) => /\.(service|spec|config)\.[jt]s$/.test(file))
    .map((file) => readFileSync(`.ci/recipes/${file}`, 'utf8'));
  expect(shown.sort()).toEqual(files.sort());
});

describe('an entry of the package', () => {
  const STATIC = /^(?:import|export)\b[^;]*?['"]([^'"]+)['"];/gm;
  const OPTIONAL = [...Object.keys(peerDependenciesMeta), ...SERVICE_PACKAGES];

  it.each([
    ['src/index', OPTIONAL],
    ['src/transactions', [...OPTIONAL, '@nestjs/swagger', '@nestjs/microservices', 'class-validator']],
    ['src/messaging', [...OPTIONAL, '@nestjs/swagger', 'class-validator']],
    ['src/testing', [...OPTIONAL, '@nestjs/swagger', '@nestjs/microservices', 'class-validator']],
    ['migrations/index', [...OPTIONAL, '@nestjs/common']],
  ])('loads nothing that a host application may lack, and needs no types of it: %s', (entry, without) => {
    for (const kind of ['.js', '.d.ts']) {
      const loaded = packagesFrom(path.resolve('dist', entry), kind);
      expect([kind, without.filter((name) => loaded.has(name))]).toEqual([kind, []]);
      if (entry !== 'migrations/index' || kind === '.d.ts') expect(loaded.size).toBeGreaterThan(0);
    }
  });

  /** The packages that a file and what it imports need before anything runs: what is imported by a call is left for its time. */
  function packagesFrom(file: string, kind: string, seen = new Set<string>()): Set<string> {
    if (seen.has(file)) return new Set();
    seen.add(file);
    const text = readFileSync(`${file}${kind}`, 'utf8');
    // A type may be named by a call of its own as well.
    const imports = kind === '.js' ? STATIC : new RegExp(`${STATIC.source}|\\bimport\\(['"]([^'"]+)`, 'gm');
    const named = [...text.matchAll(imports)].map(([, name, inType]) => (name ?? inType)!);
    return new Set(
      named.flatMap((name) =>
        name.startsWith('.')
          ? [...packagesFrom(path.join(path.dirname(file), name.replace(/\.js$/, '')), kind, seen)]
          : [/^(@[^/]+\/)?[^/]+/.exec(name)![0]],
      ),
    );
  }
});
