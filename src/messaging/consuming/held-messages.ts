import { type Delivery, placeOf } from '../delivery.js';
import type { IncomingRecord } from '../records/record.js';

/** How many messages, and bytes of them, may be held in memory. */
export interface MemoryLimits {
  messages: number;
  bytes: number;
}

/**
 * Messages that were taken from the broker and are not done, by their places. Each belongs to an assignment: once the next has
 * begun, the broker delivers what is not done again, here or to another member.
 */
export class HeldMessages {
  private readonly byPlace = new Map<string, Delivery>();
  private assignment = 0;
  /** About what they keep in memory. */
  bytes = 0;

  get size(): number {
    return this.byPlace.size;
  }

  get all(): Iterable<Delivery> {
    return this.byPlace.values();
  }

  /** The next assignment begins: what is held already is forgotten, or comes again. */
  nextAssignment(): void {
    this.assignment++;
  }

  /** The message belongs to the current assignment. */
  join(delivery: Delivery): void {
    delivery.assignment = this.assignment;
  }

  /** @returns the message to be handled; undefined where it has been, and only its reply is still to be sent */
  take(record: IncomingRecord, toDelivery: (record: IncomingRecord) => Delivery): Delivery | undefined {
    const place = placeOf(record);
    const earlier = this.byPlace.get(place);
    // It was handled in an earlier assignment, and only its reply is under way; then it is reported as done.
    if (earlier?.outcome) {
      this.join(earlier);
      return undefined;
    }
    const delivery = toDelivery(record);
    delivery.place = place;
    this.join(delivery);
    // If the earlier delivery fails it is not tried again, as its assignment is over, and what is behind it must not pass this one.
    if (earlier) {
      this.release(earlier);
      delivery.begunBefore = earlier;
    }
    this.byPlace.set(place, delivery);
    this.bytes += delivery.bytes;
    return delivery;
  }

  release(delivery: Delivery): void {
    const place = (delivery.place ??= placeOf(delivery.record));
    // A parked message may have the same place as its own second delivery, which is the one that is held.
    if (this.byPlace.get(place) !== delivery) return;
    this.byPlace.delete(place);
    this.bytes -= delivery.bytes;
  }

  /** True if the message is of an earlier assignment: it is delivered again, here or to another member. */
  isForgotten(delivery: Delivery): boolean {
    const isForgotten = delivery.assignment !== this.assignment;
    if (isForgotten) this.release(delivery);
    return isForgotten;
  }

  /** True if its first delivery was handled after it had come again; that one reports the message as done. */
  wasHandledBefore(delivery: Delivery): boolean {
    const wasHandled = delivery.begunBefore?.outcome !== undefined;
    if (wasHandled) this.release(delivery);
    return wasHandled;
  }

  /** Messages of this assignment that have not begun, though no other of their key is before them. */
  *waitingHeads(): Iterable<Delivery> {
    const lanes = new Set<string>();
    for (const delivery of this.byPlace.values()) {
      const isHead = !lanes.has(delivery.laneKey);
      lanes.add(delivery.laneKey);
      if (isHead && !delivery.hasBegun && delivery.assignment === this.assignment) yield delivery;
    }
  }
}
