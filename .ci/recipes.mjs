/**
 * The recipes of docs/testing.md: an application and its tests (.ci/recipes/app), in each kind of project that has tests of Nest in it,
 * installed with our tarball and run on a PostgreSQL of their own.
 *
 *   node .ci/recipes.mjs              all of them
 *   node .ci/recipes.mjs nest-11      those whose name has this in it
 */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { startEmbeddedPostgres } from '../dist/src/dev/embedded-postgres.js';

const given = process.argv[2] ?? '';
const recipes = readdirSync('.ci/recipes').filter((name) => name !== 'app' && name.includes(given));
if (recipes.length === 0) throw new Error(`There is no recipe ${given}.`);

const directory = path.resolve('.data/recipes');
rmSync(directory, { recursive: true, force: true });
mkdirSync(directory, { recursive: true });
const postgres = await startEmbeddedPostgres({
  directory: path.join(directory, 'postgres'),
  durable: false,
  maxConnections: 50,
  onProgress: () => undefined,
});
try {
  const packing = ['pack', '--json', '--ignore-scripts', '--pack-destination', directory];
  const [{ filename }] = JSON.parse(execFileSync('npm', packing, { encoding: 'utf8' }));
  const tarball = path.join(directory, 'nestjs-people.tgz');
  renameSync(path.join(directory, filename), tarball);
  for (const recipe of recipes) {
    console.log(`\n${recipe}`);
    const project = path.join(directory, recipe);
    for (const from of ['.ci/recipes/app', `.ci/recipes/${recipe}`])
      cpSync(from, project, { recursive: true });
    cpSync(tarball, path.join(project, 'nestjs-people.tgz'));
    const run = (...args) =>
      execFileSync('npm', args, {
        cwd: project,
        stdio: 'inherit',
        env: { ...process.env, DATABASE_URL: postgres.url },
      });
    run('install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error');
    run('test');
  }
} finally {
  await postgres.stop();
  rmSync(directory, { recursive: true, force: true });
}
