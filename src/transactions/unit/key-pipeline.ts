import type { DataSource } from 'typeorm';
import {
  borrowClient,
  learnFailure,
  type Lease,
  poolOf,
  type RecyclingMethod,
  returnClient,
} from '../../database/pooled-client.js';
import { hasPipelineMode, setPipeline } from '../../database/pg/internals.js';

/** Single statements of one key that may be on their way together: more win nothing, and a lost connection meets them all. */
export const PIPELINE_DEPTH = 4;

const pipelines = new WeakMap<DataSource, Map<string, KeyPipeline>>();

/**
 * One connection for the single statements of one key, in pg's pipeline mode: the server runs them one after another, each in
 * a transaction of its own, and the next is there when the last is done. A hot row then costs what the server takes for it,
 * without the way there and back in between.
 */
export class KeyPipeline {
  private users = 0;
  private lease: Promise<Lease> | undefined;
  /** Whether the client was in pipeline mode before. */
  private wasPipelined = false;
  private isOpen = false;
  /** The last statement, where pg has no pipeline mode. */
  private last: Promise<unknown> = Promise.resolve();
  private readonly ended: Promise<void>;
  private markEnded!: () => void;

  private constructor(
    private readonly dataSource: DataSource,
    private readonly recycling: RecyclingMethod,
    private readonly close: () => void,
    /** The pipeline before it ends first. */
    private readonly before: Promise<void> | undefined,
  ) {
    this.ended = new Promise((resolve) => (this.markEnded = resolve));
  }

  /**
   * The pipeline of `key`, open as long as somebody uses it. But where others wait for a connection, another one takes over, which
   * waits for a connection behind them: a key that is always in use would keep its connection for ever.
   */
  static of(dataSource: DataSource, key: string, recycling: RecyclingMethod): KeyPipeline {
    let open: Map<string, KeyPipeline> | undefined = pipelines.get(dataSource);
    if (!open) pipelines.set(dataSource, (open = new Map<string, KeyPipeline>()));
    let pipeline = open.get(key);
    const othersWait = pipeline?.isOpen && poolOf(dataSource).waitingCount > 0;
    if (!pipeline || othersWait) {
      const close = () => void (open.get(key) === next && open.delete(key));
      const next = new KeyPipeline(dataSource, recycling, close, pipeline?.ended);
      open.set(key, (pipeline = next));
    }
    return pipeline;
  }

  /**
   * Runs one statement, behind those that came before.
   *
   * @param send sends it on the connection, as soon as there is one
   * @throws PoolExhaustedError, DatabaseUnavailableError, and what pg throws
   */
  async use<T>(send: (lease: Lease) => Promise<T>): Promise<T> {
    this.users++;
    try {
      return await this.send(await (this.lease ??= this.open()), send);
    } finally {
      if (--this.users === 0) await this.end();
    }
  }

  private async open(): Promise<Lease> {
    await this.before;
    const lease = await borrowClient(this.dataSource, this.recycling);
    this.wasPipelined = setPipeline(lease.client, true);
    this.isOpen = true;
    return lease;
  }

  private async send<T>(lease: Lease, send: (lease: Lease) => Promise<T>): Promise<T> {
    try {
      if (hasPipelineMode(lease.client)) return await send(lease);
      const sending = this.last.then(() => send(lease));
      this.last = sending.catch(() => undefined);
      return await sending;
    } catch (error) {
      await learnFailure(lease, error);
      // Whoever comes next finds another connection.
      if (lease.broken) this.close();
      throw error;
    }
  }

  private async end(): Promise<void> {
    this.close();
    // Where there was none to be had, whoever asked was told.
    const lease = await this.lease?.catch(() => undefined);
    if (lease) {
      setPipeline(lease.client, this.wasPipelined);
      returnClient(lease);
    }
    this.markEnded();
  }
}
