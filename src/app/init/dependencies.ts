import { createRequire } from 'node:module';
import { InitError } from './init-error.js';
import type { Project } from './project.js';
import type { ObjectLiteral } from './literals.js';

interface OwnManifest {
  name: string;
  version: string;
  peerDependencies: Record<string, string>;
  peerDependenciesMeta?: Record<string, { optional?: boolean }>;
}

const OWN = createRequire(import.meta.url)('nestjs-people/package.json') as OwnManifest;

/**
 * Adds what the application has to have installed beside people, in the versions that fit its Nest.
 *
 * @throws InitError it is no Nest application, or one of a version that people does not work with
 */
export function addDependencies(project: Project): void {
  const manifest = project.source('package.json')?.json;
  if (!manifest)
    throw new InitError('There is no package.json here: run this in the directory of a Nest application.');
  const dependencies = manifest.get('dependencies')?.object;
  const nest = dependencies?.get('@nestjs/core')?.string;
  if (!dependencies || nest === undefined)
    throw new InitError(
      'package.json has no @nestjs/core among its dependencies: run this in the directory of a Nest application.',
    );
  const line = lineOf(nest);
  const needed = [[OWN.name, `^${OWN.version}`] as const, ...peersOf(line)];
  const missing = needed.filter(([name]) => !dependencies.names.includes(name));
  for (const [name, range] of missing.sort(([a], [b]) => (a < b ? -1 : 1)))
    addSorted(dependencies, name, range);
}

/** Which of the lines of Nest that people works with the application is of: 0 is the oldest. @throws InitError none */
function lineOf(range: string): number {
  const lines = linesOf(OWN.peerDependencies['@nestjs/core']!).map(majorOf);
  const major = majorOf(range);
  // What is no version, as `latest` or a workspace's, is taken for the newest.
  if (major === undefined) return lines.length - 1;
  const line = lines.indexOf(major);
  if (line < 0)
    throw new InitError(
      `nestjs-people works with Nest ${lines.join(' and ')}; package.json has @nestjs/core ${range}.`,
    );
  return line;
}

/** What has to be there, of the same age: an older Nest is given the older line of the others. */
function peersOf(line: number): (readonly [string, string])[] {
  return Object.entries(OWN.peerDependencies)
    .filter(([name]) => OWN.peerDependenciesMeta?.[name]?.optional !== true)
    .map(([name, range]) => [name, linesOf(range).at(line) ?? linesOf(range).at(-1)!]);
}

const linesOf = (range: string) => range.split('||').map((each) => each.trim());
const majorOf = (range: string) => /^\D*(\d+)/.exec(range)?.[1];

function addSorted(dependencies: ObjectLiteral, name: string, range: string): void {
  const index = dependencies.names.findIndex((each) => each > name);
  dependencies.add([`"${name}": "${range}"`], index < 0 ? undefined : index);
}
