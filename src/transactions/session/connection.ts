import type { PoolClient, QueryConfig, QueryResult, QueryResultRow } from 'pg';
import { failureOf, isFailureOf } from '../../database/database-failure.js';
import { type Around, type Progress, sendPipelined } from '../../database/pg/pipelined-query.js';
import { sendStatement } from '../../database/pg/statement-query.js';
import {
  borrowClient,
  cutConnection,
  learnFailure,
  type Lease,
  lostBecause,
  poolOf,
  returnClient,
  toSend,
} from '../../database/pooled-client.js';
import { DatabaseUnavailableError } from '../../database/postgres-errors.js';
import type { SessionOptions } from './options.js';
import { outsideTransaction } from './places.js';

type ConnectionOptions = Pick<SessionOptions, 'dataSource' | 'recycling' | 'readOnly' | 'signal'>;

/** The client of the pool that an attempt works on: another one is taken where it turns out to be dead before anything was begun. */
export class SessionConnection {
  private replaced = 0;
  private isCut = false;
  /** Rejects when the connection is cut: nobody wants the attempt to go on, on whatever connection. */
  readonly cutOff: Promise<never>;
  private rejectCutOff!: (reason: Error) => void;

  constructor(
    private lease: Lease,
    private readonly options: ConnectionOptions,
  ) {
    lease.readOnly = options.readOnly;
    this.cutOff = new Promise<never>((_, reject) => (this.rejectCutOff = reject));
    // Where no work waits, nobody has to know.
    this.cutOff.catch(() => undefined);
  }

  get client(): PoolClient {
    return this.lease.client;
  }

  /** True when it will be closed instead of given back. */
  get isBroken(): boolean {
    return this.lease.broken;
  }

  /** Closes it instead of giving it back. */
  discard(): void {
    this.lease.broken = true;
  }

  query<Row extends QueryResultRow>(statement: QueryConfig): Promise<QueryResult<Row>> {
    return this.learning((lease) => sendStatement<Row>(lease.client, toSend(lease, statement)));
  }

  sendPipelined<Row extends QueryResultRow>(
    statement: QueryConfig,
    { before = [], after, last }: Around,
    progress: Progress,
  ): Promise<QueryResult<Row>> {
    return this.learning((lease) => {
      const around = {
        before: before.map((first) => (typeof first === 'string' ? first : toSend(lease, first))),
        ...(after && { after: toSend(lease, after) }),
        ...(last !== undefined && { last }),
      };
      return sendPipelined<Row>(lease.client, toSend(lease, statement), around, progress);
    });
  }

  /** What ends a statement is known by the connection it was sent on. */
  private async learning<T>(send: (lease: Lease) => Promise<T>): Promise<T> {
    const { lease } = this;
    try {
      return await send(lease);
    } catch (error) {
      await learnFailure(lease, error);
      throw error;
    }
  }

  /** The same for what is no statement. */
  async learn(error: unknown): Promise<void> {
    await learnFailure(this.lease, error);
  }

  /**
   * Takes another client in place of a dead one. At most as often as the pool has clients, all of which may have died while idle.
   * One that was cut has not died.
   *
   * @param isWanted false once the attempt has ended, which gives nothing back any more
   * @returns true where there is another
   */
  async replace(isWanted: () => boolean): Promise<boolean> {
    const mayGoOn = () => isWanted() && !this.isCut;
    if (!mayGoOn() || this.replaced++ >= poolOf(this.options.dataSource).options.max) return false;
    this.lease.broken = true;
    returnClient(this.lease);
    const lease = await borrow(this.options);
    if (!mayGoOn()) {
      returnClient(lease);
      return false;
    }
    lease.readOnly = this.options.readOnly;
    this.lease = lease;
    return true;
  }

  /** Cuts it, whatever it waits for. */
  cut(): void {
    this.isCut = true;
    cutConnection(this.lease);
    this.rejectCutOff(new DatabaseUnavailableError(lostBecause(this.lease)));
  }

  /** Gives the client back to the pool. */
  release(): void {
    returnClient(this.lease);
  }

  /** The failure itself, where the server had told it while nobody waited for an answer (an idle timeout, a kill). */
  explain(error: unknown): unknown {
    const failure = isFailureOf(this.client, error) ? failureOf(error) : undefined;
    return failure?.isLost && !failure.postgres ? (lostBecause(this.lease) ?? error) : error;
  }
}

/**
 * What a socket tells is told in the place where it was made, and a connection outlives the unit that first needs it.
 *
 * @throws PoolExhaustedError, DatabaseUnavailableError
 */
export function borrow({ dataSource, recycling, readOnly, signal }: ConnectionOptions): Promise<Lease> {
  const purpose = readOnly ? 'read-only' : 'write';
  return outsideTransaction(() => borrowClient(dataSource, recycling, { purpose, signal }));
}
