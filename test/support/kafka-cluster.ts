import { Kafka, logLevel } from 'kafkajs';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import path from 'node:path';
import { type EmbeddedKafka, newClusterId, startEmbeddedKafka } from '../../src/dev/embedded-kafka.js';
import { eventually } from './barrier.js';
import { certify, withLogin } from './kafka-listeners.js';

export interface ClusterOptions {
  /** Combined brokers and controllers. Default one. */
  nodes?: number;
  /** Over those of every node's `server.properties`. */
  properties?: Readonly<Record<string, string | number | boolean>>;
}

/** A Kafka of a test file's own, whose nodes can be stopped and started again where they were. */
export interface KafkaCluster {
  /** Where anybody may do anything. */
  brokers: string[];
  /** Where clients log in by SASL PLAIN, and may do what they were granted. */
  saslBrokers: string[];
  /** The same over TLS, and the certificate of whoever has signed its own. */
  tlsBrokers: string[];
  authority: string;
  /** Where each node keeps its partitions' files. */
  dataOf(node: number): string;
  /** As an operator does: what it leads is led by others then. */
  stopNode(node: number): Promise<void>;
  /** Resolves when it serves again. */
  startNode(node: number): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Starts a cluster with an authorizer: whoever comes by `brokers` is a super user without a name, and whoever logs in at
 * `saslBrokers` has the rights that it was granted.
 */
export async function startKafkaCluster({
  nodes = 1,
  properties = {},
}: ClusterOptions = {}): Promise<KafkaCluster> {
  const directory = mkdtempSync(path.join(process.env.TMPDIR!, 'cluster-'));
  const ports = await freePorts(nodes * 4);
  const tls = certify(directory);
  const places = Array.from({ length: nodes }, (_, index) => {
    const [plain, sasl, controller, secure] = ports.slice(index * 4) as [number, number, number, number];
    return {
      id: index + 1,
      plain,
      sasl,
      controller,
      secure,
      directory: path.join(directory, `node-${index + 1}`),
    };
  });
  const voters = places.map(({ id, controller }) => `${id}@127.0.0.1:${controller}`).join(',');
  const clusterId = newClusterId();
  const running: (EmbeddedKafka | undefined)[] = [];
  const start = async (index: number) => {
    const { id, plain, sasl, controller, secure, directory } = places[index]!;
    takeClassPath(directory);
    running[index] = await startEmbeddedKafka({
      directory,
      port: plain,
      node: {
        ...{ controllerPort: controller, clusterId, heap: '256m' },
        properties: {
          'node.id': id,
          'controller.quorum.voters': voters,
          ...withLogin({ plain, sasl, controller, secure: { port: secure, keyStore: tls.keyStore } }),
          // A topic that is missing stays so.
          'auto.create.topics.enable': false,
          'log.cleaner.backoff.ms': 500,
          'log.retention.check.interval.ms': 1000,
          ...replication(nodes),
          ...properties,
        },
      },
    });
  };
  const stopNode = async (node: number) => {
    await running[node]?.stop();
    running[node] = undefined;
  };
  const stop = async () => {
    await Promise.all(places.map((_, index) => stopNode(index)));
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    const started = await Promise.allSettled(places.map((_, index) => start(index)));
    for (const result of started) if (result.status === 'rejected') throw result.reason;
    await untilAllAre(places.map(({ plain }) => `127.0.0.1:${plain}`));
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    brokers: places.map(({ plain }) => `127.0.0.1:${plain}`),
    saslBrokers: places.map(({ sasl }) => `127.0.0.1:${sasl}`),
    tlsBrokers: places.map(({ secure }) => `127.0.0.1:${secure}`),
    authority: tls.authority,
    dataOf: (node) => path.join(places[node]!.directory, 'data'),
    stopNode,
    startNode: start,
    stop,
  };
}

const replication = (nodes: number) => ({
  'default.replication.factor': nodes,
  'offsets.topic.replication.factor': nodes,
  'transaction.state.log.replication.factor': nodes,
  'share.coordinator.state.topic.replication.factor': nodes,
  'min.insync.replicas': Math.max(1, nodes - 1),
  'transaction.state.log.min.isr': Math.max(1, nodes - 1),
  'controlled.shutdown.enable': true,
});

/** Each node asks Maven for its jars, else. */
function takeClassPath(directory: string): void {
  const known = path.resolve(process.env.TMPDIR!, '../kafka');
  mkdirSync(directory, { recursive: true });
  for (const file of readdirSync(known).filter((name) => name.startsWith('classpath-')))
    copyFileSync(path.join(known, file), path.join(directory, file));
}

/** Until every node is known to each. */
export async function untilAllAre(brokers: string[]): Promise<void> {
  for (const broker of brokers) {
    const admin = new Kafka({ brokers: [broker], logLevel: logLevel.NOTHING }).admin();
    await admin.connect();
    await eventually(async () => (await admin.describeCluster()).brokers.length === brokers.length, 60_000);
    await admin.disconnect();
  }
}

/** None that connections are given: one of them would have it while its node is down. */
async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    if (await isFree(port)) ports.add(port);
  }
  return [...ports];
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch {
    return false;
  }
  await once(server.close(), 'close');
  return true;
}
