import type { DataSource } from 'typeorm';
import type { IncomingRecord } from '../records/record.js';

/** A message as a batch handler is given it. */
export interface BatchMessage {
  record: IncomingRecord;
  /** True when the sender waits for an answer. */
  isAnswered: boolean;
}

/**
 * Handles messages together, in place of Nest's handler of their topics, which would be called for each.
 *
 * Reads the messages, before anything is begun for them, and gives what applies them in the unit of work that is around its call:
 * with what Nest's handler would have answered to each, in the order of the messages. Where the unit runs again, it is called again.
 * Those of one key stand in their order. undefined: they are to be handled one after another, by Nest's handler.
 *
 * With `skipsLocked` it waits for nobody's lock that it can do without: messages whose rows are locked are handled apart. It is given once
 * the same messages have waited in vain.
 *
 * @throws HandledApartError, from either, for messages that are not as easy as the others
 * @throws anything else for a failure whose cause is not known: the messages are then handled by halves
 */
export type BatchHandler = (
  messages: readonly BatchMessage[],
  options: { skipsLocked: boolean },
) => Promise<(() => Promise<readonly unknown[]>) | undefined>;

/**
 * Some messages of a batch are to be handled each by itself, by Nest's handler: it refuses them, or does what a batch handler does
 * not. Nothing of the batch is applied then; the others are handled together again, without them.
 */
export class HandledApartError extends Error {
  override readonly name = 'HandledApartError';

  /** @param places of those messages in the batch */
  constructor(readonly places: ReadonlySet<number>) {
    super('Messages of a batch have to be handled by themselves.');
  }
}

const offered = new WeakMap<DataSource, Map<string, BatchHandler>>();

/** Offers a batch handler to transports whose store is on this DataSource, and which take them (`batchHandlers`). */
export function offerBatchHandler(
  dataSource: DataSource,
  topics: readonly string[],
  handler: BatchHandler,
): void {
  let handlers = offered.get(dataSource);
  if (!handlers) offered.set(dataSource, (handlers = new Map<string, BatchHandler>()));
  for (const topic of topics) handlers.set(topic, handler);
}

export const batchHandlerOf = (dataSource: DataSource, topic: string): BatchHandler | undefined =>
  offered.get(dataSource)?.get(topic);
