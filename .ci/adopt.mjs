// What a team does on its first day, with nothing but the README: an application that Nest's command line generates gets people in it,
// by `nestjs-people init`, by `nest add`, or by hand, and the README's snippets, which are taken out of README.md. Then it has to answer
// 201 with every digit, roll back, apply a message once, and send its events.
//   node .ci/adopt.mjs [name…]     those applications (see adopt/applications.mjs); default: nest12
//   node .ci/adopt.mjs --all       all of them
// Needs what was built (`npm run build`), and a registry. KAFKA=off leaves messages out.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { startEmbeddedKafka } from '../dist/src/dev/embedded-kafka.js';
import { startEmbeddedPostgres } from '../dist/src/dev/embedded-postgres.js';
import { APPLICATIONS, generate, install, run } from './adopt/applications.mjs';
import { prove } from './adopt/proofs.mjs';
import { applyChapter, command } from './adopt/readme.mjs';

const root = path.resolve(import.meta.dirname, '..');
const asked = process.argv.slice(2);
const names = asked.includes('--all') ? Object.keys(APPLICATIONS) : asked.length > 0 ? asked : ['nest12'];
for (const name of names)
  if (!APPLICATIONS[name])
    throw new Error(`There is no ${name}, only ${Object.keys(APPLICATIONS).join(', ')}.`);

// Not below this checkout, whose packages would be found there.
const directory = mkdtempSync(path.join(tmpdir(), 'people-adopt-'));
const servers = [];
try {
  const pack = ['pack', '--json', '--ignore-scripts', '--pack-destination', directory];
  const [{ filename }] = JSON.parse(execFileSync('npm', pack, { cwd: root, encoding: 'utf8' }));
  const start = async (starting) => {
    const server = await starting;
    servers.push(server);
    return server;
  };
  const [postgres, kafka] = await Promise.all([
    start(startEmbeddedPostgres({ directory: path.join(directory, 'postgres'), durable: false })),
    process.env.KAFKA === 'off'
      ? undefined
      : start(startEmbeddedKafka({ directory: path.join(directory, 'kafka') })),
  ]);
  for (const name of names) await adopt(name, path.join(directory, filename), postgres, kafka);
} finally {
  await Promise.all(servers.map((server) => server.stop()));
  rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
}

async function adopt(name, tarball, postgres, kafka) {
  const begin = Date.now();
  const say = (step) => console.log(`${name}: ${((Date.now() - begin) / 1000).toFixed(0)} s: ${step}`);
  const application = APPLICATIONS[name];
  const at = path.join(directory, name);
  generate(application, at, root);
  install(application, at);
  say('generated');
  addPeople(application, at, tarball);
  say('people added');
  const again = init(at, '--dry-run');
  if (!again.startsWith('Everything is there')) throw new Error(`init would change more:\n${again}`);
  applyChapter('One transaction', at);
  if (kafka) {
    install(application, at, ...packagesOf(command('One message', 'npm install')));
    applyChapter('One message', at);
  }
  run(at, 'npm', 'run', 'build');
  say('built');
  if (application.tests) run(at, 'npm', 'test');
  await prove(at, { postgres, name, kafka, say });
}

function init(at, ...args) {
  return run(at, process.execPath, path.join(root, 'dist/src/cli.js'), 'init', ...args);
}

/** The package as it would come from the registry. */
function addTarball(at, tarball) {
  const file = path.join(at, 'package.json');
  const manifest = JSON.parse(readFileSync(file, 'utf8'));
  manifest.dependencies = { ...manifest.dependencies, 'nestjs-people': `file:${tarball}` };
  writeFileSync(file, `${JSON.stringify(manifest, undefined, 2)}\n`);
}

function addPeople({ way, ...application }, at, tarball) {
  if (way === 'by hand') {
    const packages = packagesOf(command('In your application', 'npm install'));
    install(application, at, ...packages.map((each) => (each === 'nestjs-people' ? tarball : each)));
    return applyChapter('In your application', at);
  }
  addTarball(at, tarball);
  if (way === 'init') return init(at, '--yes');
  install(application, at, ...(application.firstInstall ?? []));
  // It would have both installed, the package from the registry.
  run(at, 'nest', 'add', 'nestjs-people', '--skip-install');
  install(application, at);
}

/** Of `npm install …`. */
function packagesOf(line) {
  return line.split(/\s+/).slice(2);
}
