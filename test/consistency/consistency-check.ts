import { setTimeout as sleep } from 'node:timers/promises';
import { DataSource } from 'typeorm';
import { peopleMigrations } from '../../migrations/index.js';
import { migrate } from '../../src/app/migrating/migrate.js';
import { APPLICATION_NAME } from '../../src/database/data-source-options.js';
import { startEmbeddedPostgres } from '../../src/dev/embedded-postgres.js';
import { NO_IDS, takeAway, WITHOUT_THEM } from '../support/absent-functions.js';
import { eventually } from '../support/barrier.js';
import { withClosers } from '../support/closers.js';
import { startLossyProxy } from '../support/lossy-proxy.js';
import { startPeopleHost } from '../support/people-host.js';
import { poolOf, startPeopleApp } from '../support/people-app.js';
import { type PoolMode, startPgBouncer } from '../support/pgbouncer.js';
import { randomOf } from '../support/random.js';
import { startPrimaryAndStandby } from '../support/standby.js';
import { openDatabase, type TestDatabase } from '../support/test-database.js';
import { type Database, openDirectly } from './database.js';
import { HttpClient, type HttpCounts } from './http-clients.js';
import { OPERATIONS } from './http-operations.js';
import { AUDIT, Ledger } from './ledger.js';
import { killBackends, loseAtRandom, type LossCounts, noLosses } from './losses.js';
import { type TransferCounts, Transfers } from './transfers.js';

export const RESTARTS = ['clean', 'crash', 'failover'] as const;
export type Restart = (typeof RESTARTS)[number];

export interface CheckOptions {
  seed: number;
  /** How long there is work, in seconds. */
  seconds: number;
  /** Where the check's own PostgreSQL lives; removed by the caller. */
  directory: string;
  /**
   * How the server goes down in the middle: `clean` saves everything, a `crash` (SIGQUIT) forgets what was not flushed; with
   * `failover` it is killed, and its synchronous standby takes over.
   */
  restart: Restart;
  /** A PgBouncer between the service and the server, with what loses something on either side of it. */
  pgBouncer?: PoolMode;
  /** The server has no transaction ids, and the service knows the outcome of a COMMIT by a row. */
  withoutIds?: boolean;
  /** True: no single statement shares one with others. */
  apart?: boolean;
  /** Ends the work early; everything is compared and removed all the same. */
  signal?: AbortSignal;
  /** Told the counts now and then. */
  onProgress?: (counts: Counts) => void;
}

/** What happened; `violations` has to be empty. */
export interface Counts {
  transfers: TransferCounts;
  http: HttpCounts;
  /** Of what was asked, the part of which nobody could say what became. */
  unknownShare: number;
  lost: LossCounts;
  backendsKilled: number;
  restarts: number;
  violations: string[];
}

const TRANSFERS_AT_ONCE = 12;
const HTTP_CLIENTS = 8;

/**
 * Workers transfer amounts between people in units of work, and clients write people over HTTP, while backends are killed,
 * requests and answers are lost on the wire, connections are refused and hang, and the server is restarted once. Then everything
 * that was told is compared with what is there.
 */
export const checkConsistency = (options: CheckOptions): Promise<Counts> =>
  withClosers((closers) => check(options, closers));

