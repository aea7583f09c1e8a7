// database/versions/: The versions that are installed of what the host application brings along: Nest, TypeORM, pg and the others.
// Promises: one that was not tested is refused at start, by a sentence that says what to install.
// May know: files named package.json; nothing of a database.

import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import satisfies from 'semver/functions/satisfies.js';

/** What of a package.json is read here. */
interface Manifest {
  name?: string;
  version: string;
  engines?: { node?: string };
  peerDependencies?: Record<string, string>;
  peerDependenciesMeta?: Record<string, { optional?: boolean }>;
}

const HERE = path.dirname(fileURLToPath(import.meta.url));
let isKnown = false;

/**
 * Looks, once in a process, whether what is installed is what this package was tested with. Package managers warn of it at most, and
 * what comes then is a method that is not there, in the middle of a transaction.
 *
 * @throws Error naming each version that is not supported, and what to install
 */
export function assertSupportedVersions(): void {
  if (isKnown) return;
  const own = ownManifest(HERE);
  // Bundled into one file, it has no package.json beside it, and what is in the bundle can't be told any more.
  const wrong = own && unsupportedIn(own, (name) => installedFrom(HERE, name)?.version);
  if (wrong) throw new Error(wrong);
  isKnown = true;
}

/**
 * @param versionOf the version that is installed, where that can be told
 * @returns a sentence that says what to install; undefined where all of it is supported
 */
export function unsupportedIn(
  { engines, peerDependencies = {}, peerDependenciesMeta = {} }: Manifest,
  versionOf: (name: string) => string | undefined,
  node = process.versions.node,
): string | undefined {
  const isOutside = (version: string | undefined, range: string) =>
    version !== undefined && !satisfies(version, range, { includePrerelease: true });
  const wrong = Object.entries(peerDependencies).filter(
    ([name, range]) => !peerDependenciesMeta[name]?.optional && isOutside(versionOf(name), range),
  );
  const found = wrong.map(([name]) => `${name} ${versionOf(name)}`);
  const wanted = wrong.map(([name, range]) => `"${name}@${range}"`);
  const install = wrong.length > 0 ? [`npm install ${wanted.join(' ')}`] : [];
  if (engines?.node && isOutside(node, engines.node)) {
    found.unshift(`Node ${node}`);
    install.unshift(`run Node ${engines.node}`);
  }
  if (found.length === 0) return undefined;
  return `nestjs-people was not tested with ${found.join(', ')}: ${install.join(', and ')} (docs/compatibility.md).`;
}

/** The package.json of this package, which is above this file, compiled or not. */
function ownManifest(directory: string): Manifest | undefined {
  for (const above of upwardsFrom(directory)) {
    const manifest = read(path.join(above, 'package.json'));
    if (manifest) return manifest.name === 'nestjs-people' ? manifest : undefined;
  }
  return undefined;
}

/** As Node finds a package. Not by `require.resolve`: some packages don't export their package.json. */
function installedFrom(directory: string, name: string): Manifest | undefined {
  for (const above of upwardsFrom(directory)) {
    const manifest = read(path.join(above, 'node_modules', name, 'package.json'));
    if (manifest) return manifest;
  }
  return undefined;
}

function upwardsFrom(directory: string): string[] {
  const above = path.dirname(directory);
  return above === directory ? [directory] : [directory, ...upwardsFrom(above)];
}

const read = (file: string) =>
  existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Manifest) : undefined;
