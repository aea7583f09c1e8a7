// messaging/consuming/: Messages on their way to a handler: lanes, batches, retries, what waits and what is parked.
// Promises: messages of a key in order, keys side by side; what is tried again delays its key alone; memory is bounded.
// May know: a `Delivery`, the port and dead-letters/; neither a client library nor how a broker is asked.

import type { ParkLane } from '../dead-letters/lane-store.js';
import { bytesOf, type Delivery } from '../delivery.js';
import { type Batch, type BatchLimits, takeBatch } from './batch.js';
import { cut, type Lane, laneOf } from './lane.js';

export interface LanesSettings extends BatchLimits {
  /** Batches that run at once. */
  concurrency: number;
}

/** Who works for the lanes. */
export interface LaneWorker {
  /**
   * Handles messages that may share a transaction, one or several, and settles each; those of a lane behind one that is not
   * done it leaves alone. Must not reject.
   */
  handle: (batch: Delivery[], settle: Settle) => Promise<void>;
  /** Told of a lane whose head waits, also when more comes behind it. */
  onWaiting?: (lane: Lane) => void;
}

/** What became of a message for its lane. */
export type Settlement = 'done' | { retryInMs: number };
export type Settle = (delivery: Delivery, how: Settlement) => void;

/** When a lane could not be parked, none is for so long. */
const PARK_AGAIN_MS = 1000;

/**
 * Runs messages of one key one after another, in order, and different keys side by side; a key whose message has to wait
 * delays no other. What waits is bounded by whoever adds to it, who may have a lane parked.
 */
export class MessageLanes {
  private readonly lanes = new Map<string, Lane>();
  /** Lanes that were parked while their head was being handled; new messages of their key go to another lane. */
  private readonly detached = new Set<Lane>();
  /** Lanes with a message to run, first come first served. */
  private readonly ready = new Set<Lane>();
  /** Such lanes whose head has failed before: half of the batches that run at once, or all but one if nothing else is ready. */
  private readonly readyAgain = new Set<Lane>();
  private running = 0;
  private runningAgain = 0;
  private wasAgain = false;
  private parking = 0;
  private noneIsParkedBefore = 0;
  private suspended = false;
  private idle: (() => void)[] = [];
  private worker: LaneWorker | undefined;

  constructor(private readonly settings: LanesSettings) {}

  /** Begins to handle what is added; before, nothing is. */
  start(worker: LaneWorker): void {
    this.worker = worker;
    this.pump();
  }

  add(delivery: Delivery): void {
    this.addAll([delivery]);
  }

  /** All are there before the first of them begins: they can share a batch. */
  addAll(deliveries: readonly Delivery[]): void {
    for (const delivery of deliveries) this.put(delivery);
    this.pump();
  }

  private put(delivery: Delivery): void {
    let lane = this.lanes.get(delivery.laneKey);
    if (!lane) {
      lane = laneOf(delivery.laneKey);
      this.lanes.set(lane.key, lane);
    }
    lane.queue.push(delivery);
    lane.bytes += delivery.bytes;
    if (lane.timer) this.worker?.onWaiting?.(lane);
    this.makeReady(lane);
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
    for (const lane of this.all) {
      clearTimeout(lane.timer);
      lane.timer = undefined;
      dropped.push(...cut(lane, lane.taken));
      this.forgetIfEmpty(lane);
    }
    this.ready.clear();
    this.readyAgain.clear();
    return dropped;
  }

  /** Resolves when nothing is being handled or parked. */
  async untilIdle(): Promise<void> {
    if (this.running + this.parking > 0) await new Promise<void>((resolve) => this.idle.push(resolve));
  }

  get all(): Lane[] {
    return [...this.lanes.values(), ...this.detached];
  }

  /** Has the lane parked. @returns false when it could not be; then it is as it was */
  async park(lane: Lane, store: ParkLane): Promise<boolean> {
    if (lane.queue.length === 0) return true;
    if (lane.isBeingParked || this.suspended || performance.now() < this.noneIsParkedBefore) return false;
    const isWaiting = lane.timer !== undefined;
    this.rest(lane);
    lane.isBeingParked = true;
    this.parking++;
    const gone = await store({
      messages: [...lane.queue],
      waitMs: isWaiting ? lane.waitMs : 0,
      isRunning: (delivery) => lane.queue.slice(0, lane.taken).includes(delivery),
    });
    this.parking--;
    lane.isBeingParked = false;
    if (gone.size === 0) this.noneIsParkedBefore = performance.now() + PARK_AGAIN_MS;
    if (gone.size > 0) this.detach(lane, gone);
    else if (isWaiting && lane.queue.length > 0) this.wait(lane);
    else this.goOn(lane);
    this.afterwards();
    return gone.size > 0;
  }

