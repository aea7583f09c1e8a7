import type { BatchHandler } from '../../src/messaging/consuming/batch-handlers.js';
import { HandledApartError } from '../../src/messaging/consuming/batch-handlers.js';
import { MessageProcessor } from '../../src/messaging/consuming/processor.js';
import type { Delivery } from '../../src/messaging/delivery.js';
import type { MessageStore } from '../../src/messaging/message-store.js';

const MESSAGES = 256;

/** What of a unit of work a batch asks for. */
const store = {
  transactions: { run: (_options: object, work: (transaction: object) => Promise<unknown>) => work({ atCommit: () => undefined }) },
  inbox: { claim: () => undefined },
} as unknown as MessageStore; // prettier-ignore

// @trap many messages about one thing, each of whose effects makes the next one fail together with the others
it('a chain of messages that are handled apart does not have the rest of the batch rolled back for each of them', async () => {
  const alone: bigint[] = [];
  const done: bigint[] = [];
  let rolledBack = 0;
  const batchHandler: BatchHandler = async (messages) => async () => {
    rolledBack += messages.length;
    throw new HandledApartError(new Set([0]));
  };
  const processor = new MessageProcessor({
    store,
    calls: {
      call: async ({ record }) => {
        alone.push(record.offset);
        return [];
      },
    },
    handlerTimeoutMs: 10_000,
    finish: () => undefined,
    failures: { isForgotten: () => false } as never,
    quarantine: undefined,
    crashes: undefined,
  });
  const batch = Array.from({ length: MESSAGES }, (_, offset) => ({
    record: { topic: 't', partition: 0, offset: BigInt(offset), key: null, headers: {} },
    message: { messageId: String(offset) },
    laneKey: 't 0',
    isBatchable: true,
    batchHandler,
    attempts: 0,
  })) as unknown as Delivery[];
  await processor.handle(batch, ({ record }) => void done.push(record.offset));
  // In the order of their lane, each once.
  const inOrder = batch.map(({ record }) => record.offset);
  expect([alone, done]).toEqual([inOrder, inOrder]);
  // Once for each of them it would be as many as half of its square.
  expect(rolledBack).toBeLessThan(20 * MESSAGES);
});
