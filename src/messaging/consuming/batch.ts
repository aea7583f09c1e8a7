import type { Delivery } from '../delivery.js';
import type { Lane } from './lane.js';

/** Messages to be handled together, and the lanes they are of. */
export interface Batch {
  lanes: Lane[];
  messages: Delivery[];
}

/** What one batch may have. */
export interface BatchLimits {
  /** Messages at most. */
  batchSize: number;
  /** The same where a batch handler takes them. */
  batchHandlerSize?: number;
}

/** Past so many bytes nothing is added to a batch: what a batch handler sends to the database is about as long. */
const BATCH_BYTES = 2 * 1024 * 1024;

/**
 * As many as are ready for each of the batches that may begin now, and each lane's messages in order. Those of one batch are handled
 * in one way.
 *
 * @param ready lanes whose head may begin; those that are taken are removed
 * @param free how many batches may begin
 */
export function takeBatch(
  ready: Set<Lane>,
  free: number,
  { batchSize, batchHandlerSize = batchSize }: BatchLimits,
): Batch {
  const batch: Batch = { lanes: [], messages: [] };
  const fairSize = Math.ceil(ready.size / free);
  let [first, bytes, most]: [Delivery | undefined, number, number] = [undefined, 0, batchSize];
  for (const lane of ready) {
    const head = lane.queue[0]!;
    if (!first) [first, most] = [head, head.batchHandler ? batchHandlerSize : batchSize];
    else if (!isHandledLike(head, first)) continue;
    ready.delete(lane);
    batch.lanes.push(lane);
    let next: Delivery | undefined = head;
    do {
      batch.messages.push(next);
      bytes += next.bytes;
      next = lane.queue[++lane.taken];
    } while (next && isHandledLike(next, first) && batch.messages.length < most && bytes < BATCH_BYTES);
    if (!first.isBatchable || batch.messages.length >= Math.min(fairSize, most) || bytes >= BATCH_BYTES)
      break;
  }
  return batch;
}

/** True where two messages may be handled in one batch. */
const isHandledLike = (one: Delivery, other: Delivery): boolean =>
  one.isBatchable && other.isBatchable && one.batchHandler === other.batchHandler;