  /** Messages that are being handled stay in this lane; those that came while it was parked go to a new one. */
  private detach(lane: Lane, gone: ReadonlySet<Delivery>): void {
    const rest = cut(lane, lane.taken).filter((delivery) => !gone.has(delivery));
    if (this.lanes.get(lane.key) === lane) this.lanes.delete(lane.key);
    if (lane.taken > 0) this.detached.add(lane);
    else this.detached.delete(lane);
    for (const delivery of rest) this.add(delivery);
  }

  private makeReady(lane: Lane): void {
    const [head] = lane.queue;
    if (!head || lane.taken > 0 || lane.timer || lane.isBeingParked) return;
    (head.attempts > 0 ? this.readyAgain : this.ready).add(lane);
  }

  /** It is not to run. */
  private rest(lane: Lane): void {
    clearTimeout(lane.timer);
    lane.timer = undefined;
    this.ready.delete(lane);
    this.readyAgain.delete(lane);
  }

  private pump(): void {
    const { concurrency } = this.settings;
    while (this.worker && !this.suspended && this.running < concurrency) {
      const most = Math.max(1, this.ready.size > 0 ? concurrency >> 1 : concurrency - 1);
      const mayBeAgain = this.readyAgain.size > 0 && this.runningAgain < most;
      const isAgain = mayBeAgain && !(this.wasAgain && this.ready.size > 0);
      if (!isAgain && this.ready.size === 0) return;
      this.wasAgain = isAgain;
      const free = concurrency - this.running;
      void this.run(isAgain ? this.takeOneAgain() : takeBatch(this.ready, free, this.settings), isAgain);
    }
  }

  /** A message that has failed before is not put into a batch with others: it may be slow, or fail again. */
  private takeOneAgain(): Batch {
    const [lane] = this.readyAgain;
    this.readyAgain.delete(lane!);
    lane!.taken = 1;
    return { lanes: [lane!], messages: [lane!.queue[0]!] };
  }

  private async run({ lanes, messages }: Batch, isAgain: boolean): Promise<void> {
    const begunAt = performance.now();
    for (const lane of lanes) lane.begunAt = begunAt;
    this.running++;
    if (isAgain) this.runningAgain++;
    const settled = new Map<Delivery, Settlement>();
    await this.worker!.handle(messages, (delivery, how) => settled.set(delivery, how));
    this.running--;
    if (isAgain) this.runningAgain--;
    for (const lane of lanes) {
      const isDone = this.advance(lane, settled);
      if (isDone) lane.pace = (performance.now() - begunAt) / messages.length;
    }
    this.afterwards();
  }

  private afterwards(): void {
    if (this.running + this.parking === 0) for (const resolve of this.idle.splice(0)) resolve();
    this.pump();
  }

  /** Messages that are not done stay at the head of the lane, and the others wait behind them. @returns true when all are done */
  private advance(lane: Lane, settled: Map<Delivery, Settlement>): boolean {
    const taken = lane.queue.splice(0, lane.taken);
    const left = taken.filter((delivery) => settled.get(delivery) !== 'done');
    lane.taken = 0;
    lane.bytes += bytesOf(left) - bytesOf(taken);
    lane.queue.unshift(...left);
    const how = left[0] && settled.get(left[0]);
    const waits = how !== undefined && how !== 'done';
    if (waits) lane.waitMs = how.retryInMs;
    if (!lane.isBeingParked && waits) {
      this.wait(lane);
      this.worker?.onWaiting?.(lane);
    } else if (!lane.isBeingParked) this.goOn(lane);
    return left.length === 0;
  }

  private goOn(lane: Lane): void {
    this.forgetIfEmpty(lane);
    this.makeReady(lane);
  }

  private wait(lane: Lane): void {
    lane.timer = setTimeout(() => {
      lane.timer = undefined;
      this.makeReady(lane);
      this.pump();
    }, lane.waitMs);
  }

  private forgetIfEmpty(lane: Lane): void {
    if (lane.queue.length > 0) return;
    this.detached.delete(lane);
    if (this.lanes.get(lane.key) === lane) this.lanes.delete(lane.key);
  }
}
