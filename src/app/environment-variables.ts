import { RECYCLING_METHODS } from '../database/pooled-client.js';
import { ISOLATION_LEVELS } from '../database/data-source-options.js';
import { hostsOfList, urlsOfHosts } from '../database/database-url.js';
import { KAFKA_CLIENTS } from '../messaging/kafka/clients.js';
import { DEFAULTS } from '../messaging/kafka/transport-options.js';
import { RECORD_LIMITS } from '../messaging/records/limits.js';
import { DEFAULT_BUDGET_BYTES } from '../people/byte-budget.js';
import { DEFAULT_IDLE_MS, DEFAULT_PIECE_MS } from '../people/importing/pace.js';
import { DEFAULT_PAGE_BYTES, DEFAULT_REPLY_BYTES } from '../people/people.options.js';
import { DEFAULT_BUFFER_BYTES } from '../operations/logs/bounded-output.js';
import { DEFAULT_BODY_GRACE_MS, DEFAULT_MIN_BODY_BYTES_PER_SECOND } from '../people/http/request-body.js';
import { DEFAULT_BODY_LIMIT_BYTES, DEFAULT_BULK_BODY_LIMIT_BYTES } from '../people/http/unread-bodies.js';

/** One variable of the environment. */
export interface Variable<T> {
  /** What the table of docs/reference.md shows; undefined when unset means something of its own. */
  default: T;
  accepted: string;
  meaning: string;
  /** undefined = not accepted. */
  parse: (text: string) => T | undefined;
  secret?: boolean;
}

const oneOf = <T extends string>(values: readonly T[]) => ({
  accepted: values.join(', '),
  parse: (text: string) => values.find((value) => value === text),
});
const wholeNumber = (from: number, to: number) => ({
  accepted: `a whole number from ${from} to ${to}`,
  parse: (text: string) => {
    const number = Number(text);
    return /^\d+$/.test(text) && number >= from && number <= to ? number : undefined;
  },
});
const text = { accepted: 'text', parse: (value: string) => value };
const url = (...protocols: string[]) => ({
  accepted: protocols.map((protocol) => `${protocol}//…`).join(' or '),
  parse: (value: string) =>
    URL.canParse(value) && protocols.includes(new URL(value).protocol) ? value : undefined,
});
const databaseUrl = {
  accepted: 'postgres://… or postgresql://…, with one host or several separated by commas',
  parse: (value: string) => {
    try {
      urlsOfHosts(value);
      return value;
    } catch {
      return undefined;
    }
  },
};
const hosts = {
  accepted: 'host names or addresses separated by commas, each with :port or without',
  parse: (value: string) => (hostsOfList(value, 1) ? value : undefined),
};
const list = {
  accepted: 'host:port, several separated by commas',
  parse: (value: string) => {
    const items = value.split(',').map((item) => item.trim());
    return items.every((item) => /^[^\s:]+:\d+$/.test(item)) ? items : undefined;
  },
};
const hostNames = {
  accepted: 'host names or addresses without ports, several separated by commas',
  parse: (value: string) => {
    const names = value.split(',').map((name) => name.trim().toLowerCase());
    return names.every((name) => /^([\w.-]+|\[[\da-f:.]+\])$/.test(name)) ? names : undefined;
  },
};
const topics = {
  accepted: 'names of topics separated by commas, or beginnings of names that end with *',
  parse: (value: string) => {
    const items = value.split(',').map((item) => item.trim());
    return items.every((item) => /^[a-zA-Z0-9._-]{1,249}\*?$/.test(item)) ? items : undefined;
  },
};
const READINESS_GROUPS = ['http', 'messages'] as const;
export type ReadinessGroup = (typeof READINESS_GROUPS)[number];
const groups = {
  accepted: `${READINESS_GROUPS.join(', ')}, or several of them separated by commas`,
  parse: (value: string) => {
    const names = value.split(',').map((name) => READINESS_GROUPS.find((group) => group === name.trim()));
    return names.every((name) => name !== undefined) ? names : undefined;
  },
};
const variable = <T>(definition: Omit<Variable<T>, 'default'> & { default: NoInfer<T> }): Variable<T> =>
  definition;
const optional = <T>(definition: Omit<Variable<T>, 'default'>) =>
  ({ ...definition, default: undefined }) as Variable<T | undefined>;

const KIBIBYTE = 1024;
const MEBIBYTE = 1024 * KIBIBYTE;
const GIBIBYTE = 1024 * MEBIBYTE;
const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
export const SASL_MECHANISMS = ['plain', 'scram-sha-256', 'scram-sha-512'] as const;

