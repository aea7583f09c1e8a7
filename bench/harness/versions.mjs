import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';

const ROOT = path.join(import.meta.dirname, '../..');
const require = createRequire(path.join(ROOT, 'package.json'));

/** The version of a package that is installed here. */
export function versionOf(name) {
  // Not by `require.resolve` of its package.json, which few export.
  const folder = require.resolve.paths(name).map((each) => path.join(each, name, 'package.json'));
  for (const file of folder) {
    try {
      return JSON.parse(readFileSync(file, 'utf8')).version;
    } catch {
      // The next folder up.
    }
  }
  return undefined;
}

/** What the figures of a section belong to: no name of the machine, and no path. */
export const whereAndWhen = () => ({
  date: new Date().toISOString().slice(0, 10),
  commit: commit(),
  machine: `${os.availableParallelism()} cores (${os.cpus()[0]?.model.trim()}), ${Math.round(os.totalmem() / 2 ** 30)} GiB, ${os.type()} ${os.release()}`,
  versions: [
    `Node ${process.versions.node}`,
    ...['@nestjs/core', 'fastify', 'typeorm', 'pg', 'kafkajs'].map((name) => `${name} ${versionOf(name)}`),
  ].join(', '),
});

function commit() {
  try {
    const git = (...args) => execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim();
    const isChanged = git('status', '--porcelain', '--', 'src', 'migrations', 'package-lock.json') !== '';
    return git('rev-parse', '--short', 'HEAD') + (isChanged ? ' and changes' : '');
  } catch {
    return 'unknown';
  }
}
