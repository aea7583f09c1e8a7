import {
  type Base,
  type BaseOptions,
  type Broker,
  type Connection,
  ConnectionPool,
  type createTopicsV7,
  type fetchV17,
  type findCoordinatorV6,
  GenericError,
  type heartbeatV4,
  type joinGroupV9,
  kGetApi,
  type leaveGroupV5,
  type listOffsetsV9,
  type metadataV12,
  MultipleErrors,
  type offsetCommitV9,
  type offsetFetchV9,
  type produceV11,
  protocolErrorsCodesById,
  type Reader,
  ResponseError,
  type syncGroupV5,
  type Writer,
} from '@platformatic/kafka';
import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KafkaClientSettings } from '../kafka-driver.js';

/** The requests used, with the newest version of each that the library has: older ones take and answer the same. */
interface Apis {
  CreateTopics: typeof createTopicsV7;
  Fetch: typeof fetchV17;
  FindCoordinator: typeof findCoordinatorV6;
  Heartbeat: typeof heartbeatV4;
  JoinGroup: typeof joinGroupV9;
  LeaveGroup: typeof leaveGroupV5;
  ListOffsets: typeof listOffsetsV9;
  Metadata: typeof metadataV12;
  OffsetCommit: typeof offsetCommitV9;
  OffsetFetch: typeof offsetFetchV9;
  Produce: typeof produceV11;
  SyncGroup: typeof syncGroupV5;
}
/** The name of a request. */
export type ApiName = keyof Apis;
/** What a request has in it. */
export type Request<N extends ApiName> = Parameters<Apis[N]['createRequest']>;
/** What it is answered with. */
export type Answer<N extends ApiName> = ReturnType<Apis[N]['parseResponse']>;

/** What a client knows of the cluster for some topics. */
export interface ClusterView {
  brokers: Map<number, Broker>;
  controllerId: number;
  /** Topics that exist. A partition that has no leader at the moment is undefined. */
  topics: Map<string, { id: string; isInternal: boolean; leaders: (number | undefined)[] }>;
  /** Kafka's name of the error, of the topics asked for that can't be used. */
  refused: Map<string, string>;
}

/** Where and how long a request is sent, and who reads the answer instead of the library. */
export interface CallOptions {
  pool?: ConnectionPool | undefined;
  timeoutMs?: number | undefined;
  parse?:
    ((correlationId: number, apiKey: number, apiVersion: number, reader: Reader) => unknown) | undefined;
}

const CONNECT_TIMEOUT_MS = 5_000;
const CLOSE_MS = 1_000;
const CLOSED = 'The connection to Kafka is closed.';
/** How long a broker may take to answer what it need not wait for. */
export const REQUEST_TIMEOUT_MS = 10_000;

/** The library's options for `settings`. */
export function clientOptions({ brokers, clientId, ssl, sasl }: KafkaClientSettings) {
  const options = {
    clientId: clientId ?? 'nestjs-people',
    bootstrapBrokers: brokers,
    connectTimeout: CONNECT_TIMEOUT_MS,
    // Requests are limited in `call`: a request that the library gave up leaves its connection unusable, and still open.
    requestTimeout: 2 ** 31 - 1,
    // Each retry is decided here: the library's repeat what was acknowledged, and commit in generations they were not for.
    retries: 0,
    autocreateTopics: false,
  };
  return {
    ...options,
    ...(ssl && {
      tls: ssl === true ? {} : ssl,
      // RFC 6066 has no server name that is an address.
      tlsServerName: brokers.every(
        (broker) => isIP(broker.replace(/:\d+$/, '').replace(/^\[|\]$/g, '')) === 0,
      ),
    }),
    ...(sasl && {
      sasl: {
        ...sasl,
        mechanism: sasl.mechanism.toUpperCase() as 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512',
      },
    }),
  } satisfies BaseOptions;
}

/** Requests to the brokers of a cluster over the library's connections. */
export class Cluster {
  private readonly bootstrap: Broker[];
  private known: Broker[] = [];
  private isClosed = false;
  private readonly underWay = new Set<(reason: Error) => void>();
  private readonly pools: ConnectionPool[];

  /** @param client the library's client, whose connections are used and closed. */
  constructor(
    private readonly client: Base,
    private readonly settings: KafkaClientSettings,
  ) {
    this.bootstrap = settings.brokers.map((broker) => {
      const colon = broker.lastIndexOf(':');
      return { host: broker.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(broker.slice(colon + 1)) };
    });
    this.pools = [heedErrors(client.connections)];
  }

  /** Connections of their own, for requests that a broker answers late: it answers those of one connection in turn. */
  newPool(): ConnectionPool {
    const { clientId, ...options } = clientOptions(this.settings);
    const pool = heedErrors(new ConnectionPool(clientId, options));
    this.pools.push(pool);
    return pool;
  }

  /**
   * Sends a request to `broker`, or any, and resolves to the answer.
   *
   * @throws ResponseError the answer has an error in it
   * @throws Error the broker can't be reached, or has not answered in time; its connection is given up then
   */
  async call<N extends ApiName>(
    name: N,
    broker: Broker | undefined,
    request: Request<N>,
    { pool = this.client.connections, timeoutMs = REQUEST_TIMEOUT_MS, parse }: CallOptions = {},
  ): Promise<Answer<N>> {
    let onClose!: (reason: Error) => void;
    const closed = new Promise<never>((_, reject) => (onClose = reject));
    this.underWay.add(onClose);
    try {
      // The library does not tell everyone who waits for a connection that it will not come.
      return await Promise.race([closed, this.send(name, broker, request, { pool, timeoutMs, parse })]);
    } finally {
      this.underWay.delete(onClose);
    }
  }

