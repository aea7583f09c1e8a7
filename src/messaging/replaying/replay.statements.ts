import type { DataSource } from 'typeorm';
import { tableIn } from '../../database/table-name.js';
import type { Statement } from '../../transactions/transaction-context.js';
import type { RecordWindow } from '../kafka-driver.js';

/** What became of the records of a window so far. */
export interface ReplayProgress {
  /** Offsets that the window has in all, and how many are done. */
  total: number;
  read: number;
  applied: number;
  /** Applied before, and left as it is. */
  repeated: number;
  /** They asked for a reply. */
  skipped: number;
  /** Dead letters that were made now. */
  dead: number;
  /** Behind a dead letter of their key. */
  parked: number;
}

/** A window that is or was replayed. */
export interface Replay {
  id: string;
  topic: string;
  from: Date;
  to: Date;
  actor: string;
  /** `gone`: the instance that ran it gives no sign of life. */
  state: 'running' | 'done' | 'cancelled' | 'failed' | 'gone';
  /** Why it has failed. */
  error: string | null;
  progress: Partial<ReplayProgress>;
  startedAt: Date;
  endedAt: Date | null;
}

/** How a replay has ended. */
export type Ending = 'done' | 'cancelled' | 'failed';

const LISTED = 20;
/** An instance that has given no sign of life for so long runs nothing any more. */
const GONE = `interval '30 s'`;
const KEPT = `interval '90 days'`;

export function replayStatements(dataSource: DataSource, consumer: string) {
  const table = tableIn(dataSource, 'message_replay');
  return {
    /** What instances that are gone have left behind; and removes what is old. */
    giveUp: (): Statement => ({
      text: `WITH old AS (DELETE FROM ${table} WHERE ended_at < now() - ${KEPT})
        UPDATE ${table} SET state = 'failed', ended_at = now(),
          error = 'The instance that ran it is gone. Start it again: what was applied is left as it is.'
        WHERE consumer = $1 AND state = 'running' AND seen_at < clock_timestamp() - ${GONE}`,
      values: [consumer],
    }),
    /** @returns a row with its id; none where another one runs */
    begin: ({ topic, from, to }: RecordWindow, actor: string): Statement => ({
      text: `INSERT INTO ${table} (consumer, topic, "from", "to", actor) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (consumer) WHERE state = 'running' DO NOTHING RETURNING id`,
      values: [consumer, topic, new Date(from), new Date(to), actor],
    }),
    /** @returns a row that says whether it is to end; none where it is over for everybody else */
    beat: (id: string, progress: ReplayProgress): Statement => ({
      text: `UPDATE ${table} SET progress = $2, seen_at = clock_timestamp() WHERE id = $1 AND state = 'running'
        RETURNING is_cancelled AS "isCancelled"`,
      values: [id, JSON.stringify(progress)],
    }),
    end: (id: string, progress: ReplayProgress, state: Ending, error: string | undefined): Statement => ({
      text: `UPDATE ${table} SET progress = $2, state = $3, error = $4, ended_at = now() WHERE id = $1 AND state = 'running'`,
      values: [id, JSON.stringify(progress), state, error ?? null],
    }),
    cancel: (id: string): Statement => ({
      text: `UPDATE ${table} SET is_cancelled = true WHERE id = $1 AND state = 'running'`,
      values: [id],
    }),
    list: (): Statement => ({
      text: `SELECT id, topic, "from", "to", actor, error,
          CASE WHEN state = 'running' AND seen_at < clock_timestamp() - ${GONE} THEN 'gone' ELSE state END AS state, progress, started_at AS "startedAt", ended_at AS "endedAt"
        FROM ${table} WHERE consumer = $1 ORDER BY started_at DESC LIMIT ${LISTED}`,
      values: [consumer],
    }),
  };
}
