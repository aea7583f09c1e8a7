// dev/: The PostgreSQL and the Kafka that `npm start` and the tests run on this machine.
// Promises: what was started is stopped, also after a crash; data stays where it was until somebody removes it.
// May know: nothing else of src.

import { randomBytes } from 'node:crypto';
import {
  existsSync,
  lchownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import { choosePorts, startInDirectory, type ServerHome } from './embedded-directory.js';
import {
  EmbeddedServerError,
  runTool,
  spawnServer,
  untilReady,
  type EmbeddedServer,
} from './embedded-process.js';
import { choosePostgresUser, postgresBinaries, type PostgresUser } from './postgres-binaries.js';
import { processCommand } from './process-table.js';

/** A running PostgreSQL; its log is `postgres.log` in its directory. */
export interface EmbeddedPostgres extends EmbeddedServer {
  /** Connection string of the database, user and password included. */
  readonly url: string;
  readonly port: number;
}

/** What {@link startEmbeddedPostgres} takes. */
export interface EmbeddedPostgresOptions {
  /** Holds the data, the log and the port of the last run. Made when missing; its data is kept. */
  directory: string;
  /** Loopback port. Default: the last run's if free, else any free one. */
  port?: number | undefined;
  /** Made when missing. Default: people. */
  database?: string | undefined;
  /** True: a new database's superuser has a password of its own, kept in the directory. Default: it is `postgres`. */
  ownPassword?: boolean | undefined;
  /** False gives up crash safety for speed, as tests may. Default: true. */
  durable?: boolean | undefined;
  /** Default: 100. */
  maxConnections?: number | undefined;
  /** Told what may take seconds. */
  onProgress?: ((message: string) => void) | undefined;
}

/**
 * Starts a PostgreSQL of this process's own on a loopback port, after stopping one that a killed run left in
 * the same directory.
 *
 * @throws EmbeddedServerError when it is not installed or does not start, when the port told is taken, or when
 *   another live process runs one in this directory.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { directory, onProgress } = options;
  const binaries = postgresBinaries();
  return startInDirectory({ name: 'PostgreSQL', directory, stopSignal: 'SIGINT', onProgress }, (home) =>
    start(home, binaries, options),
  );
}

async function start(home: ServerHome, binaries: string, options: EmbeddedPostgresOptions) {
  const {
    database = 'people',
    durable = true,
    ownPassword = false,
    maxConnections = 100,
    onProgress,
  } = options;
  const user = await choosePostgresUser(binaries, home.directory);
  const data = path.join(home.directory, 'data');
  if (existsSync(data)) {
    removeStalePidFile(data);
    if (user.owner && statSync(data).uid !== user.owner.uid) giveTo(data, user.owner);
  } else {
    onProgress?.('making a PostgreSQL database (first time only) …');
    await makeCluster(home, binaries, user, data, { durable, password: newPassword(home, ownPassword) });
  }
  const [port = 0] = await choosePorts(home.directory, options.port, 1);
  const settings = {
    cluster_name: home.marker,
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: '',
    max_connections: maxConnections,
    ...(durable ? {} : { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' }),
  };
  const [command = '', ...args] = [
    ...user.prefix,
    path.join(binaries, 'postgres'),
    '-D',
    data,
    ...Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`]),
  ];
  const logFile = path.join(home.directory, 'postgres.log');
  const child = await spawnServer({ command, args, cwd: home.directory, logFile, ...user.ids });
  await untilReady(child, { name: 'PostgreSQL', logFile }, async () => assertReady(data, child.pid));
  const password = passwordOf(home);
  const url = (name: string) =>
    `postgres://postgres:${password}@127.0.0.1:${port}/${encodeURIComponent(name)}`;
  await makeDatabase(url('postgres'), database);
  return { pid: child.pid, port, url: url(database) };
}

const passwordFileOf = ({ directory }: ServerHome) => path.join(directory, 'password');
/** The superuser's, where the database was made without one of its own. */
const COMMON_PASSWORD = 'postgres';

/** Written before the database is made: one whose password nobody knows would be lost. */
function newPassword(home: ServerHome, isOwn: boolean): string {
  rmSync(passwordFileOf(home), { force: true });
  if (!isOwn) return COMMON_PASSWORD;
  const password = randomBytes(24).toString('base64url');
  writeFileSync(passwordFileOf(home), password, { mode: 0o600 });
  return password;
}

function passwordOf(home: ServerHome): string {
  const file = passwordFileOf(home);
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : COMMON_PASSWORD;
}

/** Made beside its place and moved there when whole: a run killed meanwhile must not leave half a cluster. */
async function makeCluster(
  home: ServerHome,
  binaries: string,
  user: PostgresUser,
  data: string,
  { durable, password }: { durable: boolean; password: string },
): Promise<void> {
  const workshop = path.join(home.directory, 'new');
  const draft = path.join(workshop, 'data');
  // The marker is in initdb's command line by this name: a setting of initdb's would stay in postgresql.conf,
  // and mark a server that the user starts there by hand.
  const passwordFile = path.join(workshop, `password-${home.marker}`);
  rmSync(workshop, { recursive: true, force: true });
  mkdirSync(draft, { recursive: true, mode: 0o700 });
  writeFileSync(passwordFile, password, { mode: 0o600 });
  if (user.owner) giveTo(workshop, user.owner);
  const [command = '', ...args] = [
    ...user.prefix,
    path.join(binaries, 'initdb'),
    ...['-D', draft, '--username=postgres', `--pwfile=${passwordFile}`, '--auth=scram-sha-256'],
    ...['--encoding=UTF8', '--locale=C.UTF-8'],
    ...(durable ? [] : ['--no-sync']),
  ];
  try {
    await runTool(command, args, { cwd: home.directory, ...user.ids });
    renameSync(draft, data);
  } catch (cause) {
    throw new EmbeddedServerError(
      `PostgreSQL could not make its data directory in ${home.directory}. Mend what the cause says, or set DATABASE_URL.`,
      { cause },
    );
  } finally {
    rmSync(workshop, { recursive: true, force: true });
  }
}

function giveTo(entry: string, owner: { uid: number; gid: number }): void {
  const within = readdirSync(entry, { recursive: true, encoding: 'utf8' });
  for (const name of ['', ...within]) lchownSync(path.join(entry, name), owner.uid, owner.gid);
}

/**
 * No process of an earlier run lives, so a postmaster.pid is a crash's. PostgreSQL would
 * refuse to start when its pid has meanwhile gone to some other process, as is common after a reboot.
 */
function removeStalePidFile(data: string): void {
  const file = path.join(data, 'postmaster.pid');
  if (!existsSync(file)) return;
  const pid = Number(readFileSync(file, 'utf8').split('\n')[0]);
  if (processCommand(pid).includes(data)) {
    throw new EmbeddedServerError(
      `PostgreSQL is already running in ${data} (pid ${pid}), started by hand. Stop it, or use another directory.`,
    );
  }
  rmSync(file);
}

/** What pg_ctl looks at: a connection would leave an error in the log for each try that comes too early. */
function assertReady(data: string, pid: number): void {
  const lines = readFileSync(path.join(data, 'postmaster.pid'), 'utf8').split('\n');
  if (Number(lines[0]) !== pid || lines[7]?.trim() !== 'ready')
    throw new Error('postmaster.pid is not ready');
}

async function makeDatabase(adminUrl: string, database: string): Promise<void> {
  const client = new pg.Client({ connectionString: adminUrl });
  try {
    await client.connect();
    const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [database]);
    if (rowCount === 0) await client.query(`CREATE DATABASE ${client.escapeIdentifier(database)}`);
  } catch (cause) {
    throw new EmbeddedServerError(
      `PostgreSQL runs, but its database ${database} could not be made. Mend what the cause says, or set DATABASE_URL.`,
      { cause },
    );
  } finally {
    await client.end();
  }
}
