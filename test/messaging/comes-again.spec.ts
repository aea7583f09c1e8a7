import { Logger } from '@nestjs/common';
import type { Delivery } from '../../src/messaging/delivery.js';
import type { IncomingRecord } from '../../src/messaging/kafka-driver.js';
import { MessageIntake } from '../../src/messaging/kafka/intake.js';
import { MessageLanes, type Settle } from '../../src/messaging/consuming/lanes.js';

const WHERE = { topic: 't', partition: 0 };
const recordOf = (offset: number): IncomingRecord => ({
  ...{ ...WHERE, offset: BigInt(offset), timestamp: '1' },
  ...{ key: Buffer.from('k'), value: null, headers: {} },
});

/** Messages of one key on their way, whose batches end when the test says so. */
function start() {
  const begun: { batch: Delivery[]; settle: Settle; end: () => void }[] = [];
  const lanes = new MessageLanes({ concurrency: 2, batchSize: 10 });
  lanes.start({ handle: (batch, settle) => new Promise<void>((end) => begun.push({ batch, settle, end })) });
  const intake = new MessageIntake({
    ...{ limits: { messages: 100, bytes: 1e6 }, logger: new Logger(), lanes },
    consumer: () => undefined,
    toDelivery: (record) =>
      ({
        record,
        laneKey: 'k',
        isBatchable: true,
        bytes: 1,
        attempts: 0,
        assignment: 0,
      }) as unknown as Delivery,
  });
  const fetch = (...offsets: number[]) =>
    intake.records({
      ...WHERE,
      records: offsets.map(recordOf),
      nextOffset: BigInt(Math.max(...offsets) + 1),
    });
  return { intake, begun, fetch };
}
const offsetsOf = (batch: readonly Delivery[]) => batch.map(({ record }) => Number(record.offset));
const turn = () => new Promise((resolve) => setImmediate(resolve));

it('messages that come again while they are being handled wait behind these, and none passes one that is forgotten', async () => {
  const { intake, begun, fetch } = start();
  intake.assigned([WHERE]);
  fetch(1);
  fetch(2, 3);
  begun[0]!.settle(begun[0]!.batch[0]!, 'done');
  intake.done(begun[0]!.batch[0]!);
  begun[0]!.end();
  await turn();
  const [two, three] = begun[1]!.batch;
  expect(offsetsOf(begun[1]!.batch)).toEqual([2, 3]);
  intake.assigned([WHERE]);
  // The first has failed before it came again, and whether the second is to be handled is asked afterwards.
  expect(intake.held.isForgotten(two!)).toBe(true);
  fetch(2, 3);
  expect(intake.held.isForgotten(three!)).toBe(true);
  for (const delivery of begun[1]!.batch) begun[1]!.settle(delivery, 'done');
  begun[1]!.end();
  await turn();
  expect(offsetsOf(begun[2]!.batch)).toEqual([2, 3]);
  expect(begun[2]!.batch.some((delivery) => intake.held.wasHandledBefore(delivery))).toBe(false);
});

it('one that was handled by the time it came again is not handled once more, and its offset moves', async () => {
  const { intake, begun, fetch } = start();
  intake.assigned([WHERE]);
  fetch(1);
  intake.assigned([WHERE]);
  fetch(1, 2);
  const [{ batch, settle, end }] = begun as [(typeof begun)[0]];
  batch[0]!.outcome = 'handled';
  intake.done(batch[0]!);
  settle(batch[0]!, 'done');
  end();
  await turn();
  const [again, next] = begun[1]!.batch;
  expect([again, next].map((delivery) => intake.held.wasHandledBefore(delivery!))).toEqual([true, false]);
  intake.done(next!);
  expect(intake.held.size).toBe(0);
});
