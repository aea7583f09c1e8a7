import type { Delivery } from './delivery.js';

/** Messages of one key, in order. */
export interface Lane {
  readonly key: string;
  queue: Delivery[];
  /** Of what is in `queue`. */
  bytes: number;
  /** How many from the head are being handled. */
  taken: number;
  /** When that began, on the clock of `performance`. */
  begunAt: number;
  /** How long one of its messages took the last time, in ms. */
  pace: number;
  /** Set while the head waits to be tried again. */
  timer: NodeJS.Timeout | undefined;
  /** How long it waits, in ms. */
  waitMs: number;
  /** True while its messages are being put aside: none of them begins. */
  isLeaving: boolean;
}

/** A lane that is put aside. */
export interface LeavingLane {
  /** In order. */
  messages: readonly Delivery[];
  /** How long the head is to wait before it is tried again, in ms. */
  waitMs: number;
  /** True for one that is being handled at this moment. */
  isRunning: (delivery: Delivery) => boolean;
}

/** An empty lane. */
export const laneOf = (key: string): Lane => ({
  ...{ key, queue: [], bytes: 0, taken: 0, begunAt: 0, pace: 0 },
  ...{ timer: undefined, waitMs: 0, isLeaving: false },
});

/** About what the messages keep in memory. */
export const bytesOf = (messages: readonly Delivery[]) => messages.reduce((sum, { bytes }) => sum + bytes, 0);

/** Takes from the lane what stands there from the index on. */
export function cut(lane: Lane, from: number): Delivery[] {
  const messages = lane.queue.splice(from);
  lane.bytes -= bytesOf(messages);
  return messages;
}
