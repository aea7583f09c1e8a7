import { randomBytes } from 'node:crypto';
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Kafka, logLevel } from 'kafkajs';
import { choosePorts, startInDirectory, type ServerHome } from './embedded-directory.js';
import {
  EmbeddedServerError,
  NO_PERF_DATA,
  runTool,
  spawnServer,
  untilReady,
  type EmbeddedServer,
} from './embedded-process.js';
import { findJava, KAFKA_VERSION, kafkaClassPath } from './kafka-jars.js';

export { KafkaUnavailableError } from './kafka-jars.js';

/** A running Apache Kafka; its log is `kafka.log` in its directory. */
export interface EmbeddedKafka extends EmbeddedServer {
  /** What a client takes as bootstrap servers. */
  readonly brokers: string[];
  readonly port: number;
}

/** What {@link startEmbeddedKafka} takes. */
export interface EmbeddedKafkaOptions {
  /** Holds the data, the log and the port of the last run. Made when missing; its data is kept. */
  directory: string;
  /** Loopback port of the broker. Default: the last run's if free, else any free one. */
  port?: number | undefined;
  /** Told what may take seconds. */
  onProgress?: ((message: string) => void) | undefined;
  /** How the node differs from one that has everything to itself, as in a cluster of several. */
  node?: EmbeddedNode | undefined;
}

/** A node that is set up by whoever starts it; each part left out is as usual. */
export interface EmbeddedNode {
  /** Where its controller listens, so that other nodes can be told before it runs. */
  controllerPort?: number;
  /** 22 characters of base64url, the same for all nodes of a cluster. */
  clusterId?: string;
  /** Most memory of its heap, as the JVM takes it. */
  heap?: string;
  /** Over those of `server.properties`. */
  properties?: Readonly<Record<string, string | number | boolean>>;
}

/**
 * Starts an Apache Kafka of one node of this process's own on a loopback port, after stopping one that a
 * killed run left in the same directory.
 *
 * @throws KafkaUnavailableError when there is no Java, or Maven cannot fetch Kafka's jars.
 * @throws EmbeddedServerError when it does not start, when the port told is taken, or when another live process
 *   runs one in this directory.
 */
export async function startEmbeddedKafka(options: EmbeddedKafkaOptions): Promise<EmbeddedKafka> {
  const { directory, onProgress } = options;
  const java = await findJava();
  return startInDirectory({ name: 'Apache Kafka', directory, stopSignal: 'SIGTERM', onProgress }, (home) =>
    start(home, java, options),
  );
}

async function start(
  home: ServerHome,
  java: string,
  { port: told, onProgress, node = {} }: EmbeddedKafkaOptions,
) {
  const { directory, marker } = home;
  const classPath = await kafkaClassPath(directory, marker, onProgress);
  const [port = 0, freePort = 0] = await choosePorts(directory, told, 2);
  const { controllerPort = freePort, heap = '512m', properties } = node;
  onProgress?.(`starting Apache Kafka ${KAFKA_VERSION} …`);
  writeFileSync(
    path.join(directory, 'server.properties'),
    serverProperties(port, controllerPort, properties),
  );
  const jvm = [
    // Quick to start rather than quick under load.
    ...[`-Xmx${heap}`, '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-XX:+ExitOnOutOfMemoryError'],
    ...[
      NO_PERF_DATA,
      '-Djava.awt.headless=true',
      '-Dlog4j2.level=WARN',
      `-Dembedded.server=${marker}`,
      '-cp',
      classPath,
    ],
  ];
  await formatStorage(directory, java, jvm, node.clusterId);
  const logFile = path.join(directory, 'kafka.log');
  const args = [...jvm, 'kafka.Kafka', 'server.properties'];
  const child = await spawnServer({ command: java, args, cwd: directory, logFile });
  const brokers = [`127.0.0.1:${port}`];
  await untilReady(child, { name: 'Apache Kafka', logFile }, () => askBroker(brokers));
  return { pid: child.pid, port, brokers };
}

/** Paths are relative to the directory, whose own name may have what the format gives a meaning, as a comma. */
function serverProperties(port: number, controllerPort: number, others: EmbeddedNode['properties']): string {
  const properties = {
    'process.roles': 'broker,controller',
    'node.id': 1,
    // Voters by configuration: those that Kafka stores itself would keep the ports of the first run.
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${port}`,
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'PLAINTEXT',
    'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT',
    'log.dirs': 'data',
    'auto.create.topics.enable': true,
    'num.partitions': 8,
    'group.initial.rebalance.delay.ms': 0,
    // After a crash the controller takes the broker for alive, and refuses the new one, for one session.
    'broker.session.timeout.ms': 3000,
    'broker.heartbeat.interval.ms': 500,
    'offsets.topic.replication.factor': 1,
    'offsets.topic.num.partitions': 8,
    'transaction.state.log.replication.factor': 1,
    'transaction.state.log.min.isr': 1,
    'transaction.state.log.num.partitions': 8,
    'share.coordinator.state.topic.replication.factor': 1,
    'share.coordinator.state.topic.min.isr': 1,
    'share.coordinator.state.topic.num.partitions': 8,
    // The default is a quarter of the heap.
    'log.cleaner.dedupe.buffer.size': 8 * 1024 * 1024,
    ...others,
  };
  return Object.entries(properties)
    .map(([key, value]) => `${key}=${value}\n`)
    .join('');
}

/** Names a cluster that is new. */
export const newClusterId = (): string =>
  Buffer.concat([Buffer.of(1), randomBytes(15)]).toString('base64url');

/** meta.properties is what formatting writes last: without it the data directory is new, or half made. */
async function formatStorage(
  directory: string,
  java: string,
  jvm: readonly string[],
  clusterId = newClusterId(),
): Promise<void> {
  if (existsSync(path.join(directory, 'data/meta.properties'))) return;
  const args = [
    ...jvm,
    'kafka.tools.StorageTool',
    'format',
    '--ignore-formatted',
    '-t',
    clusterId,
    '-c',
    'server.properties',
  ];
  try {
    await runTool(java, args, { cwd: directory });
  } catch (cause) {
    throw new EmbeddedServerError(
      `Apache Kafka could not make its data directory in ${directory}. Mend what the cause says, or give a broker (KAFKA_BROKERS=host:9092).`,
      { cause },
    );
  }
}

async function askBroker(brokers: string[]): Promise<void> {
  const admin = new Kafka({
    brokers,
    logLevel: logLevel.NOTHING,
    connectionTimeout: 5_000,
    retry: { retries: 0 },
  }).admin();
  try {
    await admin.connect();
    await admin.describeCluster();
  } finally {
    await admin.disconnect();
  }
}
