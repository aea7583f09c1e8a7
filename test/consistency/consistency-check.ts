import pg from 'pg';
import { DataSource } from 'typeorm';
import { peopleMigrations } from '../../migrations/index.js';
import { migrate } from '../../src/app/migrate.js';
import { startEmbeddedPostgres } from '../../src/dev/embedded-postgres.js';
import {
  DatabaseUnavailableError,
  PoolExhaustedError,
  StatementTimeoutError,
} from '../../src/database/postgres-errors.js';
import { type PeopleApp, poolOf, startPeopleApp } from '../support/people-app.js';
import { type Decision, startTcpProxy } from '../support/tcp-proxy.js';
import type { TransactionContext } from '../../src/transactions/transaction-context.js';
import {
  TransactionOutcomeUnknownError,
  TransactionRetriesExhaustedError,
  TransactionTimeoutError,
} from '../../src/transactions/transaction-errors.js';
import { openDatabase } from '../support/test-database.js';
import { randomOf } from '../support/random.js';

export interface CheckOptions {
  seed: number;
  /** How long transfers are made, in seconds. */
  seconds: number;
  /** Where the check's own PostgreSQL lives; removed by the caller. */
  directory: string;
  /** How the server goes down in the middle: `clean` saves everything, a `crash` (SIGQUIT) forgets what was not flushed. */
  restart: 'clean' | 'crash';
  /** Ends the transfers early; everything is compared and removed all the same. */
  signal?: AbortSignal;
  /** Told the counts now and then. */
  onProgress?: (counts: Counts) => void;
}

/** What happened; `violations` has to be empty. */
export interface Counts {
  done: number;
  failed: number;
  unknown: number;
  retries: number;
  backendsKilled: number;
  cutBeforeCommit: number;
  cutAfterCommit: number;
  cutUnnoticed: number;
  restarts: number;
  violations: string[];
}

const WORKERS = 16;
const ACCOUNTS = 24;
const START_BALANCE = 1000;
/** What a transfer may end with that says "nothing was changed". */
const FAILURES = [
  TransactionRetriesExhaustedError,
  TransactionTimeoutError,
  DatabaseUnavailableError,
  PoolExhaustedError,
  StatementTimeoutError,
];

/**
 * Workers transfer amounts between people under SERIALIZABLE, while backends are killed, COMMITs are cut before and after the
 * server has them, and the server is restarted once. Then everything that was reported is compared with what is there.
 */
export async function checkConsistency(options: CheckOptions): Promise<Counts> {
  const { seed, seconds, directory, restart } = options;
  const random = randomOf(seed);
  const counts: Counts = {
    done: 0,
    failed: 0,
    unknown: 0,
    retries: 0,
    backendsKilled: 0,
    cutBeforeCommit: 0,
    cutAfterCommit: 0,
    cutUnnoticed: 0,
    restarts: 0,
    violations: [],
  };
  let server = await startEmbeddedPostgres({ directory });
  await createPeopleTable(server.url);
  const proxy = await startTcpProxy({ host: '127.0.0.1', port: server.port });
  const database = await openDatabase(server.url);
  const app = await startPeopleApp({ DATABASE_URL: proxy.through(server.url) }, database);
  try {
    const accounts = await openAccounts(app);
    const reports = new Map<string, Report>();
    proxy.onClientData = (data) => {
      const decision = data.includes('COMMIT') ? cutOf(random()) : 'pass';
      if (decision === 'cut-before') counts.cutBeforeCommit++;
      if (decision === 'cut-after') counts.cutAfterCommit++;
      if (decision === 'cut-unnoticed') counts.cutUnnoticed++;
      return decision;
    };
    const end = Date.now() + seconds * 1000;
    const isOver = () => Date.now() > end || options.signal?.aborted === true;
    const workers = Array.from({ length: WORKERS }, async () => {
      while (!isOver()) await transfer(app, accounts, random, reports, counts);
    });
    const killer = killBackends(() => server.url, random, counts, isOver);
    const progress = setInterval(() => options.onProgress?.(counts), 10_000);
    const half = Date.now() + seconds * 500;
    while (Date.now() < half && !isOver()) await pause(50);
    if (restart === 'crash') process.kill(server.pid, 'SIGQUIT');
    await server.stop();
    server = await startEmbeddedPostgres({ directory, port: server.port });
    counts.restarts++;
    await Promise.all([...workers, killer]);
    clearInterval(progress);
    proxy.onClientData = () => 'pass';
    await compare(app, server.url, accounts, reports, counts);
    return counts;
  } finally {
    await app.close();
    await database.drop();
    await proxy.close();
    await server.stop();
  }
}

type Report = { outcome: 'done' } | { outcome: 'failed' } | { outcome: 'unknown'; xid: string | undefined };

