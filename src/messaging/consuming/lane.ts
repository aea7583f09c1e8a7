import { bytesOf, type Delivery } from '../delivery.js';

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
  /** True while its messages are being parked: none of them begins. */
  isBeingParked: boolean;
}

/** An empty lane. */
export const laneOf = (key: string): Lane => ({
  key,
  queue: [],
  bytes: 0,
  taken: 0,
  begunAt: 0,
  pace: 0,
  timer: undefined,
  waitMs: 0,
  isBeingParked: false,
});

/** Takes from the lane what stands there from the index on. */
export function cut(lane: Lane, from: number): Delivery[] {
  const messages = lane.queue.splice(from);
  lane.bytes -= bytesOf(messages);
  return messages;
}
