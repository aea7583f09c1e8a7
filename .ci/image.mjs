/**
 * What the Dockerfile puts into the image: that it is small, without a compiler, and enough for the service to start with. There need
 * be no Docker here: the Dockerfile's own commands make the dependencies, in a directory beside.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';

const LIMIT_MEBIBYTES = 250;
/** alpine with libstdc++, and Node's binary for it, unpacked. */
const BASE_MEBIBYTES = 11 + 122;

const commands = readFileSync('Dockerfile', 'utf8')
  .split(/^FROM .*$/m)
  .find((stage) => stage.includes('--omit=dev'))
  .match(/^RUN .*$/gm)
  .map((line) => line.slice('RUN '.length));
const directory = path.resolve('.data/image');
rmSync(directory, { recursive: true, force: true });
mkdirSync(directory, { recursive: true });
try {
  for (const file of ['package.json', 'package-lock.json', 'src/app/package.json'])
    cpSync(file, path.join(directory, file), { recursive: true });
  for (const command of commands) execFileSync('sh', ['-ec', command], { cwd: directory, stdio: 'inherit' });
  cpSync('dist', path.join(directory, 'dist'), { recursive: true });
  if (existsSync(path.join(directory, 'node_modules/typescript')))
    throw new Error('There is a compiler in it.');
  const kibibytes = Number.parseInt(execFileSync('du', ['-sk', directory], { encoding: 'utf8' }));
  const size = BASE_MEBIBYTES + Math.ceil(kibibytes / 1024);
  console.log(`The image has about ${size} MiB.`);
  if (size > LIMIT_MEBIBYTES) throw new Error(`It was to have ${LIMIT_MEBIBYTES} MiB at most.`);
  // Nothing listens there, so that it starts as far as the first connection, with all of its modules loaded.
  const service = spawnSync(process.execPath, ['dist/src/main.js'], {
    cwd: directory,
    encoding: 'utf8',
    timeout: 60_000,
    env: { NODE_ENV: 'production', KAFKA: 'off', DATABASE_URL: 'postgres://people@127.0.0.1:1/people' },
  });
  const told = service.stdout + service.stderr;
  if (service.status !== 1 || !told.includes('ECONNREFUSED')) throw new Error(`It does not start: ${told}`);
} finally {
  rmSync(directory, { recursive: true, force: true });
}
