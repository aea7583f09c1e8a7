import type { Delivery } from '../delivery.js';
import type { Lane } from './lane.js';
import type { MemoryLimits } from './held-messages.js';
import type { IncomingRecord } from '../records/record.js';
import type { ParkLane } from '../dead-letters/lane-store.js';
import type { MessageLanes } from './lanes.js';

/** Where messages come from, as far as it can be told to give fewer. */
export interface Source {
  /** True while it gives none, as too much is held. */
  readonly isFull: boolean;
  /** True while parts of it are paused by themselves. */
  readonly holdsBack: boolean;
  /** True while the part is paused that the message has come from. */
  isHeldBack(record: IncomingRecord): boolean;
  /**
   * Pauses the parts that these have come from: what is held of them counts towards no limit, and the others go on. Parts of
   * which half of `limits` is left, or less, go on as well.
   */
  holdBack(records: readonly IncomingRecord[], limits: MemoryLimits): void;
}

export interface OverflowSettings {
  lanes: MessageLanes;
  source: Source;
  /** What one lane may hold in memory while its head waits to be tried again. */
  limits: MemoryLimits;
  /** Stores a lane; without it what the lane comes from is paused instead. */
  park: ParkLane | undefined;
  /** True for one that is going to be parked anyway. */
  willBeParked: (delivery: Delivery) => boolean;
}

const LOOK_EVERY_MS = 500;
/** A message that takes longer holds up those behind it like one that waits. */
const SLOW_MS = 1000;
/** A lane that needs longer for half of what it holds, while nothing more is fetched, is too slow to be waited for. */
const PATIENCE_MS = 5000;

/**
 * Keeps one key's backlog from filling the buffer, which would stop all keys: a lane whose head has failed is parked, in the
 * store, when it holds too much or nothing more can be fetched; one that is slow, when both is so. Without a store the
 * part of the source that it comes from is paused.
 */
export class LaneOverflow {
  private looking: NodeJS.Timeout | undefined;
  private relieving: Promise<void> | undefined;
  /** Lanes to be parked. */
  private readonly due = new Set<Lane>();

  constructor(private readonly settings: OverflowSettings) {}

  /** To be called for a lane whose head waits, also when more comes behind it. */
  waits(lane: Lane): void {
    const { source, park } = this.settings;
    const isParked = lane.queue[0]!.backlog !== undefined;
    if (!isParked && !this.isOver(lane)) return;
    if (park) {
      this.due.add(lane);
      this.relieve();
    } else if (!source.isHeldBack(lane.queue[0]!.record)) this.look();
  }

  /** To be called when nothing more can be fetched: looks for lanes to blame, now and every so often, as long as that is so. */
  look(): void {
    this.looking ??= setInterval(() => this.lookAgain(), LOOK_EVERY_MS).unref();
    this.relieve();
  }

  stop(): void {
    clearInterval(this.looking);
    this.looking = undefined;
  }

  private lookAgain(): void {
    const { source } = this.settings;
    if (source.isFull || source.holdsBack) this.relieve();
    else this.stop();
  }

  private relieve(): void {
    const { park } = this.settings;
    if (park) this.relieving ??= this.parkLanes(park).finally(() => (this.relieving = undefined));
    else this.holdBack();
  }

  /** One after another, as each takes a connection. */
  private async parkLanes(park: ParkLane): Promise<void> {
    const { lanes, source } = this.settings;
    let stuck: Lane[] | undefined;
    for (;;) {
      const [due] = this.due;
      const lane = due ?? (source.isFull ? (stuck ??= this.stuck).shift() : undefined);
      if (!lane) return;
      this.due.delete(lane);
      const isStill = due ? lane.timer !== undefined : this.isStuck(lane);
      if (!isStill || (await lanes.park(lane, park))) continue;
      // The store takes nothing at the moment. A lane that waits is reported again each time its head fails.
      this.due.clear();
      return;
    }
  }

  private holdBack(): void {
    const { source, limits } = this.settings;
    const lanes = this.stuck.filter((lane) => source.isFull || this.isOver(lane));
    source.holdBack(
      lanes.map(({ queue }) => queue[0]!.record),
      limits,
    );
  }

  /** Largest first. */
  private get stuck(): Lane[] {
    return this.settings.lanes.all
      .filter((lane) => this.isStuck(lane))
      .sort((a, b) => b.queue.length - a.queue.length);
  }

  private isStuck(lane: Lane): boolean {
    const { queue, taken, begunAt, pace, isBeingParked } = lane;
    const hasFailed = (queue[0]?.attempts ?? 0) > 0;
    // Nearly all lanes are neither, and there are thousands of them.
    if (!hasFailed && !this.isOver(lane)) return false;
    if (isBeingParked || queue.length === taken || queue[0]!.backlog) return false;
    // It would be parked twice.
    if (taken > 0 && this.settings.willBeParked(queue[0]!)) return false;
    if (hasFailed) return true;
    const isSlow = taken > 0 && performance.now() - begunAt > SLOW_MS;
    return isSlow || (queue.length / 2) * pace > PATIENCE_MS;
  }

  private isOver({ queue, bytes }: Lane): boolean {
    const { limits } = this.settings;
    return queue.length > limits.messages || bytes > limits.bytes;
  }
}
