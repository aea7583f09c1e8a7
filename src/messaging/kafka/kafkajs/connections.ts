import type { Kafka } from 'kafkajs';
import { BrokerAnswerError } from '../broker-answers.js';
import {
  addressKey,
  type BrokerAddress,
  type BrokerConnections,
  type BrokerRequest,
  connectionKey,
  type Purpose,
} from '../broker-connections.js';

const CREATE_CLUSTER = 'private:Kafka:createCluster';
const NOT_LET_IN = 'KafkaJSSASLAuthenticationError';
const NO_TAGS = Buffer.of(0);

/** What kafkajs 2.2 has within, as far as it is touched here. */
interface KafkajsCluster {
  rootLogger: unknown;
  connectionPoolBuilder: { build: (address: BrokerAddress) => Promise<KafkajsPool> };
  brokerPool: { createBroker: (options: { connectionPool: KafkajsPool; logger: unknown }) => KafkajsBroker };
}
interface KafkajsPool {
  pool: KafkajsConnection[];
  send: (request: unknown) => Promise<{ payload: Buffer }>;
}
interface KafkajsConnection {
  socket?: { destroy: () => void };
  rejectRequests: (reason: Error) => void;
  disconnect: () => Promise<unknown>;
}
interface KafkajsBroker {
  connectionPool: KafkajsPool;
  /** With TLS and SASL, as the client was told. */
  connect: () => Promise<void>;
}

/**
 * The connections that kafkajs makes. It has no public way to them; what it builds on them ends with the first topic, partition
 * or codec that it can't cope with, decodes in quadratic time, and is not maintained any more.
 *
 * @throws Error kafkajs is not built as version 2.2 is
 */
export class KafkajsConnections implements BrokerConnections {
  private readonly cluster: KafkajsCluster;
  private readonly brokers = new Map<string, Promise<KafkajsBroker>>();
  /** Of brokers that are connected, or about to be. */
  private readonly pools = new Map<string, KafkajsPool>();

  constructor(kafka: Kafka) {
    const name = Object.getOwnPropertySymbols(kafka).find(
      ({ description }) => description === CREATE_CLUSTER,
    );
    if (!name) throw new Error('This version of kafkajs is not known; install kafkajs@2.2.4.');
    this.cluster = (kafka as unknown as Record<symbol, (options: object) => KafkajsCluster>)[name]!({});
  }

  async send(address: BrokerAddress, request: BrokerRequest): Promise<Buffer> {
    const { purpose, apiKey, apiVersion, isFlexible, body } = request;
    const key = connectionKey(purpose, address);
    const bytes = isFlexible ? Buffer.concat([NO_TAGS, body]) : body;
    try {
      const { connectionPool } = await this.connected(key, address);
      // It was given up meanwhile. kafkajs would connect it anew, and nobody would close that.
      if (this.pools.get(key) !== connectionPool) throw new Error('the connection was given up');
      const { payload } = await connectionPool.send({
        // What kafkajs takes for one of its encoders.
        request: {
          apiKey,
          apiVersion,
          apiName: `API ${apiKey}`,
          encode: () => ({ buf: bytes, buffer: bytes }),
        },
        response: {
          decode: (answer: Buffer) => Promise.resolve({ payload: answer }),
          parse: (decoded: unknown) => Promise.resolve(decoded),
        },
      });
      // A flexible head ends with its tagged fields, of which there are none.
      return isFlexible ? payload.subarray(1) : payload;
    } catch (error) {
      this.giveUp(key);
      throw toAnswer(error, address);
    }
  }

  cut(purpose: Purpose, broker?: BrokerAddress): void {
    const isMeant = (key: string) =>
      broker ? key === connectionKey(purpose, broker) : key.startsWith(`${purpose} `);
    for (const key of [...this.pools.keys()]) if (isMeant(key)) this.giveUp(key);
  }

  close(): void {
    for (const key of [...this.pools.keys()]) this.giveUp(key);
  }

  private connected(key: string, address: BrokerAddress): Promise<KafkajsBroker> {
    const known = this.brokers.get(key);
    if (known) return known;
    const connecting = this.connect(key, address);
    this.brokers.set(key, connecting);
    return connecting;
  }

  private async connect(key: string, address: BrokerAddress): Promise<KafkajsBroker> {
    const { connectionPoolBuilder, brokerPool, rootLogger } = this.cluster;
    const connectionPool = await connectionPoolBuilder.build(address);
    this.pools.set(key, connectionPool);
    const broker = brokerPool.createBroker({ connectionPool, logger: rootLogger });
    await broker.connect();
    return broker;
  }

  private giveUp(key: string): void {
    const pool = this.pools.get(key);
    this.pools.delete(key);
    this.brokers.delete(key);
    for (const connection of pool?.pool ?? []) {
      connection.rejectRequests(new Error('the connection was given up'));
      connection.socket?.destroy();
      // Nothing is under way on it any more; this stops its timers.
      connection.disconnect().catch(() => undefined);
    }
  }
}

function toAnswer(error: unknown, address: BrokerAddress): unknown {
  if ((error as Error).name !== NOT_LET_IN) return error;
  const about = `Logging in at ${addressKey(address)} (${(error as Error).message})`;
  return new BrokerAnswerError(about, 'SASL_AUTHENTICATION_FAILED', { cause: error });
}
