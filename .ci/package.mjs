/**
 * The tarball as others resolve it: publint looks at its package.json, Are the types wrong? at what each kind of `moduleResolution` finds.
 * Both are installed beside the checkout: the second brings a compiler of its own.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';

const TOOLS = ['publint@0.3.25', '@arethetypeswrong/cli@0.18.5'];

const home = path.resolve('.data/package-tools');
const quietly = ['--no-audit', '--no-fund', '--ignore-scripts', '--silent'];
rmSync(home, { recursive: true, force: true });
mkdirSync(home, { recursive: true });
try {
  execFileSync('npm', ['install', '--no-save', ...quietly, '--prefix', home, ...TOOLS], { stdio: 'inherit' });
  const packing = ['pack', '--json', '--ignore-scripts', '--pack-destination', home];
  const [{ filename, size, files }] = JSON.parse(execFileSync('npm', packing, { encoding: 'utf8' }));
  const tarball = path.join(home, filename);
  console.log(`${filename}: ${files.length} files, ${Math.round(size / 1024)} KiB`);
  const run = (tool, ...args) =>
    execFileSync(path.join(home, 'node_modules/.bin', tool), args, { stdio: 'inherit' });
  run('publint', 'run', tarball, '--strict');
  // CommonJS loads it by require() of an ES module, which every Node that is supported can do.
  run('attw', tarball, '--ignore-rules', 'cjs-resolves-to-esm');
} finally {
  rmSync(home, { recursive: true, force: true });
}
