import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { EnvironmentError, readEnvironment } from '../../src/app/environment.js';
import { VARIABLES, type Variable } from '../../src/app/environment-variables.js';
import { urlsOfHosts } from '../../src/database/database-url.js';
import pg from 'pg';

/** Where pg connects to, for each host. */
const placesOf = (url: string) =>
  urlsOfHosts(url).map((each) => {
    const { host, port } = new pg.Client(each);
    return `${host} ${port}`;
  });

type Name = keyof typeof VARIABLES;

function problemsOf(environment: Partial<Record<Name, string>>): readonly string[] {
  try {
    readEnvironment(environment);
  } catch (error) {
    if (error instanceof EnvironmentError) return error.problems;
    throw error;
  }
  return [];
}

/** Values that are refused, of every variable that refuses any. */
const REFUSED: Partial<Record<Name, string[]>> = {
  DATABASE_URL: [
    'mysql://h/d',
    'localhost:5432',
    'postgres//user:hunter2@h',
    'postgres://a,/d',
    'postgres://u@a,,b/d',
    'postgres://a:1,b:x/d',
    'postgres://a,b:65536/d',
    'postgres://[::1],[::2/d',
    'postgres://a,b/d?port=1,2,3',
    'postgres:///d?host=a,',
    'mysql://a,b/d',
  ],
  DB_HOSTNAME: [
    'a,',
    'a,,b',
    'a:0',
    'a:65536',
    'a:x',
    'a:',
    'a b',
    'u@h',
    '[::1',
    '[h]',
    'fe80::1%eth0',
    ',',
  ],
  DB_PORT: ['0', '65536', '5432a', '-1', '1.5', '1e3', ' 5432'],
  DB_NAME: ['a?b', 'a#b'],
  DB_SSL: ['on', 'true', 'REQUIRE'],
  DB_POOL_SIZE: ['0', '1001', 'ten'],
  DB_ACQUIRE_TIMEOUT_MS: ['0', '600001', '5s'],
  DB_STATEMENT_TIMEOUT_MS: ['-1', '3600001', 'off'],
  DB_RECYCLING: ['slow', 'Fast'],
  DB_PREPARED_STATEMENTS: ['named', 'On'],
  DB_SHARED_STATEMENTS: ['yes', 'ON'],
  DB_STATEMENT_COMMENTS: ['yes', 'ON'],
  TRANSACTION_MAX_ATTEMPTS: ['0', '11', 'many'],
  TRANSACTION_ISOLATION_LEVEL: ['serializable', 'READ UNCOMMITTED'],
  INBOX_RETENTION_MS: ['0', '31622400001', '7d'],
  KAFKA: ['no', 'OFF'],
  KAFKA_BROKERS: ['broker', 'a:9092,', 'a:9092;b:9092', 'kafka://a:9092'],
  KAFKA_CLIENT: ['KafkaJS', '@platformatic/kafka'],
  KAFKA_CONCURRENCY: ['0', '1001'],
  KAFKA_TOPIC_PARTITIONS: ['0', '10001'],
  EMBEDDED_POSTGRES_PORT: ['0', '65536'],
  EMBEDDED_KAFKA_PORT: ['0', '65536'],
  KAFKA_TOPIC_REPLICATION: ['0', '101'],
  KAFKA_BATCH_HANDLERS: ['true', 'ON'],
  KAFKA_QUARANTINE_KEYS: ['true', 'ON'],
  KAFKA_MAX_HEADERS: ['0', '100001'],
  KAFKA_MAX_HEADER_BYTES: ['0', '64k'],
  KAFKA_MAX_KEY_BYTES: ['0', '-1'],
  KAFKA_MAX_BATCH_BYTES: ['0', '1e9'],
  KAFKA_REPLY_TOPICS: ['a b', '*.replies', 'a,,b'],
  KAFKA_MAX_REPLY_BYTES: ['1023', '1MB'],
  KAFKA_REPLY_TIMEOUT_MS: ['0', 'never'],
  KAFKA_HANDLER_TIMEOUT_MS: ['0', 'never'],
  KAFKA_STALLED_AFTER_MS: ['0', 'never'],
  KAFKA_ON_OFFSET_OUT_OF_RANGE: ['none', 'Earliest'],
  KAFKA_SSL: ['true'],
  KAFKA_SASL_MECHANISM: ['PLAIN', 'oauthbearer'],
  PEOPLE_EVENTS: ['yes', 'ON'],
  PEOPLE_MAX_DATA_BYTES: ['0', '268435457', '1MB'],
  PEOPLE_MAX_NAME_BYTES: ['0', '268435457', '1MB'],
  PORT: ['-1', '65536', 'http'],
  HTTP_MEMORY_BUDGET_BYTES: ['0', '1048575', '64MiB'],
  HTTP_BODY_LIMIT_BYTES: ['1023', '1073741825', '1MiB'],
  HTTP_BULK_BODY_LIMIT_BYTES: ['0', '16MiB'],
  HTTP_MIN_BODY_BYTES_PER_SECOND: ['-1', 'slow'],
  HTTP_BODY_GRACE_MS: ['0', '3600001'],
  HTTP_MIN_ANSWER_BYTES_PER_SECOND: ['-1', '1.5'],
  HTTP_ANSWER_GRACE_MS: ['0', '30s'],
  HTTP_HEADERS_TIMEOUT_MS: ['0', '600001'],
  HTTP_KEEP_ALIVE_TIMEOUT_MS: ['0', '600001'],
  HTTP_MAX_CONNECTIONS: ['0', '1000001'],
  HTTP_LINGER_BYTES: ['-1', 'all'],
  HTTP_LINGER_MS: ['0', '600001'],
  HTTP_ALLOWED_HOSTS: ['http://a', 'a:80', 'a,', 'a b', '[x]'],
  MANAGEMENT_PORT: ['-1', '65536', 'on'],
  AUTH: ['basic', 'JWT'],
  AUTH_JWKS_URL: ['file:///keys', 'issuer.test/keys'],
  AUTH_SECRET: ['hunter2', 'x'.repeat(31)],
  PEOPLE_PAGE_BYTES: ['0', '1023', '4MB'],
  PEOPLE_IMPORT_PLACES: ['0', '1001', 'half'],
  PEOPLE_IMPORT_IDLE_MS: ['0', '99', '10s'],
  PEOPLE_IMPORT_PIECE_MS: ['0', '99', '1m'],
  AUTH_JWKS_LIMIT_BYTES: ['0', '1MiB'],
  AUTH_JWKS_TIMEOUT_MS: ['0', '600001'],
  AUTH_TOKEN_LIMIT_BYTES: ['255', '16385'],
  SHUTDOWN_TIMEOUT_MS: ['0', '600001', '25s'],
  SHUTDOWN_DELAY_MS: ['-1', '600001', '5s'],
  READINESS_GROUPS: ['kafka', 'http,', 'HTTP'],
  LOG_BUFFER_BYTES: ['0', '16383', '8MiB'],
  LOG_LEVEL: ['verbose', 'INFO'],
};

