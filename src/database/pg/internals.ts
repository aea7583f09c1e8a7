// database/pg/: All that leans on what pg does not document; what is proposed to pg stands in docs/pg-hooks.md.
// Promises: a pg that has changed is refused at start by a sentence that says what to do.
// May know: pg; nobody else reaches into it.

import type { Client, PoolClient } from 'pg';
import type { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';

type AnyClient = Client | PoolClient;

/** A client's connection: emits the server's messages by their names. */
interface PgConnection extends EventEmitter {
  readonly stream: Duplex;
}

/** What pg's clients have beside their types (pg/lib/client.js, pg/lib/connection.js). `self-test` looks for each of it. */
interface Internals {
  connection: PgConnection & {
    /** The texts of what was prepared, by name. */
    parsedStatements: Record<string, string>;
    connect?: (() => void) | undefined;
  };
  connectionParameters: { query_timeout?: unknown };
  host: string;
  port: number;
  processID: number | null;
  secretKey: number | null;
  /** Since pg 8.23. */
  pipeline?: boolean;
  _getActiveQuery(): { name?: string } | null;
  _queryable: boolean;
  _ending: boolean;
  _ended: boolean;
}
const internalsOf = (client: AnyClient) => client as unknown as Internals;

/** The connection that the client has now: one to several hosts has another one once it is connected. */
export const connectionOf = (client: AnyClient): PgConnection => internalsOf(client).connection;

/** Cuts the connection of a client, whatever it waits for; that ends with an error. */
export function cutConnectionOf(client: AnyClient, reason?: Error): void {
  connectionOf(client).stream.destroy(reason);
}

/** True while pg would send what it is given. */
export function isUsable(client: AnyClient): boolean {
  const { _queryable, _ending, _ended, connection } = internalsOf(client);
  return _queryable && !_ending && !_ended && !connection.stream.destroyed;
}

/** True where pg may stop waiting for an answer that comes yet. */
export const hasReadTimeout = (client: AnyClient): boolean =>
  Boolean(internalsOf(client).connectionParameters.query_timeout);

/** True when the statement that is under way was prepared before. */
export function runsPrepared(client: AnyClient): boolean {
  const { connection } = internalsOf(client);
  const name = internalsOf(client)._getActiveQuery()?.name;
  return name !== undefined && connection.parsedStatements[name] !== undefined;
}

/** Where the client is connected to, and how the server knows it: for requests to cancel. */
export const backendOf = (client: AnyClient): Pick<Internals, 'host' | 'port' | 'processID' | 'secretKey'> =>
  internalsOf(client);

/** False for a pg before 8.23: it sends a statement once the one before it is answered, and warns of those that it has to queue. */
export const hasPipelineMode = (client: AnyClient): boolean => internalsOf(client).pipeline !== undefined;

/**
 * Turns pg's pipeline mode on or off, where it has one: statements are sent without waiting for the answers before them, each with a
 * Sync. pg reads it with each statement; only an idle client's may be changed.
 *
 * @returns what it was
 */
export function setPipeline(client: AnyClient, on: boolean): boolean {
  const internals = internalsOf(client);
  const before = internals.pipeline;
  if (before === undefined) return false;
  internals.pipeline = on;
  return before;
}

/** Lets everything that `send` sends leave in one write, where the network takes that much. */
export function inOneWrite<T>(client: AnyClient, send: () => T): T {
  const { stream } = connectionOf(client);
  stream.cork();
  try {
    return send();
  } finally {
    stream.uncork();
  }
}

/**
 * Gives the connection of `found` to `client`, which has none yet; `found` is nobody's any more.
 *
 * @param connect pg's own `connect` of `client`: pg has yet to learn of a connection that stands already
 */
export function takeOverConnection(client: Client, found: Client, connect: () => void): void {
  const mine = internalsOf(client);
  const { connection, processID, secretKey, host, port } = internalsOf(found);
  for (const event of messagesOf(connection)) connection.removeAllListeners(event);
  for (const event of messagesOf(mine.connection))
    for (const listener of mine.connection.rawListeners(event))
      connection.on(event, listener as (...args: unknown[]) => void);
  Object.assign(mine, { connection, processID, secretKey, host, port });
  // As if it had connected just now.
  connection.connect = () => undefined;
  connect();
  delete connection.connect;
  connection.emit('readyForQuery', { status: 'I' });
}

/** pg's connections listen to who listens to them, each for itself. */
const messagesOf = (connection: EventEmitter) =>
  connection.eventNames().filter((event) => event !== 'newListener');

/** pg-pool has no code for having given up waiting for a free client, only this text (pg-pool/index.js). */
export const isPoolTimeout = (error: unknown): boolean =>
  error instanceof Error && error.message === 'timeout exceeded when trying to connect';
