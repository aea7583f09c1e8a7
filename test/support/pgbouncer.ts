import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, chmodSync, constants, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { eventually } from './barrier.js';
import { closedPort } from './service-process.js';

export const POOL_MODES = ['session', 'transaction'] as const;
export type PoolMode = (typeof POOL_MODES)[number];

export interface PgBouncerOptions {
  /** Where the server is, or what stands before it: any database of it, with user and password. */
  server: string;
  /** Default: session. */
  poolMode?: PoolMode;
  /** More of its settings, by their names. */
  settings?: Record<string, string | number>;
}

/** A real PgBouncer on a loopback port, which takes whoever comes and logs in to the server as `server` says. */
export interface PgBouncer {
  /** `server` with PgBouncer's address in it. */
  readonly url: string;
  /** What it has logged. */
  readonly log: string;
  /** `text` with PgBouncer's address in it. */
  through(text: string): string;
  stop(): Promise<void>;
}

/** The program, as Debian installs it; undefined where it is not. */
export const pgBouncerBinary = [...(process.env.PATH ?? '').split(':'), '/usr/sbin']
  .map((directory) => path.join(directory, 'pgbouncer'))
  .find(isExecutable);

/** `describe` for what needs PgBouncer; without one, a line says what was left out. */
export function describeWithPgBouncer(name: string, tests: () => void): void {
  if (pgBouncerBinary) return describe(name, tests);
  process.stderr.write(`PgBouncer is not installed (apt-get install pgbouncer): left out "${name}".\n`);
  describe.skip(name, tests);
}

/** @throws with its log, when it is not installed or does not start */
export async function startPgBouncer(options: PgBouncerOptions): Promise<PgBouncer> {
  if (!pgBouncerBinary) throw new Error('PgBouncer is not installed: apt-get install pgbouncer.');
  mkdirSync(tmpdir(), { recursive: true });
  const directory = mkdtempSync(path.join(tmpdir(), 'pgbouncer-'));
  const file = path.join(directory, 'pgbouncer.ini');
  const port = await closedPort();
  writeFileSync(file, iniOf(options, port));
  // It is read by the user that PgBouncer runs as.
  chmodSync(directory, 0o755);
  chmodSync(file, 0o644);
  const [command = '', ...args] = [...asSomebody(), pgBouncerBinary, file];
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'close');
  let log = '';
  for (const output of [child.stdout, child.stderr]) output.on('data', (data) => (log += String(data)));
  const stop = async () => {
    child.kill('SIGKILL');
    await ended;
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    await eventually(() => child.exitCode !== null || isListening(port));
    if (child.exitCode !== null) throw new Error('It ended.');
  } catch (cause) {
    await stop();
    throw new Error(`PgBouncer did not start:\n${log}`, { cause });
  }
  const through = (text: string) => {
    const url = new URL(text);
    url.host = `127.0.0.1:${port}`;
    return url.href;
  };
  return {
    url: through(options.server),
    get log() {
      return log;
    },
    through,
    stop,
  };
}

function iniOf({ server, poolMode = 'session', settings = {} }: PgBouncerOptions, port: number): string {
  const { hostname, port: serverPort, username, password } = new URL(server);
  const all = {
    listen_addr: '127.0.0.1',
    listen_port: port,
    unix_socket_dir: '',
    auth_type: 'any',
    pool_mode: poolMode,
    default_pool_size: 40,
    max_client_conn: 400,
    // pg sends them as it connects, and PgBouncer refuses whoever sends what it does not know.
    ignore_startup_parameters: 'extra_float_digits,statement_timeout,options',
    // After a login that failed it would refuse everybody for 15 s.
    server_login_retry: 0.1,
    ...settings,
  };
  return [
    '[databases]',
    `* = host=${hostname} port=${serverPort} user=${username} password=${password}`,
    '[pgbouncer]',
    ...Object.entries(all).map(([name, value]) => `${name} = ${value}`),
    '',
  ].join('\n');
}

/** PgBouncer does not run as root. */
const asSomebody = () =>
  process.getuid?.() === 0 ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] : [];

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** What is wrong with the option `--pgbouncer` of a check; undefined where it can be done. */
export function pgBouncerProblem(poolMode: string | undefined): string | undefined {
  if (poolMode === undefined) return undefined;
  if (!POOL_MODES.some((mode) => mode === poolMode))
    return `--pgbouncer: "${poolMode}" is not accepted; expected ${POOL_MODES.join(' or ')}.`;
  return pgBouncerBinary ? undefined : '--pgbouncer: PgBouncer is not installed; apt-get install pgbouncer.';
}
