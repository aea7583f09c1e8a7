import type { DataSource } from 'typeorm';
import type { QueryResultRow } from 'pg';
import { tableIn } from '../../database/table-name.js';
import type { Statement } from '../../transactions/transaction-context.js';

/** Somebody who holds a lock that the relay needs. */
export interface LockHolder {
  /** Of the server's process; null for a prepared transaction. */
  pid: number | null;
  application: string | null;
  user: string | null;
  /** `active`, `idle in transaction`, …; null where the relay's user may not know. */
  state: string | null;
  /** How long its transaction lasts, in seconds. */
  seconds: number | null;
  /** What it holds: a table in a lock mode, or rows of one. */
  holds: string;
}

const HOLDER = `a.pid, a.application_name AS application, a.usename AS "user", a.state,
  round(extract(epoch FROM clock_timestamp() - a.xact_start))::int AS seconds`;

/**
 * Who holds locks that the relay waits for: whole tables first, as nothing can be asked of the rows of a table that is locked.
 *
 * @param shards whose rows or leases are locked; none where the tables are
 * @param query runs one statement, and waits for no lock for long
 */
export async function lockHolders(
  dataSource: DataSource,
  shards: readonly number[],
  query: <Row extends QueryResultRow>(statement: Statement) => Promise<{ rows: Row[] }>,
): Promise<LockHolder[]> {
  const names = ['message_outbox', 'message_outbox_lease', 'message_dead_letter'];
  const [outbox, lease] = names.map((name) => tableIn(dataSource, name)) as [string, string];
  const tables = await query<LockHolder & QueryResultRow>({
    text: `SELECT DISTINCT ${HOLDER}, c.relname || ' in ' || l.mode AS holds
      FROM unnest($1::text[]) name JOIN pg_class c ON c.oid = to_regclass(name)
      JOIN pg_locks l ON l.locktype = 'relation' AND l.relation = c.oid AND l.granted
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      LEFT JOIN pg_stat_activity a ON a.pid = l.pid
      WHERE l.pid IS DISTINCT FROM pg_backend_pid()
        AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')`,
    values: [names.map((name) => tableIn(dataSource, name))],
  });
  if (tables.rows.length > 0 || shards.length === 0) return tables.rows;
  // The rows that the relay would begin with; xmax is who has locked them, where that is one transaction.
  const rows = await query<LockHolder & QueryResultRow>({
    text: `SELECT DISTINCT ${HOLDER}, r.holds
      FROM (SELECT xmax, 'rows of message_outbox_lease' AS holds FROM ${lease} WHERE shard = ANY ($1::int[])
        UNION SELECT o.xmax, 'rows of message_outbox' FROM unnest($1::int[]) s,
          LATERAL (SELECT xmax FROM ${outbox} o WHERE o.shard = s ORDER BY o.shard, o.seq LIMIT 1000) o) r
      JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = r.xmax AND l.granted
      LEFT JOIN pg_stat_activity a ON a.pid = l.pid
      WHERE l.pid IS DISTINCT FROM pg_backend_pid()`,
    values: [[...shards]],
  });
  return rows.rows;
}
