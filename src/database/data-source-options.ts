// database/: PostgreSQL under TypeORM: options, the lending of the pool's clients, what a failure is and whose fault.
// Promises: a connection goes back to the pool only when it is known to be idle; nothing is guessed from texts of errors.
// May know: pg, TypeORM and errors/.

import type { DataSourceOptions } from 'typeorm';
import { apartFromOptions, urlsOfHosts } from './database-url.js';
import { writableClient } from './hosts/writable-client.js';

/** The isolation levels of PostgreSQL, weakest first (READ UNCOMMITTED is READ COMMITTED there). */
export const ISOLATION_LEVELS = ['READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE'] as const;
/** PostgreSQL's levels: `READ UNCOMMITTED` (which it takes for the next), `READ COMMITTED`, `REPEATABLE READ`, `SERIALIZABLE`. */
export type IsolationLevel = (typeof ISOLATION_LEVELS)[number];

/** How DataSource's pool reaches PostgreSQL and how it behaves there. */
export interface DatabaseSettings {
  /** `postgres://user:password@host:port/database`; of several hosts (`h1:5432,h2:5432`) the one that takes writes is used. */
  url: string;
  /** Connections at most, shared by all doors. 10 to 20 suit most servers; more slow them down. */
  poolSize: number;
  /** How long a caller waits for a free connection before it is refused, in ms. */
  acquireTimeoutMs: number;
  /** When the server cancels a statement, in ms; 0 = never. */
  statementTimeoutMs: number;
  /** `require` encrypts without checking the certificate; `verify-full` checks certificate and host name. */
  ssl: 'off' | 'require' | 'verify-full';
  /** The level of transactions that choose none; without it the server's default. */
  isolationLevel?: IsolationLevel;
}

export const APPLICATION_NAME = 'nestjs-people';

/**
 * TypeORM's options for `settings`: one pool with limits on everything, no query that waits for ever, and an idle client
 * that dies told to `onPoolError` instead of ending the process.
 *
 * @throws TypeError the url is none of a database
 */
export function dataSourceOptions(
  settings: DatabaseSettings,
  onPoolError: (error: Error) => void,
): Extract<DataSourceOptions, { type: 'postgres' }> {
  const { isolationLevel, statementTimeoutMs } = settings;
  const hosts = urlsOfHosts(settings.url).map(apartFromOptions);
  const urls = hosts.map(({ url }) => url);
  const sessionDefaults = [
    // The URL's own would have pg leave out the others.
    ...(hosts[0]!.options === null ? [] : [hosts[0]!.options]),
    // As a session default it costs no statement per transaction.
    ...(isolationLevel
      ? [`-c default_transaction_isolation=${isolationLevel.toLowerCase().replace(' ', '\\ ')}`]
      : []),
    // pg sends none that is 0, and the server's own default would stand.
    ...(statementTimeoutMs === 0 ? ['-c statement_timeout=0'] : []),
  ];
  return {
    type: 'postgres',
    // TypeORM and pg know one host.
    url: urls[0]!,
    ssl: settings.ssl === 'off' ? false : { rejectUnauthorized: settings.ssl === 'verify-full' },
    applicationName: APPLICATION_NAME,
    poolSize: settings.poolSize,
    connectTimeoutMS: settings.acquireTimeoutMs,
    poolErrorHandler: onPoolError,
    // Its own query functions and no COPY streams: never to be picked up by chance.
    nativeDriver: false,
    installExtensions: false,
    uuidExtension: 'pgcrypto',
    migrationsTransactionMode: 'each',
    extra: {
      keepAlive: true,
      statement_timeout: statementTimeoutMs,
      ...(urls.length > 1 && { Client: writableClient(urls) }),
      ...(sessionDefaults.length > 0 && { options: sessionDefaults.join(' ') }),
    },
  };
}