describe('a variable with a value that is not accepted', () => {
  const cases = Object.entries(REFUSED).flatMap(([name, values]) =>
    values.map((value) => [name as Name, value] as const),
  );

  it.each(cases)('%s=%s is named, with what is accepted', (name, value) => {
    const { accepted, secret } = VARIABLES[name] as Variable<unknown>;
    const shown = secret ? 'its value' : `"${value}"`;
    expect(problemsOf({ [name]: value })).toEqual([
      `${name}: ${shown} is not accepted; expected ${accepted}`,
    ]);
  });

  it('is in this table, if there is any', () => {
    const takesAnything = Object.entries<Variable<unknown>>(VARIABLES)
      .filter(([, { parse }]) => parse('any text? #') !== undefined)
      .map(([name]) => name);
    expect([...Object.keys(REFUSED), ...takesAnything].sort()).toEqual(Object.keys(VARIABLES).sort());
  });

  it('is reported together with all others', () => {
    const problems = problemsOf({ PORT: 'x', DB_PORT: 'y', LOG_LEVEL: 'z', DB_HOSTNAME: 'h' });
    expect(problems.map((problem) => problem.split(':')[0])).toEqual(['DB_PORT', 'PORT', 'LOG_LEVEL']);
  });

  it('is shown to nobody when it is a secret', () => {
    const refusal = () =>
      readEnvironment({ DATABASE_URL: 'postgres//u:hunter2@h', AUTH_SECRET: 'hunter2', PORT: 'x' });
    expect(refusal).toThrow(
      /^The environment is not usable; nothing was started\.\n {2}DATABASE_URL: its value/,
    );
    expect(refusal).not.toThrow(/hunter2/);
    const secret = Object.entries<Variable<unknown>>(VARIABLES).filter(([, variable]) => variable.secret);
    expect(secret.map(([name]) => name)).toEqual([
      'DATABASE_URL',
      'DB_PASSWORD',
      'KAFKA_SASL_PASSWORD',
      'AUTH_JWKS_URL',
      'AUTH_SECRET',
    ]);
  });

  it('is shown to nobody where it is a URL with a password, whatever variable it stands in', () => {
    const url = 'kafka://user:hunter2@broker:9092';
    for (const name of ['KAFKA_BROKERS', 'DB_HOSTNAME', 'AUTH_JWKS_URL', 'PORT'] as const)
      expect(problemsOf({ [name]: url })).toEqual([
        expect.stringMatching(`^${name}: its value is not accepted`),
      ]);
  });

  it('is shown up to 200 characters', () => {
    expect(problemsOf({ PORT: 'x'.repeat(10_000) })[0]).toContain(`"${'x'.repeat(200)}" is not accepted`);
  });
});