function cutOf(chance: number): Decision {
  if (chance < 0.02) return 'cut-before';
  if (chance < 0.04) return 'cut-after';
  return chance < 0.042 ? 'cut-unnoticed' : 'pass';
}

async function openAccounts(app: PeopleApp): Promise<string[]> {
  await app.dataSource.query('CREATE TABLE transfers (id uuid PRIMARY KEY, amount int NOT NULL)');
  const people = Array.from({ length: ACCOUNTS }, (_, index) => ({
    name: `account ${index}`,
    data: { balance: START_BALANCE },
  }));
  return (await app.people.createMany(people)).ids;
}

async function transfer(
  app: PeopleApp,
  accounts: readonly string[],
  random: () => number,
  reports: Map<string, Report>,
  counts: Counts,
): Promise<void> {
  const pick = () => accounts[Math.floor(random() * accounts.length)]!;
  const [from, to, amount] = [pick(), pick(), 1 + Math.floor(random() * 10)];
  if (from === to) return;
  const id = crypto.randomUUID();
  try {
    await app.transactions.run({ isolationLevel: 'SERIALIZABLE' }, async (transaction) => {
      if (transaction.attempt > 1) counts.retries++;
      const [fromBalance, toBalance] = [await balanceOf(transaction, from), await balanceOf(transaction, to)];
      await setBalance(transaction, from, fromBalance - amount);
      await setBalance(transaction, to, toBalance + amount);
      await transaction.query({ text: 'INSERT INTO transfers VALUES ($1, $2)', values: [id, amount] });
    });
    counts.done++;
    reports.set(id, { outcome: 'done' });
  } catch (error) {
    if (error instanceof TransactionOutcomeUnknownError) {
      counts.unknown++;
      reports.set(id, { outcome: 'unknown', xid: error.xid });
    } else if (FAILURES.some((failure) => error instanceof failure)) {
      counts.failed++;
      reports.set(id, { outcome: 'failed' });
      await pause(20);
    } else {
      counts.violations.push(`a transfer ended with ${String((error as Error).stack)}`);
    }
  }
}

async function balanceOf(transaction: TransactionContext, id: string): Promise<number> {
  const { rows } = await transaction.query<{ balance: number }>({
    text: `SELECT (data->>'balance')::int AS balance FROM people WHERE id = $1`,
    values: [id],
  });
  return rows[0]!.balance;
}

const setBalance = (transaction: TransactionContext, id: string, balance: number) =>
  transaction.query({ text: 'UPDATE people SET data = $2 WHERE id = $1', values: [id, { balance }] });

async function createPeopleTable(url: string): Promise<void> {
  const dataSource = new DataSource({ type: 'postgres', url, migrations: peopleMigrations });
  await dataSource.initialize();
  await migrate(dataSource);
  await dataSource.destroy();
}

/** Ends the session of a random client now and then, past the proxy. */
async function killBackends(
  url: () => string,
  random: () => number,
  counts: Counts,
  isOver: () => boolean,
): Promise<void> {
  while (!isOver()) {
    await pause(20 + random() * 120);
    const client = new pg.Client(url());
    client.on('error', () => undefined);
    try {
      await client.connect();
      const { rowCount } = await client.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1`,
      );
      counts.backendsKilled += rowCount ?? 0;
    } catch {
      // The server is being restarted.
    } finally {
      await client.end().catch(() => undefined);
    }
  }
}

async function compare(
  app: PeopleApp,
  url: string,
  accounts: readonly string[],
  reports: Map<string, Report>,
  counts: Counts,
): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  const { rows } = await client.query<{ id: string }>('SELECT id FROM transfers');
  const stored = new Set(rows.map(({ id }) => id));
  const { rows: sums } = await client.query<{ sum: number }>(
    `SELECT sum((data->>'balance')::int)::int AS sum FROM people`,
  );
  const expected = accounts.length * START_BALANCE;
  if (sums[0]!.sum !== expected) counts.violations.push(`the sum is ${sums[0]!.sum}, not ${expected}`);
  for (const [id, report] of reports) {
    if (report.outcome === 'done' && !stored.has(id))
      counts.violations.push(`${id} was reported done and is not there`);
    if (report.outcome === 'failed' && stored.has(id))
      counts.violations.push(`${id} was reported failed and is there`);
  }
  for (const id of stored)
    if (!reports.has(id)) counts.violations.push(`${id} is there and was not reported`);
  await client.end();
  const { borrowed } = poolOf(app.dataSource);
  if (borrowed !== 0) counts.violations.push(`${borrowed} connections were not given back`);
  await Promise.all(accounts.map((id) => app.people.get(id)));
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
