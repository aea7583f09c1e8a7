/**
 * What users get with the package: the licences of all that it needs, of which each has to be one that asks for no more than to
 * be named, and what npm knows of their vulnerabilities.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const TAKEN = new Set([
  '0BSD',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'BlueOak-1.0.0',
  'ISC',
  'MIT',
  'Python-2.0',
]);

const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8'));
const needed = Object.entries(packages).filter(
  ([path, { dev, devOptional, link }]) => path !== '' && !dev && !devOptional && !link,
);
const byLicence = new Map();
for (const [path, { license = 'none' }] of needed)
  byLicence.set(license, [...(byLicence.get(license) ?? []), path.replace(/^.*node_modules\//, '')]);
for (const [licence, names] of [...byLicence].sort())
  console.log(`${licence}: ${[...new Set(names)].sort().join(', ')}`);
// Of a package that has the code of others in it, all of their licences.
const isTaken = (licence) => licence.split(' AND ').every((one) => TAKEN.has(one));
const refused = [...byLicence.keys()].filter((licence) => !isTaken(licence));
if (refused.length > 0) fail(`These licences have to be looked at by somebody: ${refused.join(', ')}`);

const { message, metadata } = audit();
if (!metadata) console.error(`npm audit was left out, as the registry does not answer it: ${message}`);
else {
  const { total } = metadata.vulnerabilities;
  console.log(`npm audit --omit=dev: ${total} vulnerabilities in ${needed.length} packages`);
  if (total > 0) fail('Run npm audit --omit=dev for what to do about them.');
}

function audit() {
  try {
    return JSON.parse(run());
  } catch (failure) {
    // It exits with 1 both for what it has found and where it could not ask; what it prints tells which.
    if (!failure.stdout) throw failure;
    return JSON.parse(failure.stdout);
  }
}

function run() {
  const options = { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] };
  return execFileSync('npm', ['audit', '--omit=dev', '--json'], options);
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
