import type { PoolClient, QueryResult } from 'pg';
import { failureOn, hasSqlState } from '../../database/database-failure.js';
import { inOneWrite, setPipeline } from '../../database/pg/internals.js';
import type { Lease } from '../../database/pooled-client.js';
import { ACTIVE_SQL_TRANSACTION, INVALID_TRANSACTION_TERMINATION } from '../../database/postgres-errors.js';

const BEGIN = /^(?:\s|--.*\n|\/\*[^]*?\*\/)*(?:BEGIN|START\s+TRANSACTION)\b/i;

// By these the server would end a migration, or a transaction that holds the lock for one, that takes long; by the last it does so
// when the client is gone, as otherwise a long statement goes on beside that of the instance which migrates next.
const WITHOUT_LIMITS = [
  'SET LOCAL statement_timeout = 0',
  'SET LOCAL idle_in_transaction_session_timeout = 0',
  'SET LOCAL transaction_timeout = 0',
  'SET LOCAL client_connection_check_interval = 1000',
];

/**
 * Statements by which a transaction may take as long as it takes, those of them that the server knows.
 *
 * @throws what pg throws when the connection is lost
 */
export async function withoutLimits(client: PoolClient): Promise<string[]> {
  const known: string[] = [];
  for (const setting of WITHOUT_LIMITS) {
    await client.query('BEGIN');
    try {
      await client.query(setting);
      known.push(setting);
    } catch (error) {
      if ((await failureOn(client, error))?.isLost ?? true) throw error;
    }
    await client.query('ROLLBACK');
  }
  return known;
}

/** What migrations send their statements with. */
export interface MigrationClient {
  readonly client: PoolClient;
  /**
   * From here on statements take as long as they take. The connection is to be closed in the end.
   *
   * @param limits what `withoutLimits` gave
   */
  lift(limits: readonly string[]): Promise<void>;
}

/**
 * The client of `lease`, to migrate with: it sends nothing more once `signal` is aborted. Behind a pooler, where the connection
 * may be another's in a moment, each statement brings along the settings that it is to have, in a transaction that ends with
 * it; so nothing is left on the server's connection.
 */
export function migrationClient({ client, server }: Lease, signal: AbortSignal): MigrationClient {
  const lifted: string[] = [];
  const send: Send = (...statement) => {
    signal.throwIfAborted();
    return client.query(...statement);
  };
  const query: Send = async (...statement) =>
    server.isPooled && typeof statement[0] === 'string'
      ? sendWith([...server.settingsPerTransaction, ...lifted], client, send, statement)
      : send(...statement);
  return {
    client: new Proxy(client, {
      get: (_, key) => {
        if (key === 'query') return query;
        const value: unknown = Reflect.get(client, key);
        return typeof value === 'function' ? (value.bind(client) as unknown) : value;
      },
    }),
    lift: async (limits) => {
      if (server.isPooled) lifted.push(...limits);
      else for (const limit of limits) await send(ofSession(limit));
    },
  };
}

type Statement = [text: string, values?: unknown[]];
type Send = (...statement: Statement) => Promise<QueryResult>;

async function sendWith(
  settings: string[],
  client: PoolClient,
  send: Send,
  statement: Statement,
): Promise<QueryResult> {
  if (isInTransaction(client)) return send(...statement);
  if (BEGIN.test(statement[0])) {
    const begun = await send(...statement);
    for (const setting of settings) await send(setting);
    return begun;
  }
  try {
    return await sendInTransaction(settings, send, statement);
  } catch (error) {
    // CREATE INDEX CONCURRENTLY and the like, and procedures that commit: nothing of it was done.
    if (!hasSqlState(error, ACTIVE_SQL_TRANSACTION, INVALID_TRANSACTION_TERMINATION)) throw error;
    return sendAlone(settings, client, send, statement);
  }
}

const isInTransaction = (client: PoolClient): boolean => client.getTransactionStatus() !== 'I';

async function sendInTransaction(settings: string[], send: Send, statement: Statement): Promise<QueryResult> {
  await send('BEGIN');
  try {
    for (const setting of settings) await send(setting);
    const result = await send(...statement);
    await send('COMMIT');
    return result;
  } catch (error) {
    // Where it fails as well the connection is of no use, and closed in the end.
    await send('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

/**
 * A statement that can't be in a transaction. In one write with its settings and their reset, a pooler has no chance to hand
 * the connection on in between; where it did all the same, the one that was left with the settings is ended.
 */
async function sendAlone(
  settings: string[],
  client: PoolClient,
  send: Send,
  statement: Statement,
): Promise<QueryResult> {
  const names = settings.map((setting) => /^SET LOCAL (\S+)/.exec(setting)![1]!);
  const set = settings.map(ofSession);
  const reset = names.map((name) => `RESET ${name}`);
  setPipeline(client, true);
  const answers = inOneWrite(
    client,
    () => [send(script(set)), send(...statement), send(script(reset))] as const,
  );
  const [before, result, after] = await Promise.allSettled(answers);
  setPipeline(client, false);
  const [first, last] = [pidIn(before), pidIn(after)];
  if (first !== undefined && first !== last)
    await send(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND state = 'idle'`, [
      first,
    ]);
  if (before.status === 'rejected') throw before.reason;
  if (result.status === 'rejected') throw result.reason;
  return result.value;
}

const ofSession = (setting: string) => setting.replace('SET LOCAL', 'SET');
const script = (statements: string[]) => [...statements, 'SELECT pg_backend_pid() AS pid'].join('; ');

/** The answer to a script has a result of each statement. */
function pidIn(answer: PromiseSettledResult<unknown>): number | undefined {
  if (answer.status === 'rejected') return undefined;
  return (answer.value as QueryResult<{ pid: number }>[]).at(-1)?.rows[0]?.pid;
}
