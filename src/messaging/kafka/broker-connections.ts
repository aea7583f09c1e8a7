// messaging/kafka/: What is Kafka's alone: topics, replies, what an answer of a broker means, and the clients below.
// Promises: what is wrong with one topic, partition or reply address stops that one only.
// May know: the port (`kafka-driver`), dead-letters/ and records/; a second broker would be a folder beside it.

/** Where a broker listens. */
export interface BrokerAddress {
  host: string;
  port: number;
}

/**
 * Connections of their own for requests that a broker answers late, as it answers those of one connection in turn: a fetch
 * waits for records, joining a group for its other members.
 */
export type Purpose = 'requests' | 'group' | 'fetch' | 'leaving';

/** A request as its bytes, without the head that says which it is. */
export interface BrokerRequest {
  purpose: Purpose;
  apiKey: number;
  apiVersion: number;
  /** From a version on that each API has for itself, heads and bodies have tagged fields (KIP-482). */
  isFlexible: boolean;
  body: Buffer;
}

/**
 * Connections to brokers, as a client library makes them: TCP, TLS and SASL. What is asked over them, and when, is decided
 * here, the same for each library.
 */
export interface BrokerConnections {
  /**
   * Sends a request, connecting first where there is no connection, and resolves to the bytes of its answer behind the head.
   *
   * @throws BrokerAnswerError the broker refuses to let this client in
   * @throws Error the broker can't be reached
   */
  send(broker: BrokerAddress, request: BrokerRequest): Promise<Buffer>;
  /** Gives up what is under way for a purpose, to one broker or to all; the next request makes a new connection. */
  cut(purpose: Purpose, broker?: BrokerAddress): void;
  /** Gives up all that is under way, without waiting for the other side. */
  close(): void;
}

/** `host:port`, also of an IPv6 address in brackets. */
export function brokerAddress(text: string): BrokerAddress {
  const colon = text.lastIndexOf(':');
  return { host: text.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(text.slice(colon + 1)) };
}

export const addressKey = ({ host, port }: BrokerAddress): string => `${host}:${port}`;

/** Names a connection, for maps. */
export const connectionKey = (purpose: Purpose, broker: BrokerAddress): string =>
  `${purpose} ${addressKey(broker)}`;
