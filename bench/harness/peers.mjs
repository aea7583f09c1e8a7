import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';

// Contestants that need more than this repository's development dependencies: they are had where that is possible, and left out
// with the reason where it is not.

const execute = promisify(execFile);
const PEERS = path.join(import.meta.dirname, '../peers');
const BUILT = path.join(import.meta.dirname, '../../.data/bench-peers');
const inPeers = (...parts) => path.join(PEERS, ...parts);

const RUST = path.join(BUILT, 'rust/release/rust-peer');
const SPRING = path.join(BUILT, 'spring/spring-peer.jar');
const MINUTE = 60_000;

const KINDS = {
  node: {
    what: 'npm ci in bench/peers/node',
    isThere: () => existsSync(inPeers('node/node_modules/.package-lock.json')),
    async make() {
      const options = { cwd: inPeers('node'), timeout: 5 * MINUTE };
      await execute('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], options);
      // Prisma's client is generated, which asks for an engine that it then does not run: any program will do.
      const env = { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: process.execPath };
      // Where that fails, Prisma alone is left out.
      await execute('npx', ['prisma', 'generate', '--schema', 'schema.prisma'], { ...options, env }).catch(
        () => undefined,
      );
    },
    isQuick: true,
    peers: () => ({
      versionOf: (name) => json(inPeers('node/node_modules', name, 'package.json')).version,
    }),
  },
  rust: {
    what: 'cargo build in bench/peers/rust',
    tool: ['cargo', '--version'],
    isThere: () => existsSync(RUST),
    make: () =>
      execute(
        'cargo',
        ['build', '--release', '--locked', '--quiet', '--target-dir', path.join(BUILT, 'rust')],
        { cwd: inPeers('rust'), timeout: 30 * MINUTE },
      ),
    peers: () => ({ program: RUST, versionOf: crateVersion }),
  },
  spring: {
    what: 'mvn package in bench/peers/spring',
    tool: ['mvn', '--version'],
    isThere: () => existsSync(SPRING),
    make: () =>
      execute('mvn', ['-B', '-q', 'package', `-Dbench.target=${path.join(BUILT, 'spring')}`], {
        cwd: inPeers('spring'),
        timeout: 30 * MINUTE,
      }),
    peers: () => ({ jar: SPRING, versionOf: springVersion }),
  },
};

const had = new Map();

/**
 * What a contestant of this kind needs, made on first use.
 *
 * @returns `peers`, where it is and its versions, or the `reason` it can't be had
 */
export function peersOf(bench, kind) {
  if (!kind) return {};
  if (!had.has(kind)) had.set(kind, make(bench, KINDS[kind]));
  return had.get(kind);
}

async function make({ options, say }, { what, tool, isThere, make, isQuick, peers }) {
  if (isThere()) return { peers: peers() };
  if (options.isQuick && !isQuick) return { reason: 'it is not built, and a quick run builds nothing' };
  try {
    if (tool) await execute(tool[0], tool.slice(1));
  } catch {
    return { reason: `${tool[0]} is not there` };
  }
  say(`${what} (first time only) …`);
  try {
    await make();
  } catch (error) {
    const lines = `${error.stderr ?? ''}\n${error.stdout ?? ''}\n${error.message}`.split('\n');
    return { reason: `${what} failed: ${lines.find((line) => /error/i.test(line)) ?? error.message}` };
  }
  return { peers: peers() };
}

const json = (file) => JSON.parse(readFileSync(file, 'utf8'));

function crateVersion(name) {
  const lock = readFileSync(inPeers('rust/Cargo.lock'), 'utf8');
  return new RegExp(`name = "${name}"\nversion = "(.*)"`).exec(lock)[1];
}

const springVersion = () =>
  /<artifactId>spring-boot-starter-parent<\/artifactId>\s*<version>(.*)<\/version>/.exec(
    readFileSync(inPeers('spring/pom.xml'), 'utf8'),
  )[1];

/** What JDBC calls a database; user and password are told apart from it. */
export function jdbcUrl(url) {
  const { hostname, port, pathname } = new URL(url);
  return `jdbc:postgresql://${hostname}:${port}${pathname}`;
}
