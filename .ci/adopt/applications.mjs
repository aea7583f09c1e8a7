import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** Generated applications: by which command line of Nest's, whose packages are installed by whom, and how people come in. */
export const APPLICATIONS = {
  nest12: { cli: undefined, manager: 'npm', way: 'init' },
  nest11: { cli: '@nestjs/cli@11', manager: 'npm', way: 'init', tests: true },
  // By Nest's answer to its own question, which it asks of a terminal alone. Its generated test asks for a newer Node than 20.
  commonjs12: { cli: undefined, manager: 'npm', way: 'init', modules: 'cjs' },
  fastify: { cli: undefined, manager: 'npm', way: 'by hand', platform: 'fastify', tests: true },
  fastifyinit: { cli: undefined, manager: 'npm', way: 'init', platform: 'fastify' },
  pnpm: { cli: undefined, manager: 'pnpm', way: 'nest add' },
  yarn: { cli: '@nestjs/cli@11', manager: 'yarn', way: 'init' },
  // Alone, npm takes the newest of each peer, which are of Nest 12: it is told not to, and `nest add` names those of Nest 11.
  added11: { cli: '@nestjs/cli@11', manager: 'npm', way: 'nest add', firstInstall: ['--legacy-peer-deps'] },
};

/** Those that don't come with Node: what is installed beside the application, by which lock file they are known, and their words. */
const MANAGERS = {
  pnpm: {
    package: 'pnpm@10',
    lockFile: 'pnpm-lock.yaml',
    install: ['install', '--prefer-offline', '--no-frozen-lockfile'],
    add: ['add', '--prefer-offline'],
  },
  yarn: {
    package: 'yarn@1',
    lockFile: 'yarn.lock',
    install: ['install', '--prefer-offline', '--non-interactive'],
    add: ['add', '--prefer-offline', '--non-interactive'],
  },
};

/** What programs need to be found, and npm to reach its registry; nothing of a run around this one. */
const environment = {
  ...Object.fromEntries(
    Object.entries(process.env).filter(([name]) =>
      /^(path|home|tmpdir|npm_config_(registry|cache|userconfig)|(https?|no)_proxy|node_extra_ca_certs)$/i.test(
        name,
      ),
    ),
  ),
  SCARF_ANALYTICS: 'false',
};

/** Runs a program of an application's; its package manager is beside it. @returns what it wrote */
export function run(at, command, ...args) {
  const tools = path.join(path.dirname(at), 'tools/node_modules/.bin');
  try {
    return execFileSync(command, args, {
      cwd: at,
      encoding: 'utf8',
      env: { ...environment, PATH: `${tools}:${path.join(at, 'node_modules/.bin')}:${environment.PATH}` },
      stdio: ['ignore', 'pipe', 'pipe'],
      maxBuffer: 64 * 1024 * 1024,
    });
  } catch (error) {
    throw new Error(`${command} ${args.join(' ')}: ${error.message}\n${error.stdout}`, { cause: error });
  }
}

/** `nest new`, and what comes in place of Express. @returns nothing is installed yet */
export function generate({ cli, manager, platform, modules }, at, root) {
  const parent = path.dirname(at);
  const args = ['new', path.basename(at), '--skip-install', '--skip-git', '--package-manager', manager];
  if (cli) run(parent, 'npx', '--yes', '-p', cli, 'nest', ...args);
  else if (modules) generateOf(modules, manager, at, root);
  else run(parent, process.execPath, path.join(root, 'node_modules/@nestjs/cli/bin/nest.js'), ...args);
  if (manager in MANAGERS) {
    const tools = path.join(parent, 'tools');
    mkdirSync(tools, { recursive: true });
    run(parent, 'npm', 'install', '--no-audit', '--no-fund', '--prefix', tools, MANAGERS[manager].package);
    // Whose application it is is seen by its lock file.
    writeFileSync(path.join(at, MANAGERS[manager].lockFile), '');
  }
  if (platform === 'fastify') toFastify(at);
}

/** What `nest new` runs, with the answer to what it would ask. */
function generateOf(modules, manager, at, root) {
  const schematics = path.join(root, 'node_modules/@angular-devkit/schematics-cli/bin/schematics.js');
  const options = { name: path.basename(at), 'package-manager': manager, language: 'ts', type: modules };
  const flags = Object.entries(options).map(([name, value]) => `--${name}=${value}`);
  run(path.dirname(at), process.execPath, schematics, '@nestjs/schematics:application', ...flags);
}

/** As Nest's documentation says. */
function toFastify(at) {
  change(at, 'package.json', /"@nestjs\/platform-express"/, '"@nestjs/platform-fastify"');
  change(
    at,
    'src/main.ts',
    /NestFactory\.create\(AppModule\)/,
    'NestFactory.create<NestFastifyApplication>(AppModule, new FastifyAdapter())',
  );
  change(
    at,
    'src/main.ts',
    /^(import .*NestFactory.*\n)/,
    `$1import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';\n`,
  );
}

export function change(at, name, what, by) {
  const file = path.join(at, name);
  const text = readFileSync(file, 'utf8');
  if (!what.test(text)) throw new Error(`${name} is not as it was expected:\n${text}`);
  writeFileSync(file, text.replace(what, by));
}

/** Installs what package.json says, and more. */
export function install({ manager }, at, ...packages) {
  const words = MANAGERS[manager];
  if (words) return run(at, manager, ...(packages.length > 0 ? [...words.add, ...packages] : words.install));
  return run(
    at,
    'npm',
    'install',
    '--no-audit',
    '--no-fund',
    '--prefer-offline',
    '--ignore-scripts',
    ...packages,
  );
}
