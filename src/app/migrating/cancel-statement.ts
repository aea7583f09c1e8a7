import { connect } from 'node:net';
import type { PoolClient } from 'pg';
import { backendOf } from '../../database/pg/internals.js';

const CANCEL_REQUEST = 80_877_102;

/**
 * Asks the server to cancel what this client's connection is at, if anything. A pooler passes it on to the server connection
 * that works for the client. Whether it has helped is seen by how the statement ends.
 *
 * @param atMostMs how long it is waited for the server to take the request; never throws
 */
export async function cancelStatement(client: PoolClient, atMostMs: number): Promise<void> {
  const { host, port, processID, secretKey } = backendOf(client);
  if (processID === null || secretKey === null) return;
  const request = Buffer.alloc(16);
  request.writeInt32BE(request.length, 0);
  request.writeInt32BE(CANCEL_REQUEST, 4);
  request.writeInt32BE(processID, 8);
  request.writeInt32BE(secretKey, 12);
  const socket = host.startsWith('/') ? connect(`${host}/.s.PGSQL.${port}`) : connect(port, host);
  // The server ends the connection: PgBouncer 1.18 crashes where whoever cancels hangs up.
  const closed = new Promise((resolve) => socket.on('close', resolve));
  socket.setTimeout(atMostMs, () => socket.destroy());
  // Where it can't be reached there is nobody to ask.
  socket.on('error', () => undefined).write(request);
  await closed;
}