  private async send<N extends ApiName>(
    name: N,
    broker: Broker | undefined,
    request: Request<N>,
    { pool, timeoutMs, parse }: CallOptions & { pool: ConnectionPool; timeoutMs: number },
  ): Promise<Answer<N>> {
    if (this.isClosed) throw new Error(CLOSED);
    // The first request of a client asks, over a connection, for the versions that the brokers have.
    const limit = setTimeout(() => cut(this.client.connections), REQUEST_TIMEOUT_MS);
    const send = await new Promise<(connection: Connection, ...rest: unknown[]) => void>((resolve, reject) =>
      this.client[kGetApi]<unknown[], Answer<N>>(name, (error, api) => (api ? resolve(api) : reject(error!))),
    ).finally(() => clearTimeout(limit));
    const connection = await (broker
      ? pool.get(broker)
      : pool.getFirstAvailable([...this.bootstrap, ...this.known]));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`${name} was not answered in ${timeoutMs} ms.`));
        connection.socket.destroy();
      }, timeoutMs);
      const settle = (error: Error | null, answer?: Answer<N>) => {
        clearTimeout(timer);
        if (error) reject(error);
        else resolve(answer!);
      };
      try {
        send(parse ? parsingBy(connection, parse) : connection, ...request, settle);
      } catch (error) {
        settle(error as Error);
      }
    });
  }

  /** What the cluster says of `topics`; null = all. Creates none. */
  async view(topics: readonly string[] | null): Promise<ClusterView> {
    const names = topics && [...new Set(topics)];
    const answer = await this.call('Metadata', undefined, [names, false, false]).catch(answerOf<'Metadata'>);
    const brokers = new Map(answer.brokers.map(({ nodeId, host, port }) => [nodeId, { host, port }]));
    this.known = [...brokers.values()];
    const view: ClusterView = {
      brokers,
      controllerId: answer.controllerId,
      topics: new Map(),
      refused: new Map(),
    };
    for (const { name, errorCode, topicId: id, isInternal, partitions } of answer.topics) {
      if (!name) continue;
      if (errorCode !== 0) view.refused.set(name, kafkaName(errorCode));
      else {
        const leaders: (number | undefined)[] = Array.from<undefined>({ length: partitions.length });
        for (const { partitionIndex, leaderId } of partitions)
          leaders[partitionIndex] = brokers.has(leaderId) ? leaderId : undefined;
        view.topics.set(name, { id, isInternal, leaders });
      }
    }
    return view;
  }

  /** Cuts the connections: whoever waits for an answer is told at once. */
  async close(): Promise<void> {
    this.isClosed = true;
    for (const onClose of this.underWay) onClose(new Error(CLOSED));
    const closed = [...this.pools.map((pool) => closePool(pool)), this.client.close()];
    // The library waits for ever for the end of a connection that ended while it was being made.
    await atMost(CLOSE_MS, Promise.all(closed));
  }
}

/** The connection, for a request whose answer is read by `parse`. */
function parsingBy(connection: Connection, parse: NonNullable<CallOptions['parse']>): Connection {
  const send = (
    apiKey: number,
    version: number,
    payload: () => Writer,
    _parse: unknown,
    ...rest: unknown[]
  ) =>
    (connection.send as (...all: unknown[]) => void).call(
      connection,
      apiKey,
      version,
      payload,
      parse,
      ...rest,
    );
  return { send } as unknown as Connection;
}

/** Gives up the requests that are under way on connections of `pool`; the next one makes new connections. */
export function cut(pool: ConnectionPool): void {
  for (const [, connection] of pool) if (connection.isConnected()) connection.socket.destroy();
}

/** Closes the connections of `pool` without waiting for the other side. */
async function closePool(pool: ConnectionPool): Promise<void> {
  const sockets = [...pool].map(([, connection]) => connection.socket);
  const closed = pool.close();
  for (const socket of sockets) socket?.destroy();
  await closed;
}

/** An 'error' event that nobody hears would end the process; the requests of the connection fail, and that is heard. */
function heedErrors(pool: ConnectionPool): ConnectionPool {
  return pool.on('connecting', ({ connection }) => void connection.on('error', () => undefined));
}

/** The name that Kafka has for an error code. */
export const kafkaName = (code: number): string => protocolErrorsCodesById[code] ?? `error ${code}`;

/** The names of the errors that brokers have answered; none when there was no answer. */
export function kafkaNames(error: unknown): string[] {
  if (error instanceof MultipleErrors || error instanceof AggregateError)
    return error.errors.flatMap(kafkaNames);
  if (error instanceof GenericError && 'apiId' in error) return [String(error.apiId)];
  return [];
}

/** The answer that has an error in one of its parts. @throws error when there was no answer */
export function answerOf<N extends ApiName>(error: unknown): Answer<N> {
  if (error instanceof ResponseError && 'response' in error) return error.response as Answer<N>;
  throw error;
}

/** Resolves when `work` has ended, or after `milliseconds`. */
export async function atMost(milliseconds: number, work: Promise<unknown>): Promise<void> {
  const limit = new AbortController();
  const ended = work.then(
    () => limit.abort(),
    () => limit.abort(),
  );
  await Promise.race([
    ended,
    sleep(milliseconds, undefined, { signal: limit.signal }).catch(() => undefined),
  ]);
}
