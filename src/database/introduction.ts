import type { PoolClient } from 'pg';
import type { DataSource } from 'typeorm';
import { failureOn } from './database-failure.js';
import { KnownServer } from './known-server.js';
import { backendOf } from './pg/internals.js';
import { askTransactionIds } from './transaction-ids.js';

const timeouts = new WeakMap<PoolClient, number>();

/** The `statement_timeout` of a client's session or, where a pooler drops it, of its transactions, in ms; 0: none. */
export const statementTimeoutOf = (client: PoolClient): number | undefined => timeouts.get(client);

interface Found {
  name: string;
  found: string | null;
  asked: string | null;
  pid: number;
}

// What is there is read before set_config() puts what was asked for in its place, for this statement alone: so both are written
// alike, and `30s` equals 30000.
const QUESTION = `SELECT name, current_setting(name, true) AS found,
    CASE WHEN value IS NOT NULL THEN set_config(name, value, true) END AS asked, pg_backend_pid() AS pid
  FROM unnest($1::text[], $2::text[]) AS s(name, value)`;

const introduced = new WeakSet<PoolClient>();

/** True when nobody has asked this connection yet what is at its other end. */
export const isNew = (client: PoolClient): boolean => !introduced.has(client);

/**
 * Learns from a connection that is new what is at its other end: whether it has the settings that were asked for, whether a
 * pooler is in between, and what the server says of transactions by their ids.
 *
 * @throws what pg throws when the connection is lost
 */
export async function introduce(client: PoolClient, dataSource: DataSource): Promise<void> {
  const server = KnownServer.of(dataSource);
  const isLost = async (error: unknown) => (await failureOn(client, error))?.isLost ?? true;
  await askSettings(client, server).catch(async (error: unknown) => {
    // Other engines may not know the question.
    if (await isLost(error)) throw error;
  });
  server.transactionIds ??= await askTransactionIds(client, dataSource.driver.version ?? '', isLost);
  server.isKnown = true;
  introduced.add(client);
}

async function askSettings(client: PoolClient, server: KnownServer): Promise<void> {
  const settings = new Map<string, string | null>([['statement_timeout', null], ...server.asked]);
  const { rows } = await client.query<Found>(QUESTION, [[...settings.keys()], [...settings.values()]]);
  // A pooler makes up the process id that it gives its clients for cancelling.
  const { processID } = backendOf(client);
  if (processID !== null && rows.some(({ pid }) => pid !== processID)) server.isPooled = true;
  const isDropped = ({ asked, found }: Found) => asked !== null && asked !== found;
  server.learnDropped(rows.filter(isDropped).map(({ name }) => name));
  const timeout = rows.find(({ name }) => name === 'statement_timeout');
  const timeoutMs = milliseconds(timeout?.asked ?? timeout?.found);
  if (timeoutMs !== undefined) timeouts.set(client, timeoutMs);
}

const UNITS: Record<string, number> = { '': 1, ms: 1, s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000 };

/** As the server writes it: `0`, `1500ms`, `30s`. */
function milliseconds(text: string | null | undefined): number | undefined {
  const [, number, unit = ''] = /^(\d+)([a-z]*)$/.exec(text ?? '') ?? [];
  return number === undefined ? undefined : Number(number) * (UNITS[unit] ?? NaN);
}
