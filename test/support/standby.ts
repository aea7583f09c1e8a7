import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { DataSource } from 'typeorm';
import { peopleMigrations } from '../../migrations/index.js';
import { migrate } from '../../src/app/migrating/migrate.js';
import { startInDirectory } from '../../src/dev/embedded-directory.js';
import { spawnServer, stopProcesses, untilReady } from '../../src/dev/embedded-process.js';
import { startEmbeddedPostgres } from '../../src/dev/embedded-postgres.js';
import { choosePostgresUser, postgresBinaries } from '../../src/dev/postgres-binaries.js';
import { eventually } from './barrier.js';
import { closedPort } from './service-process.js';

/** How it calls itself when it fetches what has happened. */
const STANDBY_NAME = 'standby';

/** One PostgreSQL of two, either of which can be the primary. */
export interface Member {
  readonly port: number;
  /** Of the database that the migrations were applied to. */
  readonly url: string;
  /** Rows of one statement, on a connection of its own. */
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>;
  /** Ends every process of it at once: nothing is written any more, and nobody is told. */
  kill(): Promise<void>;
  /** A standby takes writes from now on. Resolves when it does. */
  promote(): Promise<void>;
  /** Starts one that is not running, with its data as they are: as a standby of the other one, or as it was. */
  start(as: 'standby' | 'primary'): Promise<void>;
}

/** A primary and its standby, by streaming replication; both on loopback ports that they keep. */
export interface PrimaryAndStandby {
  readonly primary: Member;
  readonly standby: Member;
  /** Commits of the primary wait for the standby from now on, or do not any more. */
  waitForStandby(isSynchronous: boolean): Promise<void>;
  /** Resolves when the standby has applied what the primary has done so far. */
  caughtUp(): Promise<void>;
  stop(): Promise<void>;
}

/** @param isSynchronous true: each commit of the primary waits until the standby has applied it */
export async function startPrimaryAndStandby({ isSynchronous = true } = {}): Promise<PrimaryAndStandby> {
  mkdirSync(tmpdir(), { recursive: true });
  const root = mkdtempSync(path.join(tmpdir(), 'replication-'));
  execFileSync('chmod', ['755', root]);
  const [first, second] = [path.join(root, 'first'), path.join(root, 'second')];
  const template = await (cluster ??= makeCluster());
  for (const directory of [first, second]) {
    mkdirSync(directory);
    // A copy of a server that was stopped cleanly is as good as a base backup. Whoever owns the files goes on to own them.
    execFileSync('cp', ['-a', path.join(template, 'data'), path.join(directory, 'data')]);
  }
  const ports = [await closedPort(), await closedPort()] as const;
  const primary = new PostgresMember(first, ports[0], ports[1]);
  const standby = new PostgresMember(second, ports[1], ports[0]);
  const stop = async () => {
    await Promise.all([primary.kill(), standby.kill()]);
    rmSync(root, { recursive: true, force: true });
  };
  const both: PrimaryAndStandby = {
    primary,
    standby,
    waitForStandby: async (isOn) => {
      const names = isOn ? STANDBY_NAME : '';
      await primary.query(`ALTER SYSTEM SET synchronous_standby_names = '${names}'`);
      await primary.query('SELECT pg_reload_conf()');
      // The first commit that waits for it comes through only once it is there.
      if (isOn) await primary.query('SELECT pg_current_xact_id()');
    },
    caughtUp: async () => {
      const [now] = await primary.query<{ lsn: string }>('SELECT pg_current_wal_lsn() AS lsn');
      await eventually(async () => {
        const [row] = await standby.query<{ is: boolean }>(
          'SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS is',
          [now!.lsn],
        );
        return row!.is;
      });
    },
    stop,
  };
  try {
    await primary.start('primary');
    await standby.start('standby');
    if (isSynchronous) await both.waitForStandby(true);
    return both;
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Its directory; it is copied for each pair, and goes with the run. */
let cluster: Promise<string> | undefined;

async function makeCluster(): Promise<string> {
  const directory = mkdtempSync(path.join(tmpdir(), 'cluster-'));
  execFileSync('chmod', ['755', directory]);
  const server = await startEmbeddedPostgres({ directory, durable: false });
  try {
    const dataSource = new DataSource({ type: 'postgres', url: server.url, migrations: peopleMigrations });
    await dataSource.initialize();
    await migrate(dataSource);
    await dataSource.destroy();
  } finally {
    await server.stop();
  }
  return directory;
}

class PostgresMember implements Member {
  readonly url: string;
  private marker: string | undefined;
  private running: { stop(): Promise<void> } | undefined;

  constructor(
    private readonly directory: string,
    readonly port: number,
    private readonly otherPort: number,
  ) {
    this.url = `postgres://postgres:postgres@127.0.0.1:${port}/people`;
  }

  async query<Row extends pg.QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> {
    const client = new pg.Client(this.url);
    client.on('error', () => undefined);
    await client.connect();
    try {
      return (await client.query<Row>(text, values)).rows;
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  async start(as: 'standby' | 'primary'): Promise<void> {
    const { directory } = this;
    const binaries = postgresBinaries();
    const data = path.join(directory, 'data');
    this.running = await startInDirectory(
      { name: 'PostgreSQL', directory, stopSignal: 'SIGKILL' },
      async ({ marker }) => {
        this.marker = marker;
        const user = await choosePostgresUser(binaries, directory);
        const signal = path.join(data, 'standby.signal');
        rmSync(signal, { force: true });
        // One that was killed has left it, and its pid may be somebody else's by now.
        rmSync(path.join(data, 'postmaster.pid'), { force: true });
        if (as === 'standby') {
          writeFileSync(signal, '');
          if (user.owner) execFileSync('chown', [`${user.owner.uid}:${user.owner.gid}`, signal]);
        }
        const [command = '', ...args] = [
          ...user.prefix,
          path.join(binaries, 'postgres'),
          ...['-D', data],
          ...Object.entries(this.settings(marker)).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
        ];
        const logFile = path.join(directory, 'postgres.log');
        const child = await spawnServer({ command, args, cwd: directory, logFile, ...user.ids });
        await untilReady(
          child,
          { name: 'PostgreSQL', logFile },
          async () => void (await this.query('SELECT')),
        );
        return { pid: child.pid };
      },
    );
  }

  private settings(marker: string) {
    return {
      cluster_name: marker,
      listen_addresses: '127.0.0.1',
      port: this.port,
      unix_socket_directories: '',
      max_connections: 100,
      // Kills of processes lose nothing that the system has been given.
      fsync: 'off',
      synchronous_commit: 'remote_apply',
      wal_retrieve_retry_interval: '200ms',
      primary_conninfo: `host=127.0.0.1 port=${this.otherPort} user=postgres password=postgres application_name=${STANDBY_NAME}`,
    };
  }

  async kill(): Promise<void> {
    if (this.marker) await stopProcesses(this.marker, 'SIGKILL');
    await this.running?.stop();
    this.running = undefined;
  }

  async promote(): Promise<void> {
    await this.query('SELECT pg_promote()');
  }
}