/** Every variable, once: parser, default, the table of docs/reference.md and the texts of errors all come from here. */
// prettier-ignore
export const VARIABLES = {
  DATABASE_URL: optional({ ...databaseUrl, meaning: 'The database; wins over the `DB_*` parts. Of several hosts the one that takes writes is used.', secret: true }),
  DB_HOSTNAME: optional({ ...hosts, meaning: 'The database in parts; several hosts as in `DATABASE_URL`. Neither this nor `DATABASE_URL`: the embedded PostgreSQL, except in production.' }),
  DB_PORT: variable({ ...wholeNumber(1, 65535), default: 5432, meaning: 'Its port, where the host has none.' }),
  DB_USER: variable({ ...text, default: 'postgres', meaning: 'Its user.' }),
  DB_PASSWORD: variable({ ...text, default: 'password', meaning: "Its user's password.", secret: true }),
  DB_NAME: variable({ accepted: 'a name without ? and #, which have no place in a database URL', parse: (value: string) => (/[?#]/.test(value) ? undefined : value), default: 'postgres', meaning: 'Its name.' }),
  DB_SSL: variable({ ...oneOf(['off', 'require', 'verify-full'] as const), default: 'off', meaning: '`require` encrypts, `verify-full` also checks the certificate and the host name.' }),
  DB_POOL_SIZE: variable({ ...wholeNumber(1, 1000), default: 10, meaning: 'Connections at most; one pool for all doors.' }),
  DB_ACQUIRE_TIMEOUT_MS: variable({ ...wholeNumber(1, 10 * MINUTE), default: 5000, meaning: 'How long an operation waits for a free connection before it is answered 503.' }),
  DB_STATEMENT_TIMEOUT_MS: variable({ ...wholeNumber(0, 60 * MINUTE), default: 30_000, meaning: 'When the server cancels a statement; 0 = never.' }),
  DB_RECYCLING: variable({ ...oneOf(RECYCLING_METHODS), default: 'fast', meaning: 'What is checked when a connection leaves the pool: `fast` nothing, `verified` that it is alive and its server takes writes, `clean` also resets session state.' }),
  DB_PREPARED_STATEMENTS: variable({ ...oneOf(['on', 'off'] as const), default: 'on', meaning: '`off`: nothing depends on what a connection has prepared, for poolers that change connections between transactions. `on` is faster, and falls back where that is seen.' }),
  DB_SHARED_STATEMENTS: variable({ ...oneOf(['on', 'off'] as const), default: 'on', meaning: '`off`: each single operation is sent by itself. `on`: those that are ready together share a statement and its commit.' }),
  DB_STATEMENT_COMMENTS: variable({ ...oneOf(['off', 'on'] as const), default: 'off', meaning: '`on`: each statement of a request or message names it in a comment (`request_id`, `traceparent`; sqlcommenter). It is then parsed and planned anew each time, and shared with no others.' }),
  TRANSACTION_MAX_ATTEMPTS: variable({ ...wholeNumber(1, 10), default: 10, meaning: 'Attempts of one unit of work in all, before its conflict is reported.' }),
  TRANSACTION_ISOLATION_LEVEL: optional({ ...oneOf(ISOLATION_LEVELS), meaning: "The isolation level; unset: the server's default." }),
  INBOX_RETENTION_MS: variable({ ...wholeNumber(1, 366 * DAY), default: 7 * DAY, meaning: 'How long it is remembered that a message, or a request with an `Idempotency-Key`, was handled, and a dead letter settled.' }),
  KAFKA: variable({ ...oneOf(['on', 'off'] as const), default: 'on', meaning: '`off` serves HTTP alone.' }),
  KAFKA_BROKERS: optional({ ...list, meaning: 'The brokers. Unset: the embedded Kafka, except in production.' }),
  KAFKA_CLIENT: variable({ ...oneOf(KAFKA_CLIENTS), default: 'kafkajs', meaning: 'The client library: kafkajs, or @platformatic/kafka.' }),
  KAFKA_CLIENT_ID: variable({ ...text, default: 'people', meaning: 'How this service names itself to the brokers.' }),
  KAFKA_GROUP_ID: variable({ ...text, default: 'people', meaning: 'The consumer group; instances of one group share the work.' }),
  KAFKA_CONCURRENCY: optional({ ...wholeNumber(1, 1000), meaning: 'Messages, or batches of them, in flight at most. Unset, and at most: `DB_POOL_SIZE` less a fifth kept for HTTP and one for the relay of events.' }),
  KAFKA_TOPIC_PARTITIONS: variable({ ...wholeNumber(1, 10_000), default: 8, meaning: 'Partitions of topics that are created because they are missing.' }),
  KAFKA_TOPIC_REPLICATION: optional({ ...wholeNumber(1, 100), meaning: 'Their replication factor. Unset: 3, or the number of brokers where they are fewer.' }),
  KAFKA_BATCH_HANDLERS: variable({ ...oneOf(['on', 'off'] as const), default: 'on', meaning: '`off`: each message is handled by itself, and up to 64 share a transaction. `on`: up to 500 that write people share their statements as well.' }),
  KAFKA_QUARANTINE_KEYS: variable({ ...oneOf(['off', 'on'] as const), default: 'off', meaning: '`on`: once a message is a dead letter, the later ones of its key wait until it is replayed or discarded.' }),
  KAFKA_MAX_HEADERS: variable({ ...wholeNumber(1, 100_000), default: RECORD_LIMITS.headers, meaning: 'Headers that a record may have; one with more is a dead letter `RECORD_TOO_LARGE`, like one past the next two.' }),
  KAFKA_MAX_HEADER_BYTES: variable({ ...wholeNumber(1, 100 * MEBIBYTE), default: RECORD_LIMITS.headerBytes, meaning: 'Bytes of its headers.' }),
  KAFKA_MAX_KEY_BYTES: variable({ ...wholeNumber(1, 100 * MEBIBYTE), default: RECORD_LIMITS.keyBytes, meaning: 'Bytes of its key.' }),
  KAFKA_MAX_BATCH_BYTES: variable({ ...wholeNumber(1, 1024 * MEBIBYTE), default: RECORD_LIMITS.batchBytes, meaning: 'Bytes that what one fetch brings may be decompressed to; a batch with more is one dead letter.' }),
  KAFKA_REPLY_TOPICS: optional({ ...topics, meaning: 'Where replies may go. Unset: any topic but those that the service reads or writes itself, those of dead letters and Kafka\'s own, to which they never go.' }),
  KAFKA_MAX_REPLY_BYTES: variable({ ...wholeNumber(KIBIBYTE, GIBIBYTE), default: DEFAULT_REPLY_BYTES, meaning: 'Bytes that a page of people has at most as a reply, though always one person: the rest is on the next. Not more than the topics of replies take (`max.message.bytes`).' }),
  KAFKA_REPLY_TIMEOUT_MS: variable({ ...wholeNumber(1, DAY), default: DEFAULTS.replyTimeoutMs, meaning: 'How long a reply is tried again that its own address keeps from being sent while others are acknowledged; it is then logged and given up.' }),
  KAFKA_HANDLER_TIMEOUT_MS: variable({ ...wholeNumber(1, DAY), default: DEFAULTS.handlerTimeoutMs, meaning: 'How long the handling of one message may take before it has failed (`HANDLER_TIMEOUT`), whatever the database does.' }),
  KAFKA_STALLED_AFTER_MS: variable({ ...wholeNumber(1, DAY), default: 60_000, meaning: 'Readiness is false once nothing was done of a partition for so long, though messages of other keys than those that fail wait there.' }),
  KAFKA_ON_OFFSET_OUT_OF_RANGE: variable({ ...oneOf(['stop', 'earliest', 'latest'] as const), default: 'stop', meaning: 'Where to go on in a partition whose committed offset is not there any more: nowhere, so that nothing is skipped unasked, at the first message there is, or behind the last.' }),
  KAFKA_SSL: variable({ ...oneOf(['off', 'on'] as const), default: 'off', meaning: '`on` encrypts and checks certificates.' }),
  KAFKA_SASL_MECHANISM: optional({ ...oneOf(SASL_MECHANISMS), meaning: 'How to log in at the brokers; unset: not at all.' }),
  KAFKA_SASL_USERNAME: optional({ ...text, meaning: 'Needed with `KAFKA_SASL_MECHANISM`.' }),
  KAFKA_SASL_PASSWORD: optional({ ...text, meaning: 'Needed with `KAFKA_SASL_MECHANISM`.', secret: true }),
  PEOPLE_EVENTS: variable({ ...oneOf(['on', 'off'] as const), default: 'on', meaning: '`off` publishes no events; `KAFKA=off` does neither.' }),
  PEOPLE_MAX_DATA_BYTES: variable({ ...wholeNumber(1, 256 * MEBIBYTE), default: MEBIBYTE, meaning: "What a person's `data` may have at most, in bytes of JSON, by whichever door; also once it is merged." }),
  PEOPLE_MAX_NAME_BYTES: variable({ ...wholeNumber(1, 256 * MEBIBYTE), default: MEBIBYTE, meaning: "What a person's name may have at most, in bytes of UTF-8." }),
  PEOPLE_PAGE_BYTES: variable({ ...wholeNumber(KIBIBYTE, GIBIBYTE), default: DEFAULT_PAGE_BYTES, meaning: 'Bytes of names and data that a page of people has at most, though always one person: the rest is on the next. Streams hold 1 MiB of them at most.' }),
  PEOPLE_IMPORT_PLACES: optional({ ...wholeNumber(1, 1000), meaning: 'NDJSON imports that may hold a connection at once; others wait for `DB_ACQUIRE_TIMEOUT_MS`. Unset: half of `DB_POOL_SIZE`; never all of it, unless it is 1.' }),
  PEOPLE_IMPORT_IDLE_MS: variable({ ...wholeNumber(100, 60 * MINUTE), default: DEFAULT_IDLE_MS, meaning: 'How long an NDJSON import may bring no whole line, and less than 5 bytes a second, before it is answered 408.' }),
  PEOPLE_IMPORT_PIECE_MS: variable({ ...wholeNumber(100, 24 * 60 * MINUTE), default: DEFAULT_PIECE_MS, meaning: 'How long an NDJSON import may take for 256 KiB while other imports wait for its place, or half of `HTTP_MEMORY_BUDGET_BYTES` is taken; 408 then.' }),
  HOST: variable({ ...text, accepted: 'an address or host name', default: '127.0.0.1', meaning: 'The address to listen on.' }),
  PORT: variable({ ...wholeNumber(0, 65535), default: 3000, meaning: 'The port to listen on; 0 = any free one.' }),
  HTTP_MEMORY_BUDGET_BYTES: variable({ ...wholeNumber(MEBIBYTE, 1024 * GIBIBYTE), default: DEFAULT_BUDGET_BYTES, meaning: 'Bytes that all bodies and answers under way may take together, beyond 16 KiB of each; past it requests wait 5 s and are answered 503.' }),
  HTTP_BODY_LIMIT_BYTES: variable({ ...wholeNumber(KIBIBYTE, GIBIBYTE), default: DEFAULT_BODY_LIMIT_BYTES, meaning: 'What one JSON body may be long; past it 413.' }),
  HTTP_BULK_BODY_LIMIT_BYTES: variable({ ...wholeNumber(KIBIBYTE, GIBIBYTE), default: DEFAULT_BULK_BODY_LIMIT_BYTES, meaning: 'The same of the array of `POST /people/bulk`.' }),
  HTTP_MIN_BODY_BYTES_PER_SECOND: variable({ ...wholeNumber(0, GIBIBYTE), default: DEFAULT_MIN_BODY_BYTES_PER_SECOND, meaning: 'What a JSON body has to bring a second, or it is answered 408; 0 = anything.' }),
  HTTP_BODY_GRACE_MS: variable({ ...wholeNumber(1, 60 * MINUTE), default: DEFAULT_BODY_GRACE_MS, meaning: 'How far it may lag behind that.' }),
  HTTP_MIN_ANSWER_BYTES_PER_SECOND: variable({ ...wholeNumber(0, GIBIBYTE), default: KIBIBYTE, meaning: 'What the reader of an answer has to take a second while bytes wait for it, or its connection is cut; 0 = anything.' }),
  HTTP_ANSWER_GRACE_MS: variable({ ...wholeNumber(1, 60 * MINUTE), default: 30_000, meaning: 'How far it may lag behind that.' }),
  HTTP_HEADERS_TIMEOUT_MS: variable({ ...wholeNumber(1, 10 * MINUTE), default: 10_000, meaning: 'When the headers of a request have to be whole, from the begin of its connection or its first byte; looked at each second.' }),
  HTTP_KEEP_ALIVE_TIMEOUT_MS: variable({ ...wholeNumber(1, 10 * MINUTE), default: 10_000, meaning: 'How long a connection without a request is kept. Above what a load balancer in front keeps it for, or that one may send on a connection that has just ended.' }),
  HTTP_MAX_CONNECTIONS: variable({ ...wholeNumber(1, 1_000_000), default: 5000, meaning: 'Connections at most. Past it the one that has been without a request for longest is ended, or the new one where all have one.' }),
  HTTP_LINGER_BYTES: variable({ ...wholeNumber(0, GIBIBYTE), default: 64 * MEBIBYTE, meaning: 'How much of a body that is not wanted is read away, so that the answer to it arrives.' }),
  HTTP_LINGER_MS: variable({ ...wholeNumber(1, 10 * MINUTE), default: 5000, meaning: 'How long.' }),
  HTTP_ALLOWED_HOSTS: optional({ ...hostNames, meaning: 'Names that requests may be for (`Host`) and pages they may come from (`Origin`), beside those of the loopback; others are answered 403. Unset: the loopback alone with `AUTH=none` on a loopback address, else any.' }),
  MANAGEMENT_PORT: optional({ ...wholeNumber(0, 65535), meaning: 'A port for `/metrics`, `/docs`, `/console` and `/health`, without a token, and for `/messages` and `/logs/level`; `PORT` then serves none of these but health without its reasons. Unset: with `AUTH=jwt` they need a valid token.' }),
  MANAGEMENT_HOST: optional({ ...text, accepted: 'an address or host name', meaning: 'The address it listens on. Unset: `HOST`.' }),
  AUTH: optional({ ...oneOf(['none', 'jwt'] as const), meaning: 'Who may call over HTTP. Unset: `none` on a loopback address, an error on any other.' }),
  AUTH_JWKS_URL: optional({ ...url('http:', 'https:'), meaning: 'Where the keys of bearer tokens are; this or `AUTH_SECRET` with `AUTH=jwt`. A user and password in it are sent as HTTP Basic.', secret: true }),
  AUTH_SECRET: optional({ accepted: 'at least 32 characters', parse: (value: string) => (value.length >= 32 ? value : undefined), meaning: 'The shared secret of HS256 tokens.', secret: true }),
  AUTH_JWKS_LIMIT_BYTES: variable({ ...wholeNumber(KIBIBYTE, GIBIBYTE), default: 1024 * KIBIBYTE, meaning: 'What the answer of `AUTH_JWKS_URL` may be long; past it 503.' }),
  AUTH_JWKS_TIMEOUT_MS: variable({ ...wholeNumber(1, 10 * MINUTE), default: 5000, meaning: 'How long it may take.' }),
  AUTH_TOKEN_LIMIT_BYTES: variable({ ...wholeNumber(256, 16 * KIBIBYTE), default: 8 * KIBIBYTE, meaning: 'What a token may be long; past it 401.' }),
  AUTH_ISSUER: optional({ ...text, meaning: 'The `iss` a token must have.' }),
  AUTH_AUDIENCE: optional({ ...text, meaning: 'The `aud` a token must have.' }),
  SHUTDOWN_TIMEOUT_MS: variable({ ...wholeNumber(1, 10 * MINUTE), default: 25_000, meaning: 'What stopping may take, from the signal to the end of the process. What is left then is cut and named, and the exit code is 1.' }),
  SHUTDOWN_DELAY_MS: optional({ ...wholeNumber(0, 10 * MINUTE), meaning: 'How long everything is still served when stopping begins, while readiness is false and each answer ends its connection, so that balancers send the next requests elsewhere. A part of `SHUTDOWN_TIMEOUT_MS`. Unset: 0 where `HOST` is a loopback address, else 5000, or half of `SHUTDOWN_TIMEOUT_MS` where that is less.' }),
  READINESS_GROUPS: variable({ ...groups, default: ['http'], meaning: 'What `/health/ready` is about where it is asked for no group: `http` the database, its migrations and the table, `messages` the broker as well, whose state is else told and makes nothing unready.' }),
  LOG_BUFFER_BYTES: variable({ ...wholeNumber(16 * KIBIBYTE, GIBIBYTE), default: DEFAULT_BUFFER_BYTES, meaning: 'Bytes of the log that are kept while its reader takes none; lines past it are dropped, counted and told of.' }),
  LOG_LEVEL: variable({ ...oneOf(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const), default: 'info', meaning: 'The least severe lines that are written.' }),
  EMBEDDED_POSTGRES_PORT: optional({ ...wholeNumber(1, 65535), meaning: 'The port of the embedded PostgreSQL. Unset: a free one, kept over restarts.' }),
  EMBEDDED_KAFKA_PORT: optional({ ...wholeNumber(1, 65535), meaning: 'The port of the embedded Kafka. Unset: a free one, kept over restarts.' }),
  NODE_ENV: optional({ ...text, meaning: '`production`: nothing embedded is started, no `.data/services.json` is written, and no banner is shown.' }),
} satisfies Record<string, Variable<unknown>>;

/** The parsed value of every variable. */
export type Values = { [Name in keyof typeof VARIABLES]: (typeof VARIABLES)[Name]['default'] };
