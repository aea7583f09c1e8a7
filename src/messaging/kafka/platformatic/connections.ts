import {
  AuthenticationError,
  type BaseOptions,
  ConnectionPool,
  type Reader,
  Writer,
} from '@platformatic/kafka';
import { isIP } from 'node:net';
import { BrokerAnswerError } from '../broker-answers.js';
import {
  addressKey,
  type BrokerAddress,
  brokerAddress,
  type BrokerConnections,
  type BrokerRequest,
  type Purpose,
} from '../broker-connections.js';
import type { KafkaClientSettings } from '../../kafka-driver.js';

const CONNECT_TIMEOUT_MS = 5_000;

/** The options of the library. */
export function clientOptions({ brokers, clientId, ssl, sasl }: KafkaClientSettings) {
  const options = {
    clientId: clientId ?? 'nestjs-people',
    bootstrapBrokers: brokers,
    connectTimeout: CONNECT_TIMEOUT_MS,
    // Requests are limited by whoever asks: one that the library gave up leaves its connection unusable, and still open.
    requestTimeout: 2 ** 31 - 1,
    retries: 0,
    autocreateTopics: false,
  };
  return {
    ...options,
    ...(ssl && {
      tls: ssl === true ? {} : ssl,
      // RFC 6066 has no server name that is an address.
      tlsServerName: brokers.every((broker) => isIP(brokerAddress(broker).host) === 0),
    }),
    ...(sasl && {
      sasl: {
        ...sasl,
        mechanism: sasl.mechanism.toUpperCase() as 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512',
      },
    }),
  } satisfies BaseOptions;
}

/** The connections that @platformatic/kafka makes. */
export class PlatformaticConnections implements BrokerConnections {
  private readonly pools = new Map<Purpose, ConnectionPool>();

  constructor(private readonly settings: KafkaClientSettings) {}

  async send(address: BrokerAddress, { purpose, ...request }: BrokerRequest): Promise<Buffer> {
    const { apiKey, apiVersion, isFlexible, body } = request;
    const connection = await this.pool(purpose).get(address).catch(tellLogin(address));
    return new Promise((resolve, reject) => {
      const settle = (error: Error | null, answer?: Buffer) => (error ? reject(error) : resolve(answer!));
      const payload = () => Writer.create().append(body);
      connection.send(apiKey, apiVersion, payload, bytesOf, isFlexible, isFlexible, settle);
    });
  }

  cut(purpose: Purpose, broker?: BrokerAddress): void {
    const pool = this.pools.get(purpose);
    if (!pool) return;
    for (const [key, connection] of pool)
      if (!broker || key === addressKey(broker)) connection.socket?.destroy();
  }

  close(): void {
    for (const purpose of this.pools.keys()) this.cut(purpose);
    // Connections that are still being made are closed once they are there.
    for (const pool of this.pools.values()) pool.close().catch(() => undefined);
  }

  private pool(purpose: Purpose): ConnectionPool {
    const known = this.pools.get(purpose);
    if (known) return known;
    const { clientId, ...options } = clientOptions(this.settings);
    const pool = new ConnectionPool(clientId, options);
    // An 'error' event without a listener would end the process. The requests of the connection fail, which is enough.
    pool.on('connecting', ({ connection }) => void connection.on('error', () => undefined));
    this.pools.set(purpose, pool);
    return pool;
  }
}

const bytesOf = (_id: number, _apiKey: number, _version: number, answer: Reader): Buffer =>
  answer.buffer.slice();

/** @throws BrokerAnswerError the broker does not let this client in */
const tellLogin =
  (address: BrokerAddress) =>
  (error: unknown): never => {
    for (let cause = error; cause instanceof Error; cause = cause.cause)
      if (cause instanceof AuthenticationError) {
        const about = `Logging in at ${addressKey(address)} (${cause.message})`;
        throw new BrokerAnswerError(about, 'SASL_AUTHENTICATION_FAILED', { cause: error });
      }
    throw error;
  };
