import { v7 as uuidv7 } from 'uuid';
import type { Client } from 'pg';
import type { DataSource } from 'typeorm';
import { preparedName } from '../../database/prepared-name.js';
import { withClient } from '../../database/pooled-client.js';
import { tableIn } from '../../database/table-name.js';
import type { CommitTicket } from '../session/commit-ticket.js';
import type { OutcomeRow } from '../session/options.js';
import { askUntilKnown, type CommitOutcome, endLeftSession } from './commit-outcome.js';

/** What is older is asked for by nobody any more. */
const REMEMBERED_MS = 60 * 60 * 1000;
/** Far shorter than rows are kept: once it is removed, the lack of a row would say that the transaction was not committed. */
const ASKED_FOR_AT_MOST_MS = 10 * 60 * 1000;
/** So many rows are written between two removals, and this many removed at most. */
const [PRUNE_EVERY, PRUNED_AT_ONCE] = [1000, 10_000];

const all = new WeakMap<DataSource, OutcomeRows>();

/** The rows of `transaction_outcome`, by which the outcome of a COMMIT is known on any engine that has unique keys. */
export class OutcomeRows {
  private readonly table: string;
  private readonly insertion: { name: string; text: string };
  private written = 0;

  static of(dataSource: DataSource): OutcomeRows {
    let rows = all.get(dataSource);
    if (!rows) all.set(dataSource, (rows = new OutcomeRows(dataSource)));
    return rows;
  }

  private constructor(private readonly dataSource: DataSource) {
    this.table = tableIn(dataSource, 'transaction_outcome');
    const text = `INSERT INTO ${this.table} (id) VALUES ($1)`;
    this.insertion = { name: preparedName('nestjs_people_outcome', text), text };
  }

  /** A new one for each attempt: with the same id a repetition would make an earlier attempt look committed. */
  next(): OutcomeRow {
    this.written++;
    const id = uuidv7();
    return { id, statement: { ...this.insertion, values: [id] } };
  }

  /**
   * What became of a COMMIT that was lost, by writing its row: if the transaction's own is there, it is committed; if this one
   * could be written, the transaction never can be any more, as its own would be the second. A transaction that is still under
   * way is waited for. The answer to this may be lost as well, and it is asked again: its row says that it is none of the
   * transaction's.
   *
   * @param ticket where there is one, a session that still waits for a COMMIT which never came is ended: it would keep its locks
   * @param atMostMs how long to ask before giving up
   */
  resolve({ id }: OutcomeRow, ticket: CommitTicket | undefined, atMostMs: number): Promise<CommitOutcome> {
    const fence = `INSERT INTO ${this.table} (id, is_fence) VALUES ($1, true) ON CONFLICT (id) DO NOTHING`;
    const found = `SELECT is_fence FROM ${this.table} WHERE id = $1`;
    const forMs = Math.min(atMostMs, ASKED_FOR_AT_MOST_MS);
    return askUntilKnown(this.dataSource, forMs, async (client: Client) => {
      if ((await client.query(fence, [id])).rowCount !== 0) {
        if (ticket) await endLeftSession(client, this.dataSource, ticket);
        return 'aborted';
      }
      const { rows } = await client.query<{ is_fence: boolean }>(found, [id]);
      if (!rows[0]) return 'unknown';
      return rows[0].is_fence ? 'aborted' : 'committed';
    });
  }

  /** True now and then, when it is time to remove what is old. */
  isDueToPrune(): boolean {
    if (this.written < PRUNE_EVERY) return false;
    this.written = 0;
    return true;
  }

  /** Removes what is old by its id, and by when it was written. @throws what pg throws */
  async prune(): Promise<void> {
    const before = uuidv7({ msecs: Date.now() - REMEMBERED_MS, seq: 0, random: new Uint8Array(16) });
    const text = `DELETE FROM ${this.table} WHERE id IN (
      SELECT id FROM ${this.table} WHERE id < $1 AND created_at < now() - interval '${REMEMBERED_MS} milliseconds'
      ORDER BY id LIMIT ${PRUNED_AT_ONCE})`;
    await withClient(this.dataSource, 'fast', ({ client }) => client.query(text, [before]));
  }
}