describe('variables that contradict each other', () => {
  const secret = 's'.repeat(32);
  const production = { NODE_ENV: 'production', DATABASE_URL: 'postgres://h/d', KAFKA_BROKERS: 'k:9092' };

  it.each<[Partial<Record<Name, string>>, string[]]>([
    [{ NODE_ENV: 'production' }, ['DATABASE_URL: missing', 'KAFKA_BROKERS: missing']],
    [
      { ...production, EMBEDDED_POSTGRES_PORT: '5433' },
      ['EMBEDDED_POSTGRES_PORT: no PostgreSQL is embedded'],
    ],
    [
      { DB_HOSTNAME: 'h', EMBEDDED_POSTGRES_PORT: '5433' },
      ['EMBEDDED_POSTGRES_PORT: no PostgreSQL is embedded'],
    ],
    [{ KAFKA: 'off', EMBEDDED_KAFKA_PORT: '9093' }, ['EMBEDDED_KAFKA_PORT: no Kafka is embedded']],
    [{ ...production, DATABASE_URL: '' }, ['DATABASE_URL: missing']],
    [{ ...production, KAFKA_BROKERS: '' }, ['KAFKA_BROKERS: missing']],
    [
      { KAFKA_SASL_MECHANISM: 'plain', KAFKA_SASL_USERNAME: 'u' },
      ['KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD: missing'],
    ],
    [{ HOST: '0.0.0.0' }, ['AUTH: missing']],
    [{ HOST: '::' }, ['AUTH: missing']],
    [{ HOST: '127.0.0.1.example.com' }, ['AUTH: missing']],
    [{ PORT: '4000', MANAGEMENT_PORT: '4000' }, ['MANAGEMENT_PORT: 4000 is PORT as well']],
    [{ MANAGEMENT_HOST: '127.0.0.1' }, ['MANAGEMENT_HOST: there is no MANAGEMENT_PORT']],
    [{ AUTH: 'jwt' }, ['AUTH_JWKS_URL, AUTH_SECRET: AUTH=jwt']],
    [
      { AUTH: 'jwt', AUTH_SECRET: secret, AUTH_JWKS_URL: 'https://i/k' },
      ['AUTH_JWKS_URL, AUTH_SECRET: AUTH=jwt'],
    ],
    [{ KAFKA: 'off', READINESS_GROUPS: 'http,messages' }, ['READINESS_GROUPS: there are no messages']],
    [
      { SHUTDOWN_DELAY_MS: '3000', SHUTDOWN_TIMEOUT_MS: '3000' },
      ['SHUTDOWN_DELAY_MS: 3000 leaves no time for what runs'],
    ],
    [{ HOST: '0.0.0.0', NODE_ENV: 'production', KAFKA: 'off' }, ['DATABASE_URL: missing', 'AUTH: missing']],
  ])('are all named: %j', (environment, beginnings) => {
    const problems = problemsOf(environment);
    expect(problems).toEqual(beginnings.map((beginning) => expect.stringMatching(`^${beginning}`)));
  });

  it.each<[Partial<Record<Name, string>>]>([
    [production],
    [{ ...production, KAFKA: 'off', KAFKA_BROKERS: '' }],
    [{ ...production, DATABASE_URL: '', DB_HOSTNAME: 'db' }],
    [{ HOST: '0.0.0.0', AUTH: 'none' }],
    [{ HOST: '0.0.0.0', AUTH: 'jwt', AUTH_SECRET: secret }],
    [{ HOST: '::1' }],
    [{ HOST: 'localhost' }],
    [{ HOST: '127.1.2.3' }],
    [{ PORT: '4000', MANAGEMENT_PORT: '4000', MANAGEMENT_HOST: '127.0.0.2' }],
    [{ PORT: '0', MANAGEMENT_PORT: '0' }],
  ])('are not these: %j', (environment) => {
    expect(problemsOf(environment)).toEqual([]);
  });
});

