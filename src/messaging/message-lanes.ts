import type { Delivery } from './delivery.js';

/** Messages of one key, in order. */
interface Lane {
  key: string;
  queue: Delivery[];
  /** How many from the head are being handled. */
  taken: number;
  /** Set while the head waits to be tried again. */
  timer: NodeJS.Timeout | undefined;
}

export interface LanesSettings {
  /** Batches that run at once. */
  concurrency: number;
  /** Messages of one batch at most. */
  batchSize: number;
  /**
   * Handles messages that may share a transaction, one or several, and settles each; those of a lane behind one that is not
   * done it leaves alone. Must not reject.
   */
  handle: (batch: Delivery[], settle: Settle) => Promise<void>;
}

/** What became of a message for its lane. */
export type Settlement = 'done' | { retryInMs: number };
export type Settle = (delivery: Delivery, how: Settlement) => void;

/**
 * Runs messages of one key one after another, in order, and different keys side by side; a key whose message has to wait
 * delays no other. What waits is bounded by whoever adds to it.
 */
export class MessageLanes {
  private readonly lanes = new Map<string, Lane>();
  /** Lanes with a message to run, first come first served. */
  private readonly ready = new Set<Lane>();
  private running = 0;
  private suspended = false;
  private idle: (() => void)[] = [];

  constructor(private readonly settings: LanesSettings) {}

  add(delivery: Delivery): void {
    let lane = this.lanes.get(delivery.laneKey);
    if (!lane) {
      lane = { key: delivery.laneKey, queue: [], taken: 0, timer: undefined };
      this.lanes.set(lane.key, lane);
    }
    lane.queue.push(delivery);
    this.makeReady(lane);
    this.pump();
  }

  /** Begins nothing until `resume`; what runs goes on. */
  suspend(): void {
    this.suspended = true;
  }

  resume(): void {
    this.suspended = false;
    this.pump();
  }

  /** Forgets messages that are not being handled. @returns those */
  dropWaiting(): Delivery[] {
    const dropped: Delivery[] = [];
    for (const lane of this.lanes.values()) {
      clearTimeout(lane.timer);
      lane.timer = undefined;
      dropped.push(...lane.queue.splice(lane.taken));
      if (lane.taken === 0) this.lanes.delete(lane.key);
    }
    this.ready.clear();
    return dropped;
  }

  /** Resolves when nothing is being handled. */
  async untilIdle(): Promise<void> {
    if (this.running > 0) await new Promise<void>((resolve) => this.idle.push(resolve));
  }

  private makeReady(lane: Lane): void {
    if (lane.taken === 0 && !lane.timer && lane.queue.length > 0) this.ready.add(lane);
  }

  private pump(): void {
    while (!this.suspended && this.running < this.settings.concurrency && this.ready.size > 0)
      void this.run(this.takeBatch());
  }

  /** As many as share out what is ready among those who may run, and each lane's messages in order. */
  private takeBatch(): Delivery[] {
    const { concurrency, batchSize } = this.settings;
    const share = Math.ceil(this.ready.size / (concurrency - this.running));
    const batch: Delivery[] = [];
    for (const lane of this.ready) {
      const head = lane.queue[0]!;
      if (batch.length > 0 && !head.isBatchable) continue;
      this.ready.delete(lane);
      do batch.push(lane.queue[lane.taken++]!);
      while (batch.length < batchSize && head.isBatchable && lane.queue[lane.taken]?.isBatchable);
      if (!head.isBatchable || batch.length >= Math.min(share, batchSize)) break;
    }
    return batch;
  }

  private async run(batch: Delivery[]): Promise<void> {
    this.running++;
    const settled = new Map<Delivery, Settlement>();
    await this.settings.handle(batch, (delivery, how) => settled.set(delivery, how));
    this.running--;
    for (const key of new Set(batch.map(({ laneKey }) => laneKey)))
      this.advance(this.lanes.get(key)!, settled);
    if (this.running === 0) for (const resolve of this.idle.splice(0)) resolve();
    this.pump();
  }

  /** What is not done stays where it was, and what is behind it waits. */
  private advance(lane: Lane, settled: Map<Delivery, Settlement>): void {
    const taken = lane.queue.splice(0, lane.taken);
    lane.taken = 0;
    const left = taken.filter((delivery) => settled.get(delivery) !== 'done');
    lane.queue.unshift(...left);
    const [head] = lane.queue;
    if (!head) {
      this.lanes.delete(lane.key);
      return;
    }
    const how = settled.get(head);
    if (how && how !== 'done') {
      lane.timer = setTimeout(() => {
        lane.timer = undefined;
        this.makeReady(lane);
        this.pump();
      }, how.retryInMs);
    } else this.makeReady(lane);
  }
}
