import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** Generated applications: by which command line of Nest's, whose packages are installed by whom, and how people come in. */
export const APPLICATIONS = {
  nest12: { cli: undefined, manager: 'npm', way: 'init' },
  nest11: { cli: '@nestjs/cli@11', manager: 'npm', way: 'init', tests: true },
  fastify: { cli: undefined, manager: 'npm', way: 'by hand', platform: 'fastify', tests: true },
  pnpm: { cli: undefined, manager: 'pnpm', way: 'nest add' },
  // Alone, npm takes the newest of each peer, which are of Nest 12: it is told not to, and `nest add` names those of Nest 11.
  added11: { cli: '@nestjs/cli@11', manager: 'npm', way: 'nest add', firstInstall: ['--legacy-peer-deps'] },
};

const PNPM = 'pnpm@10';

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

/** Runs a program of an application's; pnpm's own beside it. @returns what it wrote */
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
export function generate({ cli, manager, platform }, at, root) {
  const parent = path.dirname(at);
  const args = ['new', path.basename(at), '--skip-install', '--skip-git', '--package-manager', manager];
  if (cli) run(parent, 'npx', '--yes', '-p', cli, 'nest', ...args);
  else run(parent, process.execPath, path.join(root, 'node_modules/@nestjs/cli/bin/nest.js'), ...args);
  if (manager === 'pnpm') {
    const tools = path.join(parent, 'tools');
    mkdirSync(tools, { recursive: true });
    run(parent, 'npm', 'install', '--no-audit', '--no-fund', '--prefix', tools, PNPM);
    // Whose application it is is seen by its lock file.
    writeFileSync(path.join(at, 'pnpm-lock.yaml'), '');
  }
  if (platform === 'fastify') toFastify(at);
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
  if (manager === 'pnpm') {
    if (packages.length > 0) return run(at, 'pnpm', 'add', '--prefer-offline', ...packages);
    return run(at, 'pnpm', 'install', '--prefer-offline', '--no-frozen-lockfile');
  }
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
