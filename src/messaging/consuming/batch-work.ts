import type { Delivery } from '../delivery.js';
import type { HandledApartError } from './batch-handlers.js';

/** Gives the values for each message of a batch. */
export type BatchWork = () => Promise<unknown[][]>;

/**
 * Has the batch handler of a batch read its messages.
 *
 * @returns undefined where they are not to be handled together
 * @throws as `BatchHandler`
 */
export async function readTogether(
  batch: readonly Delivery[],
  skipsLocked: boolean,
): Promise<BatchWork | undefined> {
  const { batchHandler } = batch[0]!;
  if (!batchHandler || batch.length === 1) return undefined;
  const messages = batch.map(({ record, replyTo }) => ({ record, isAnswered: replyTo !== undefined }));
  const apply = await batchHandler(messages, { skipsLocked });
  if (!apply) return undefined;
  return async () => {
    const values = await apply();
    return batch.map(({ replyTo }, place) => (replyTo ? [values[place]] : []));
  };
}

/**
 * A batch of which some messages are handled apart: the others, and what comes after them, in parts. A message that stands behind
 * one of those in its lane comes after it.
 */
export function withoutApart(batch: readonly Delivery[], { places }: HandledApartError): Delivery[][] {
  const lanes = new Set<string>();
  const together: Delivery[] = [];
  const after: Delivery[][] = [];
  let isAlone = true;
  for (const [place, delivery] of batch.entries()) {
    const isApart = places.has(place);
    if (!isApart && !lanes.has(delivery.laneKey)) together.push(delivery);
    else {
      lanes.add(delivery.laneKey);
      if (isApart || isAlone) after.push([]);
      after.at(-1)!.push(delivery);
      isAlone = isApart;
    }
  }
  return [together, ...after];
}

/** The same where it is not known which of them fails, or too many do. */
export function halvesOf(batch: readonly Delivery[]): Delivery[][] {
  const half = Math.ceil(batch.length / 2);
  return [batch.slice(0, half), batch.slice(half)];
}