async function check(options: CheckOptions, closers: (() => Promise<unknown>)[]): Promise<Counts> {
  const { seed, seconds, directory, restart, pgBouncer, signal, onProgress } = options;
  const random = randomOf(seed);
  const violations: string[] = [];
  const server = await (restart === 'failover' ? startPair() : startOne(directory, restart));
  closers.push(() => server.stop());
  await createTables(server.url);
  const database = openDirectly(server.url);
  closers.push(() => database.close());
  const proxies = [await startLossyProxy(server.url)];
  closers.push(() => Promise.all(proxies.map((proxy) => proxy.close())));
  if (pgBouncer) {
    const bouncer = await startPgBouncer({ server: proxies[0]!.url, poolMode: pgBouncer });
    closers.push(() => bouncer.stop());
    proxies.push(await startLossyProxy(bouncer.url));
  }
  const given = await openDatabase(server.url);
  const url = proxies.at(-1)!.url;
  const app = await (options.withoutIds
    ? startWithoutIds(url, given)
    : startPeopleApp({ DATABASE_URL: url, ...(options.apart && { DB_SHARED_STATEMENTS: 'off' }) }, given));
  closers.push(() => app.close().then(() => given.drop()));

  const transfers = await Transfers.open(app, random, violations);
  const ledger = new Ledger();
  const http: HttpCounts = { asked: 0, done: 0, refused: 0, toldAgain: 0, unknown: 0 };
  const lost = noLosses();
  const counts: Counts = {
    ...{ transfers: transfers.counts, http, unknownShare: 0, lost },
    ...{ backendsKilled: 0, restarts: 0, violations },
  };
  const end = Date.now() + seconds * 1000;
  const isOver = () => Date.now() > end || signal?.aborted === true;
  const settings = { url: app.url, database, ledger, counts: http, violations, random, isOver };
  const stopLosing = proxies.map((proxy) => loseAtRandom(proxy, random, lost));
  const work = Promise.all([
    ...Array.from({ length: TRANSFERS_AT_ONCE }, () => transfers.run(isOver)),
    ...Array.from({ length: HTTP_CLIENTS }, () => new HttpClient(settings).run(OPERATIONS)),
    killBackends(database, counts, isOver, () => 20 + random() * 200),
  ]);
  // What ends it early is told below.
  work.catch(() => undefined);
  const progress = setInterval(() => onProgress?.(counts), 10_000);
  closers.push(() => Promise.resolve(clearInterval(progress)));
  const half = Date.now() + seconds * 500;
  while (Date.now() < half && !isOver()) await sleep(50);
  const servedAt = await server.goDown();
  if (servedAt !== server.url) {
    proxies[0]!.moveTo(servedAt);
    await database.moveTo(servedAt);
  }
  counts.restarts++;
  while (!isOver()) await sleep(50);
  for (const stop of stopLosing) await stop();
  await work;

  for (const proxy of proxies) proxy.cut();
  await untilNothingRuns(database);
  violations.push(...(await transfers.compare(database)), ...(await ledger.compare(database)));
  const { borrowed } = poolOf(app.dataSource);
  if (borrowed !== 0) violations.push(`${borrowed} connections were not given back`);
  const { done, failed, unknown } = transfers.counts;
  counts.unknownShare = (unknown + http.unknown) / (done + failed + unknown + http.asked);
  return counts;
}

/** What goes down in the middle. */
interface Server {
  url: string;
  /** Resolves, when somebody serves again, with where. */
  goDown(): Promise<string>;
  stop(): Promise<void>;
}

async function startOne(directory: string, restart: 'clean' | 'crash'): Promise<Server> {
  let server = await startEmbeddedPostgres({ directory });
  const { url, port } = server;
  return {
    url,
    goDown: async () => {
      if (restart === 'crash') process.kill(server.pid, 'SIGQUIT');
      await server.stop();
      server = await startEmbeddedPostgres({ directory, port });
      return url;
    },
    stop: () => server.stop(),
  };
}

async function startPair(): Promise<Server> {
  const both = await startPrimaryAndStandby();
  const { primary, standby } = both;
  return {
    url: primary.url,
    goDown: async () => {
      await primary.kill();
      await standby.promote();
      return standby.url;
    },
    stop: () => both.stop(),
  };
}

/** The search_path stands for the database, as a pooler drops what a connection asks for. */
async function startWithoutIds(url: string, database: TestDatabase) {
  await takeAway(NO_IDS, database);
  const [row] = await database.query<{ name: string }>('SELECT current_database() AS name');
  await database.query(`ALTER DATABASE "${row!.name}" SET search_path = ${WITHOUT_THEM}`);
  const host = await startPeopleHost(url, {
    dataSource: { poolSize: 10, applicationName: APPLICATION_NAME, extra: { statement_timeout: 30_000 } },
    people: { transactions: { commitOutcome: 'row' } },
  });
  return { ...host, database };
}

async function createTables(url: string): Promise<void> {
  const dataSource = new DataSource({ type: 'postgres', url, migrations: peopleMigrations });
  await dataSource.initialize();
  await migrate(dataSource);
  await dataSource.query(AUDIT);
  await dataSource.destroy();
}

/** What was lost on the wire may still be under way. */
const untilNothingRuns = (database: Database) =>
  eventually(async () => {
    const [row] = await database.query<{ n: number }>(
      `SELECT count(*)::int AS n FROM pg_stat_activity
       WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'`,
    );
    return row!.n === 0;
  }, 60_000);