describe('the environment', () => {
  it('has a default for everything, an empty variable being none', () => {
    const defaults = {
      database: { poolSize: 10, acquireTimeoutMs: 5000, statementTimeoutMs: 30_000, ssl: 'off' },
      recycling: 'fast',
      preparedStatements: 'named',
      statementComments: false,
      maxAttempts: 10,
      inboxRetentionMs: 604_800_000,
      maxDataBytes: 1_048_576,
      maxNameBytes: 1_048_576,
      kafka: { library: 'kafkajs', clientId: 'people', groupId: 'people', concurrency: 7, topicPartitions: 8, topicReplication: undefined, batchHandlers: true, quarantineKeys: false, limits: { headers: 1000, headerBytes: 65_536, keyBytes: 65_536, batchBytes: 33_554_432 }, replyTopics: undefined, stalledAfterMs: 60_000, onOffsetOutOfRange: 'stop', replyTimeoutMs: 60_000, handlerTimeoutMs: 300_000, ssl: false, sasl: undefined },
      events: true,
      people: { pageBytes: 4_194_304, replyBytes: 900_000, importIdleMs: 10_000, importPieceMs: 60_000 },
      http: {
        host: '127.0.0.1', port: 3000, management: undefined, allowedHosts: [], memoryBudgetBytes: 67_108_864,
        bodyLimitBytes: 1_048_576, bulkBodyLimitBytes: 16_777_216, minBodyBytesPerSecond: 5, bodyGraceMs: 10_000,
        minAnswerBytesPerSecond: 1024, answerGraceMs: 30_000, headersTimeoutMs: 10_000, keepAliveTimeoutMs: 10_000,
        maxConnections: 5000, lingerBytes: 67_108_864, lingerMs: 5000,
      },
      shutdownTimeoutMs: 25_000,
      shutdownDelayMs: 0,
      isProduction: false,
      embeddedPorts: { postgres: undefined, kafka: undefined },
      auth: { method: 'none' },
      readinessGroups: ['http'],
      logLevel: 'info',
      logBufferBytes: 8_388_608,
    }; // prettier-ignore
    expect(readEnvironment({})).toEqual(defaults);
    const empty = Object.fromEntries(Object.keys(VARIABLES).map((name) => [name, '']));
    expect(readEnvironment(empty)).toEqual(defaults);
  });

  it.each<[Partial<Record<Name, string>>, string[] | undefined]>([
    [{}, []],
    [{ HOST: 'localhost', AUTH: 'none' }, []],
    [{ HOST: '0.0.0.0', AUTH: 'none' }, undefined],
    [{ AUTH: 'jwt', AUTH_SECRET: 's'.repeat(32) }, undefined],
    [{ HOST: '0.0.0.0', AUTH: 'none', HTTP_ALLOWED_HOSTS: 'People.test, a' }, ['people.test', 'a']],
  ])('of %j takes requests for %j beside the loopback', (environment, names) => {
    expect(readEnvironment(environment).http.allowedHosts).toEqual(names);
  });

  it.each<[Partial<Record<Name, string>>, number]>([
    [{}, 0],
    [{ HOST: '::1' }, 0],
    [{ HOST: '0.0.0.0', AUTH: 'none' }, 5000],
    [{ HOST: '0.0.0.0', AUTH: 'none', SHUTDOWN_TIMEOUT_MS: '3000' }, 1500],
    [{ HOST: '0.0.0.0', AUTH: 'none', SHUTDOWN_DELAY_MS: '0' }, 0],
    [{ SHUTDOWN_DELAY_MS: '7000' }, 7000],
  ])('of %j serves on for %i ms when stopping begins', (environment, delayMs) => {
    expect(readEnvironment(environment).shutdownDelayMs).toBe(delayMs);
  });

  it('hands on what is set', () => {
    const environment = readEnvironment({
      DATABASE_URL: 'postgres://a/b', DB_HOSTNAME: 'ignored', DB_SSL: 'verify-full', DB_POOL_SIZE: '5', DB_STATEMENT_TIMEOUT_MS: '0',
      TRANSACTION_ISOLATION_LEVEL: 'SERIALIZABLE', TRANSACTION_MAX_ATTEMPTS: '3', INBOX_RETENTION_MS: '3600000', PEOPLE_MAX_DATA_BYTES: '1000', PEOPLE_MAX_NAME_BYTES: '100', DB_RECYCLING: 'clean', DB_PREPARED_STATEMENTS: 'off', DB_SHARED_STATEMENTS: 'off', DB_STATEMENT_COMMENTS: 'on',
      KAFKA_BROKERS: 'a:1, b:2', KAFKA_CLIENT: 'platformatic', KAFKA_BATCH_HANDLERS: 'off', KAFKA_QUARANTINE_KEYS: 'on', KAFKA_MAX_HEADERS: '5', KAFKA_REPLY_TOPICS: 'a.reply, b.*', KAFKA_STALLED_AFTER_MS: '9', KAFKA_ON_OFFSET_OUT_OF_RANGE: 'latest', KAFKA_MAX_REPLY_BYTES: '5000', KAFKA_REPLY_TIMEOUT_MS: '7', KAFKA_HANDLER_TIMEOUT_MS: '8', KAFKA_SSL: 'on', KAFKA_SASL_MECHANISM: 'plain', KAFKA_SASL_USERNAME: 'u', KAFKA_SASL_PASSWORD: 'p',
      HOST: '::1', PORT: '0', AUTH: 'jwt', AUTH_JWKS_URL: 'https://i/k', AUTH_ISSUER: 'i', AUTH_AUDIENCE: 'a', SHUTDOWN_TIMEOUT_MS: '3000', READINESS_GROUPS: 'http, messages', LOG_LEVEL: 'silent',
    }); // prettier-ignore
    expect(environment).toMatchObject({
      database: { url: 'postgres://a/b', poolSize: 5, ssl: 'verify-full', statementTimeoutMs: 0, isolationLevel: 'SERIALIZABLE' },
      recycling: 'clean',
      preparedStatements: 'unnamed',
      sharedStatements: false,
      statementComments: true,
      maxAttempts: 3,
      inboxRetentionMs: 3_600_000,
      maxDataBytes: 1000,
      maxNameBytes: 100,
      people: { replyBytes: 5000 },
      kafka: { brokers: ['a:1', 'b:2'], library: 'platformatic', concurrency: 3, batchHandlers: false, quarantineKeys: true, limits: { headers: 5 }, replyTopics: ['a.reply', 'b.*'], stalledAfterMs: 9, onOffsetOutOfRange: 'latest', replyTimeoutMs: 7, handlerTimeoutMs: 8, ssl: true, sasl: { mechanism: 'plain', username: 'u', password: 'p' } },
      http: { host: '::1', port: 0 },
      auth: { method: 'jwt', jwksUrl: 'https://i/k', issuer: 'i', audience: 'a' },
      shutdownTimeoutMs: 3000,
      readinessGroups: ['http', 'messages'],
      logLevel: 'silent',
    }); // prettier-ignore
    expect(readEnvironment({ KAFKA: 'off' }).kafka).toBeUndefined();
    expect(readEnvironment({ DB_POOL_SIZE: '1' }).kafka?.concurrency).toBe(1);
  });

  it('makes a URL of the DB_ parts that pg takes apart again, whatever is in them', () => {
    const parts = {
      DB_USER: 'ü@b:c/',
      DB_PASSWORD: 'p@ss:w/ö?r#d% &[]',
      DB_NAME: 'd ü/:@&=+%2F%',
      DB_PORT: '6543',
    };
    for (const host of ['db.internal', '10.0.0.1', '::1']) {
      const { url } = readEnvironment({ ...parts, DB_HOSTNAME: host }).database;
      const { user, password, database, port, host: read } = new pg.Client(url);
      expect({ user, password, database, port, host: read }).toEqual({
        user: parts.DB_USER,
        password: parts.DB_PASSWORD,
        database: parts.DB_NAME,
        port: 6543,
        host,
      });
    }
    expect(readEnvironment({ DB_HOSTNAME: 'h' }).database.url).toBe(
      'postgres://postgres:password@h:5432/postgres',
    );
  });

  it('makes a URL of several hosts, each with its port', () => {
    const names = 'db-1.internal, 10.0.0.2:6000,::1,[2001:db8::2]:6001,/var/run/postgresql';
    const { url } = readEnvironment({ DB_HOSTNAME: names, DB_PORT: '6543', DB_PASSWORD: 'a,b@c/' }).database;
    expect(placesOf(url!)).toEqual([
      'db-1.internal 6543',
      '10.0.0.2 6000',
      '::1 6543',
      '2001:db8::2 6001',
      '/var/run/postgresql 6543',
    ]);
    for (const each of urlsOfHosts(url!)) {
      const { user, password, database } = new pg.Client(each);
      expect([user, password, database]).toEqual(['postgres', 'a,b@c/', 'postgres']);
    }
  });

  it('reads a secret from the file that its …_FILE names', () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'secrets-'));
    const file = (content: string) => {
      const name = path.join(directory, String(readdirSync(directory).length));
      writeFileSync(name, content);
      return name;
    };
    const secret = file('p@ss\n');
    expect(readEnvironment({ DB_HOSTNAME: 'h', DB_PASSWORD_FILE: secret }).database.url).toBe(
      'postgres://postgres:p%40ss@h:5432/postgres',
    );
    expect(readEnvironment({ DATABASE_URL_FILE: file('postgres://a/b') }).database.url).toBe(
      'postgres://a/b',
    );
    const refused = {
      DB_PASSWORD: 'x',
      DB_PASSWORD_FILE: secret,
      AUTH_SECRET_FILE: path.join(directory, 'none'),
    };
    const more = { DATABASE_URL_FILE: file('\n'), KAFKA_SASL_PASSWORD_FILE: file('x'.repeat(70_000)) };
    expect(problemsOf({ ...refused, ...more })).toEqual([
      'DATABASE_URL_FILE: the file has 1 bytes; expected 1 to 65536',
      'DB_PASSWORD, DB_PASSWORD_FILE: only one of them can be the value; leave the other out',
      'KAFKA_SASL_PASSWORD_FILE: the file has 70000 bytes; expected 1 to 65536',
      "AUTH_SECRET_FILE: the file can't be read (ENOENT); expected the path of one that this process may read",
    ]);
    rmSync(directory, { recursive: true });
  });
});
