import type { KafkaClientName } from '../messaging/kafka/clients.js';
import type { OffsetOutOfRangePolicy, RecordLimits } from '../messaging/kafka-driver.js';
import type { DatabaseSettings } from '../database/data-source-options.js';
import { hostsOfList } from '../database/database-url.js';
import type { PreparedStatements } from '../database/known-server.js';
import type { RecyclingMethod } from '../database/pooled-client.js';
import type { FrontBounds } from './http/front.js';
import type { IssuerBounds } from './http/issuer-keys.js';
import type { SASL_MECHANISMS, Values } from './environment-variables.js';

/** What the service runs with. `database` and `kafka.brokers` are missing where an embedded server takes their place. */
export interface Environment {
  database: Omit<DatabaseSettings, 'url'> & { url?: string };
  recycling: RecyclingMethod;
  preparedStatements: PreparedStatements;
  /** Left out: statements are shared. */
  sharedStatements?: false;
  maxAttempts: number;
  /** How long what was handled is remembered, in ms. */
  inboxRetentionMs: number;
  /** Whether events are published, where there is Kafka. */
  events: boolean;
  /** What a person's data and name may have at most, in bytes. */
  maxDataBytes: number;
  maxNameBytes: number;
  /** What imports and pages of people may take. */
  people: {
    pageBytes: number;
    replyBytes: number;
    importPlaces?: number;
    importIdleMs: number;
    importPieceMs: number;
  };
  /** undefined with `KAFKA=off`. */
  kafka: KafkaSettings | undefined;
  http: HttpSettings;
  /** What stopping may take, from the signal to the end of the process, in ms. */
  shutdownTimeoutMs: number;
  /** Where the embedded servers are to listen; undefined = on a free port. */
  embeddedPorts: { postgres: number | undefined; kafka: number | undefined };
  auth: AuthSettings;
  logLevel: Values['LOG_LEVEL'];
}

export interface HttpSettings extends FrontBounds {
  host: string;
  port: number;
  /** undefined: none, `port` serves all. */
  management: { host: string; port: number } | undefined;
  /** Names that requests may be for, beside the loopback's; undefined: any. */
  allowedHosts: readonly string[] | undefined;
  memoryBudgetBytes: number;
  bodyLimitBytes: number;
  bulkBodyLimitBytes: number;
  minBodyBytesPerSecond: number;
  bodyGraceMs: number;
}

export interface KafkaSettings {
  brokers?: string[];
  library: KafkaClientName;
  clientId: string;
  groupId: string;
  concurrency: number;
  topicPartitions: number;
  topicReplication: number | undefined;
  batchHandlers: boolean;
  quarantineKeys: boolean;
  limits: RecordLimits;
  replyTopics: readonly string[] | undefined;
  stalledAfterMs: number;
  onOffsetOutOfRange: OffsetOutOfRangePolicy;
  replyTimeoutMs: number;
  handlerTimeoutMs: number;
  ssl: boolean;
  sasl: { mechanism: (typeof SASL_MECHANISMS)[number]; username: string; password: string } | undefined;
}

export type AuthSettings =
  | { method: 'none' }
  | (IssuerBounds & {
      method: 'jwt';
      jwksUrl?: string;
      secret?: string;
      issuer?: string;
      audience?: string;
      /** What a token may be long. */
      tokenLimitBytes: number;
    });

/** Hosts that can be reached from this machine alone. */
export const LOOPBACK = /^(localhost|127(\.\d+){3}|::1)$/;

/** Of values that do not contradict each other. */
export function toEnvironment(values: Values): Environment {
  const url = values.DATABASE_URL ?? (values.DB_HOSTNAME ? urlOfParts(values) : undefined);
  const isolationLevel = values.TRANSACTION_ISOLATION_LEVEL;
  return {
    database: {
      ...(url && { url }),
      poolSize: values.DB_POOL_SIZE,
      acquireTimeoutMs: values.DB_ACQUIRE_TIMEOUT_MS,
      statementTimeoutMs: values.DB_STATEMENT_TIMEOUT_MS,
      ssl: values.DB_SSL,
      ...(isolationLevel && { isolationLevel }),
    },
    recycling: values.DB_RECYCLING,
    preparedStatements: values.DB_PREPARED_STATEMENTS === 'on' ? 'named' : 'unnamed',
    ...(values.DB_SHARED_STATEMENTS === 'off' && { sharedStatements: false }),
    maxAttempts: values.TRANSACTION_MAX_ATTEMPTS,
    inboxRetentionMs: values.INBOX_RETENTION_MS,
    events: values.PEOPLE_EVENTS === 'on',
    maxDataBytes: values.PEOPLE_MAX_DATA_BYTES,
    maxNameBytes: values.PEOPLE_MAX_NAME_BYTES,
    kafka: values.KAFKA === 'on' ? toKafka(values) : undefined,
    people: {
      pageBytes: values.PEOPLE_PAGE_BYTES,
      replyBytes: values.KAFKA_MAX_REPLY_BYTES,
      ...(values.PEOPLE_IMPORT_PLACES && { importPlaces: values.PEOPLE_IMPORT_PLACES }),
      importIdleMs: values.PEOPLE_IMPORT_IDLE_MS,
      importPieceMs: values.PEOPLE_IMPORT_PIECE_MS,
    },
    http: toHttp(values),
    shutdownTimeoutMs: values.SHUTDOWN_TIMEOUT_MS,
    embeddedPorts: { postgres: values.EMBEDDED_POSTGRES_PORT, kafka: values.EMBEDDED_KAFKA_PORT },
    auth: toAuth(values),
    logLevel: values.LOG_LEVEL,
  };
}

