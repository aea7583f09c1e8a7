import { Logger } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import type { TransactionIds } from './transaction-ids.js';
import { ISOLATION_LEVELS, type IsolationLevel } from './data-source-options.js';

/** How statements that have a name are sent: prepared under it once per connection, or parsed each time. */
export const PREPARED_STATEMENTS = ['named', 'unnamed'] as const;
export type PreparedStatements = (typeof PREPARED_STATEMENTS)[number];

/** Connections on which names do not hold, although they are new: after so many, names are done without for a while. */
const STRIKES = 2;
const STRIKES_WITHIN_MS = 60_000;
const UNNAMED_FOR_MS = 60_000;

const DEFAULT_ACQUIRE_TIMEOUT_MS = 10_000;

/** How statements are sent, as far as it can be chosen. */
interface ServerSettings {
  acquireTimeoutMs?: number;
  statementComments?: boolean;
  preparedStatements?: PreparedStatements;
}

const servers = new WeakMap<DataSource, KnownServer>();

/** What has been learnt of the server behind a DataSource, and of what stands between the two. */
export class KnownServer {
  static of(dataSource: DataSource): KnownServer {
    let server = servers.get(dataSource);
    if (!server) servers.set(dataSource, (server = new KnownServer(dataSource)));
    return server;
  }

  /** A connection was asked what it gives; until then the rest is not known. */
  isKnown = false;
  /** Something stands between that hands out server connections of its own: PgBouncer and the like. */
  isPooled = false;
  /** What it says of transactions by their ids; undefined until it was asked. */
  transactionIds: TransactionIds | false | undefined;
  /** Statements are sent with a comment that names their request. */
  commentsStatements = false;
  /** How long a connection is waited for, in ms, where the pool has no limit of its own. */
  acquireTimeoutMs = DEFAULT_ACQUIRE_TIMEOUT_MS;
  /** It takes LISTEN. Assumed until it refuses. */
  takesListen = true;
  /** Connections that are older may have prepared what does not fit any more: they are closed before they are lent again. */
  outdatedSince = 0;
  /** Connections that are older may be to a server that takes no writes any more: they are asked before they are lent again. */
  suspectSince = 0;
  private preparedStatements: PreparedStatements = 'named';
  private unnamedUntil = 0;
  private strikes = 0;
  private lastStrikeAt = 0;
  private readonly dropped = new Map<string, string>();
  private readonly logger = new Logger('Database');

  /** The settings that the DataSource's connections are to have, by name, as they were asked for. */
  readonly asked: ReadonlyMap<string, string>;

  private constructor(private readonly dataSource: DataSource) {
    this.asked = askedSettings(dataSource);
  }

  /** True where statements go by their names. */
  get isNamed(): boolean {
    return this.preparedStatements === 'named' && performance.now() >= this.unnamedUntil;
  }

  /** Assumed until it has been asked. */
  get hasTransactionIds(): boolean {
    return this.transactionIds !== false;
  }

  /** What the application has set. There is no way back to names: somebody on this DataSource needs to do without. */
  configure({ acquireTimeoutMs, statementComments, preparedStatements }: ServerSettings): void {
    this.acquireTimeoutMs = acquireTimeoutMs ?? this.acquireTimeoutMs;
    if (statementComments) this.commentsStatements = true;
    if (preparedStatements === 'unnamed') this.preparedStatements = 'unnamed';
  }

  /** The level that the DataSource's connections are to have where nobody chooses one. */
  get isolationLevel(): IsolationLevel | undefined {
    const asked = this.dataSource.options.isolationLevel ?? this.asked.get(ISOLATION);
    return ISOLATION_LEVELS.find((level) => level === asked?.toUpperCase());
  }

  /** True where connections lack settings that were asked for, so that each transaction has to bring them along. */
  get dropsSettings(): boolean {
    return this.dropped.size > 0;
  }

  /** What each transaction has to bring along, as statements behind BEGIN; the level goes with BEGIN itself. */
  get settingsPerTransaction(): string[] {
    return [...this.dropped]
      .filter(([name]) => name !== ISOLATION)
      .map(([name, value]) => `SET LOCAL ${name} = ${elementsOf(value)}`);
  }

  /** Connections come without what was asked for. */
  learnDropped(settings: readonly string[]): void {
    const news = settings.filter((name) => !this.dropped.has(name));
    for (const name of news) this.dropped.set(name, this.asked.get(name)!);
    if (news.length > 0)
      this.logger.warn(
        `Connections come without ${news.join(', ')}, which were asked for: a pooler drops startup parameters, and pg sends none that is 0. ` +
          'Each transaction sets them by itself, which costs single statements a round trip. Have the pooler pass them on, or set them for the role (ALTER ROLE … SET).',
      );
  }

  /**
   * A statement that the client believed to be prepared was not, or does not fit any more: nothing of it was done.
   *
   * @param since when its connection was made
   */
  namesFailed(code: string, since: number): void {
    const now = performance.now();
    // Without a pooler what a connection has prepared is there, until somebody discards it, or changes a table.
    if (this.isPooled && code !== '0A000') this.doWithoutNames(Infinity);
    else if (since > this.outdatedSince && this.outdatedSince > 0) {
      this.strikes = now - this.lastStrikeAt > STRIKES_WITHIN_MS ? 1 : this.strikes + 1;
      this.lastStrikeAt = now;
      if (this.strikes >= STRIKES) this.doWithoutNames(this.isPooled ? Infinity : now + UNNAMED_FOR_MS);
    }
    this.outdatedSince = now;
  }

  /** A server has refused to write: others of its connections are no better. */
  writesFailed(): void {
    this.suspectSince = performance.now();
  }

  private doWithoutNames(until: number): void {
    if (!this.isNamed) return;
    this.unnamedUntil = until;
    this.logger.warn(
      'Prepared statements do not hold on this server: statements are parsed each time. ' +
        (this.isPooled
          ? 'A pooler is in between; with DB_PREPARED_STATEMENTS=off they are from the start.'
          : 'Something discards them, or changes tables again and again.'),
    );
  }
}

const ISOLATION = 'default_transaction_isolation';

/** As SQL: a value in quotes would be one element, and `search_path` is a list of them. */
const elementsOf = (value: string): string =>
  value
    .split(',')
    .map(
      (element) =>
        `'${element
          .trim()
          .replace(/^"(.*)"$/, '$1')
          .replaceAll("'", "''")}'`,
    )
    .join(', ');

/** Startup parameters of pg beside `options`. */
const PARAMETERS = ['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout'] as const;
/** `-c name=value` or `--name=value`, where a backslash keeps the character behind it. */
const OPTION = /(?:-c\s*|--)([\w.-]+)=((?:\\.|[^\\\s])*)/g;

function askedSettings({ options }: DataSource): ReadonlyMap<string, string> {
  // What stands in for a DataSource in a unit test has no options.
  const { extra } = (options ?? {}) as { extra?: Record<string, unknown> };
  const asked = new Map<string, string>();
  for (const [, name, value] of (typeof extra?.options === 'string' ? extra.options : '').matchAll(OPTION))
    asked.set(name!.replaceAll('-', '_'), value!.replace(/\\(.)/g, '$1'));
  for (const name of PARAMETERS) {
    const value = extra?.[name];
    if (typeof value === 'number' || typeof value === 'string') asked.set(name, String(value));
  }
  return asked;
}
