import type { QueryResult, QueryResultRow } from 'pg';
import type { DataSource } from 'typeorm';
import { borrowClient, type Lease, type RecyclingMethod, returnClient } from '../database/pooled-client.js';
import { isConnectionFailure } from '../database/postgres-errors.js';
import type { Statement } from './transaction-context.js';

/** Single statements of one key that may be on their way together: more win nothing, and a lost connection meets them all. */
export const LANE_WIDTH = 4;

const lanes = new WeakMap<DataSource, Map<string, StatementLane>>();

/**
 * One connection for the single statements of one key, in pg's pipeline mode: the server runs them one after another, each in
 * a transaction of its own, and the next is there when the last is done. A hot row then costs what the server takes for it,
 * without the way there and back in between.
 */
export class StatementLane {
  private users = 0;
  private lease: Promise<Lease> | undefined;

  private constructor(
    private readonly dataSource: DataSource,
    private readonly recycling: RecyclingMethod,
    private readonly close: () => void,
  ) {}

  /** The lane of `key`, open as long as somebody uses it. */
  static of(dataSource: DataSource, key: string, recycling: RecyclingMethod): StatementLane {
    let open: Map<string, StatementLane> | undefined = lanes.get(dataSource);
    if (!open) lanes.set(dataSource, (open = new Map<string, StatementLane>()));
    let lane = open.get(key);
    if (!lane) {
      const close = () => void (open.get(key) === lane && open.delete(key));
      open.set(key, (lane = new StatementLane(dataSource, recycling, close)));
    }
    return lane;
  }

  /**
   * Runs one statement, behind those that came before.
   *
   * @param onLease told of the connection as soon as there is one
   * @throws PoolExhaustedError, DatabaseUnavailableError, and what pg throws
   */
  async query<Row extends QueryResultRow>(
    statement: Statement,
    onLease: (lease: Lease) => void,
  ): Promise<QueryResult<Row>> {
    this.users++;
    try {
      const lease = await (this.lease ??= this.open());
      onLease(lease);
      return await this.send<Row>(lease, statement);
    } finally {
      if (--this.users === 0) await this.end();
    }
  }

  private async open(): Promise<Lease> {
    const lease = await borrowClient(this.dataSource, this.recycling);
    setPipeline(lease, true);
    return lease;
  }

  private async send<Row extends QueryResultRow>(
    lease: Lease,
    statement: Statement,
  ): Promise<QueryResult<Row>> {
    try {
      return await lease.client.query<Row>(statement as { text: string });
    } catch (error) {
      // Whoever comes next finds another connection.
      if (isConnectionFailure(error)) {
        lease.broken = true;
        this.close();
      }
      throw error;
    }
  }

  private async end(): Promise<void> {
    this.close();
    // Where there was none to be had, whoever asked was told.
    const lease = await this.lease?.catch(() => undefined);
    if (!lease) return;
    setPipeline(lease, false);
    await returnClient(lease);
  }
}

const before = new WeakMap<Lease, boolean>();

/** pg reads the property with each statement; only an idle client's may be changed. */
function setPipeline(lease: Lease, on: boolean): void {
  const client = lease.client as unknown as { pipeline: boolean };
  if (on) before.set(lease, client.pipeline);
  client.pipeline = on || before.get(lease)!;
}