function toHttp(values: Values): HttpSettings {
  const { HOST: host, PORT: port, MANAGEMENT_HOST = host, MANAGEMENT_PORT } = values;
  // Where nobody is asked who they are, being on this machine is what lets them in.
  const isLocal = values.AUTH !== 'jwt' && LOOPBACK.test(host);
  return {
    host,
    port,
    management: MANAGEMENT_PORT === undefined ? undefined : { host: MANAGEMENT_HOST, port: MANAGEMENT_PORT },
    allowedHosts: values.HTTP_ALLOWED_HOSTS ?? (isLocal ? [] : undefined),
    memoryBudgetBytes: values.HTTP_MEMORY_BUDGET_BYTES,
    bodyLimitBytes: values.HTTP_BODY_LIMIT_BYTES,
    bulkBodyLimitBytes: values.HTTP_BULK_BODY_LIMIT_BYTES,
    minBodyBytesPerSecond: values.HTTP_MIN_BODY_BYTES_PER_SECOND,
    bodyGraceMs: values.HTTP_BODY_GRACE_MS,
    minAnswerBytesPerSecond: values.HTTP_MIN_ANSWER_BYTES_PER_SECOND,
    answerGraceMs: values.HTTP_ANSWER_GRACE_MS,
    headersTimeoutMs: values.HTTP_HEADERS_TIMEOUT_MS,
    keepAliveTimeoutMs: values.HTTP_KEEP_ALIVE_TIMEOUT_MS,
    maxConnections: values.HTTP_MAX_CONNECTIONS,
    lingerBytes: values.HTTP_LINGER_BYTES,
    lingerMs: values.HTTP_LINGER_MS,
  };
}

function urlOfParts({ DB_HOSTNAME = '', DB_PORT, DB_USER, DB_PASSWORD, DB_NAME }: Values): string {
  const [user, password] = [DB_USER, DB_PASSWORD].map(encodeURIComponent);
  const hosts = hostsOfList(DB_HOSTNAME, DB_PORT)!.join(',');
  // pg reads the name with decodeURI, which would leave a component's %2F as it is.
  return `postgres://${user}:${password}@${hosts}/${encodeURI(DB_NAME)}`;
}

function toKafka(values: Values): KafkaSettings {
  const {
    KAFKA_SASL_MECHANISM: mechanism,
    KAFKA_SASL_USERNAME: username,
    KAFKA_SASL_PASSWORD: password,
  } = values;
  // A fifth for HTTP, and one for the relay of events.
  const most = Math.max(1, values.DB_POOL_SIZE - Math.ceil(values.DB_POOL_SIZE / 5) - 1);
  return {
    ...(values.KAFKA_BROKERS && { brokers: values.KAFKA_BROKERS }),
    library: values.KAFKA_CLIENT,
    clientId: values.KAFKA_CLIENT_ID,
    groupId: values.KAFKA_GROUP_ID,
    concurrency: Math.min(values.KAFKA_CONCURRENCY ?? most, most),
    topicPartitions: values.KAFKA_TOPIC_PARTITIONS,
    topicReplication: values.KAFKA_TOPIC_REPLICATION,
    batchHandlers: values.KAFKA_BATCH_HANDLERS === 'on',
    quarantineKeys: values.KAFKA_QUARANTINE_KEYS === 'on',
    limits: {
      headers: values.KAFKA_MAX_HEADERS,
      headerBytes: values.KAFKA_MAX_HEADER_BYTES,
      keyBytes: values.KAFKA_MAX_KEY_BYTES,
      batchBytes: values.KAFKA_MAX_BATCH_BYTES,
    },
    replyTopics: values.KAFKA_REPLY_TOPICS,
    stalledAfterMs: values.KAFKA_STALLED_AFTER_MS,
    onOffsetOutOfRange: values.KAFKA_ON_OFFSET_OUT_OF_RANGE,
    replyTimeoutMs: values.KAFKA_REPLY_TIMEOUT_MS,
    handlerTimeoutMs: values.KAFKA_HANDLER_TIMEOUT_MS,
    ssl: values.KAFKA_SSL === 'on',
    sasl: mechanism && username && password ? { mechanism, username, password } : undefined,
  };
}

function toAuth(values: Values): AuthSettings {
  if (values.AUTH !== 'jwt') return { method: 'none' };
  const {
    AUTH_JWKS_URL: jwksUrl,
    AUTH_SECRET: secret,
    AUTH_ISSUER: issuer,
    AUTH_AUDIENCE: audience,
  } = values;
  return {
    method: 'jwt',
    ...(jwksUrl && { jwksUrl }),
    ...(secret && { secret }),
    ...(issuer && { issuer }),
    ...(audience && { audience }),
    tokenLimitBytes: values.AUTH_TOKEN_LIMIT_BYTES,
    jwksLimitBytes: values.AUTH_JWKS_LIMIT_BYTES,
    jwksTimeoutMs: values.AUTH_JWKS_TIMEOUT_MS,
  };
}
