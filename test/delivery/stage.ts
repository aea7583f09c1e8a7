import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import type { KafkaClientName } from '../../src/messaging/kafka/clients.js';
import { SERVICE_USER } from '../support/kafka-listeners.js';
import { ServiceHome } from '../support/service-process.js';
import { type PoolMode, startPgBouncer } from '../support/pgbouncer.js';
import { randomOf } from '../support/random.js';
import { startWire } from '../support/wire.js';
import { ClusterFaults } from './cluster-faults.js';
import { ArmedFaults } from './faults.js';
import { losing } from './losing.js';
import { ServicePlace } from './service-place.js';
import { type Database, type Killable, startBroker, startDatabase } from './servers.js';
import { COMMANDS, REPLIES, Topics } from './topics.js';

export interface CheckOptions {
  seed: number;
  /** Of each round. */
  messages: number;
  /** Rounds are begun for this long; one in any case. */
  seconds: number;
  /** Instances of the service while faults happen. */
  instances: number;
  /** Faults that are waited for at once. */
  together: number;
  /** The services' client library. Default `kafkajs`. */
  client?: KafkaClientName;
  /** A PgBouncer between the services and the database. */
  pgBouncer?: PoolMode;
  /** True: no message shares a transaction with others, and no statement. */
  apart?: boolean;
  /** Names of faults. */
  leaveOut?: string[];
  /** Where the check's own PostgreSQL and Kafka live; removed by the caller. */
  directory: string;
  /** Ends the faults early; everything is compared all the same. */
  signal?: AbortSignal;
  /** Told now and then what happens. */
  onProgress?: (message: string) => void;
}

/** What happened; `violations` has to be empty. */
export interface Counts {
  rounds: number;
  messages: number;
  duplicates: number;
  poisonous: number;
  requests: number;
  /** Updates that were slow, or failed at first for reasons that are none of the database's. */
  hazards: number;
  /** Messages with headers as strangers have them. */
  nastyHeaders: number;
  /** Answers of the database, to statements and to COMMITs. */
  answersLost: number;
  /** Batches whose sending failed, and requests that were told to come again. */
  sentAgain: number;
  askedAgain: number;
  eventsSentAgain: number;
  faults: Record<string, number>;
  starts: number;
  longestStandstillMs: { underFaults: number; whileScaling: number };
  violations: string[];
}

const PARTITIONS = 8;
/** Of six services with ten each; a hundred is what the server has. */
const SERVER_CONNECTIONS = 80;
const HAZARDS = pathToFileURL(path.resolve('test/delivery/hazards.mjs')).href;

/** All that the check plays with. */
export interface Stage {
  options: CheckOptions;
  counts: Counts;
  database: Database;
  broker: Killable;
  topics: Topics;
  places: ServicePlace[];
  faults: ArmedFaults;
  /** Messages of the rounds that are over, each once. */
  handled: number;
  random: () => number;
}

/** @param closers take what is to be closed, last first, whether or not this succeeds */
export async function openStage(options: CheckOptions, closers: (() => Promise<unknown>)[]): Promise<Stage> {
  const { seed, instances, client = 'kafkajs', directory, onProgress } = options;
  const counts: Counts = {
    ...{ rounds: 0, messages: 0, duplicates: 0, poisonous: 0, requests: 0 },
    ...{ hazards: 0, nastyHeaders: 0, answersLost: 0, sentAgain: 0, askedAgain: 0, eventsSentAgain: 0 },
    faults: {},
    starts: 0,
    longestStandstillMs: { underFaults: 0, whileScaling: 0 },
    violations: [],
  };
  // One after the other: what fails to start must not leave the other one behind.
  const database = await startDatabase(directory);
  closers.push(() => database.stop());
  const broker = await startBroker(directory);
  closers.push(() => broker.stop());
  const cluster = new ClusterFaults(broker.port, (violation) => counts.violations.push(violation));
  await cluster.grantAll();
  const random = randomOf(seed);
  const losses = { random, onLoss: () => counts.answersLost++ };
  let toDatabase: { url: string; port: number } = database;
  if (options.pgBouncer) {
    // Answers are lost on either side of it.
    const behind = await startWire({ target: database.port, watch: () => losing(losses) });
    closers.push(() => behind.close());
    const server = new URL(database.url);
    server.port = String(behind.port);
    const settings = { default_pool_size: SERVER_CONNECTIONS };
    const bouncer = await startPgBouncer({ server: server.href, poolMode: options.pgBouncer, settings });
    closers.push(() => bouncer.stop());
    toDatabase = { url: bouncer.url, port: Number(new URL(bouncer.url).port) };
  }
  const groupId = `check-${randomUUID()}`;
  const topics = await Topics.open(broker.port, groupId, { [COMMANDS]: PARTITIONS, [REPLIES]: 1 });
  closers.push(() => topics.close());
  const home = new ServiceHome();
  closers.push(() => home.remove());
  const places: ServicePlace[] = [];
  const faults = new ArmedFaults({ places, broker, database, cluster }, ({ name, step }) => {
    counts.faults[name] = (counts.faults[name] ?? 0) + 1;
    onProgress?.(`${name} (${step})`);
  });
  for (let n = 0; n < Math.max(3, instances); n++) {
    const place = await ServicePlace.open({
      ...{ home, database: toDatabase, broker: { port: broker.loginPort }, replyTopic: REPLIES, losses },
      logFile: path.join(directory, `service-${n + 1}.log`),
      environment: {
        KAFKA_CLIENT: client,
        KAFKA_GROUP_ID: groupId,
        KAFKA_SASL_MECHANISM: 'plain',
        KAFKA_SASL_USERNAME: SERVICE_USER.username,
        KAFKA_SASL_PASSWORD: SERVICE_USER.password,
        KAFKA_TOPIC_PARTITIONS: String(PARTITIONS),
        ...(options.apart && { DB_SHARED_STATEMENTS: 'off', KAFKA_BATCH_HANDLERS: 'off' }),
        LOG_LEVEL: 'warn',
        NODE_OPTIONS: `--disable-warning=TimeoutNegativeWarning --import ${HAZARDS}`,
      },
      onStep: (step, at) => faults.onStep(step, at),
      // Ctrl-C in a terminal reaches the services, too.
      onViolation: (violation) => options.signal?.aborted || counts.violations.push(violation),
    });
    places.push(place);
    closers.push(() => place.close());
  }
  return { options, counts, database, broker, topics, places, faults, handled: 0, random };
}
