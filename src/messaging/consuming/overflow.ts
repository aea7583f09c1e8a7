import type { Delivery } from '../delivery.js';
import type { Lane } from './lane.js';
import type { IntakeLimits, MessageIntake } from '../kafka/intake.js';
import type { MessageLanes } from './lanes.js';

export interface OverflowSettings {
  lanes: MessageLanes;
  intake: MessageIntake;
  /** Of one lane whose head has failed; past either of these it does not wait in memory. */
  limits: IntakeLimits;
  /** Without one nothing can be put aside, and the lane's partition is paused instead. */
  hasStore: boolean;
  /** True for one that is going to be parked anyway. */
  isParking: (delivery: Delivery) => boolean;
}

const LOOK_EVERY_MS = 500;
/** A message that takes longer holds up those behind it like one that waits. */
const SLOW_MS = 1000;
/** A lane that needs longer for half of what it holds, while nothing more is fetched, is too slow to be waited for. */
const PATIENCE_MS = 5000;

/**
 * Keeps one key's backlog from filling the buffer, which would stop all keys: a lane whose head has failed is put aside, into
 * the store, when it holds too much or nothing more can be fetched; one that is slow, when both is so. Without a store its
 * partition is paused.
 */
export class LaneOverflow {
  private looking: NodeJS.Timeout | undefined;
  private relieving: Promise<void> | undefined;
  /** Lanes to be put aside. */
  private readonly due = new Set<Lane>();

  constructor(private readonly settings: OverflowSettings) {}

  /** To be called for a lane whose head waits, also when more comes behind it. */
  waits(lane: Lane): void {
    const { intake, hasStore } = this.settings;
    const isParked = lane.queue[0]!.line !== undefined;
    if (!isParked && !this.isOver(lane)) return;
    if (hasStore) {
      this.due.add(lane);
      this.relieve();
    } else if (!intake.isHeldBack(lane.queue[0]!.record)) this.look();
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
    const { intake } = this.settings;
    if (intake.isFull || intake.holdsBack) this.relieve();
    else this.stop();
  }

  private relieve(): void {
    if (this.settings.hasStore)
      this.relieving ??= this.putAside().finally(() => (this.relieving = undefined));
    else this.holdBack();
  }

  /** One after another, as each takes a connection. */
  private async putAside(): Promise<void> {
    const { lanes, intake } = this.settings;
    let stuck: Lane[] | undefined;
    for (;;) {
      const [due] = this.due;
      const lane = due ?? (intake.isFull ? (stuck ??= this.stuck).shift() : undefined);
      if (!lane) return;
      this.due.delete(lane);
      const isStill = due ? lane.timer !== undefined : this.isStuck(lane);
      if (!isStill || (await lanes.leave(lane))) continue;
      // The store takes nothing at the moment. Those who wait say so again, each time they fail.
      this.due.clear();
      return;
    }
  }

  private holdBack(): void {
    const { intake } = this.settings;
    const lanes = this.stuck.filter((lane) => intake.isFull || this.isOver(lane));
    intake.holdBack(
      lanes.map(({ queue }) => ({ topic: queue[0]!.record.topic, partition: queue[0]!.record.partition })),
      this.settings.limits,
    );
  }

  /** Largest first. */
  private get stuck(): Lane[] {
    return this.settings.lanes.all
      .filter((lane) => this.isStuck(lane))
      .sort((a, b) => b.queue.length - a.queue.length);
  }

  private isStuck(lane: Lane): boolean {
    const { queue, taken, begunAt, pace, isLeaving } = lane;
    if (isLeaving || queue.length === taken || queue[0]!.line) return false;
    // It would be parked twice.
    if (taken > 0 && this.settings.isParking(queue[0]!)) return false;
    if (queue[0]!.attempts > 0) return true;
    const isSlow = taken > 0 && performance.now() - begunAt > SLOW_MS;
    return this.isOver(lane) && (isSlow || (queue.length / 2) * pace > PATIENCE_MS);
  }

  private isOver({ queue, bytes }: Lane): boolean {
    const { limits } = this.settings;
    return queue.length > limits.messages || bytes > limits.bytes;
  }
}
