import { Logger } from '@nestjs/common';
import fc from 'fast-check';
import type { Delivery } from '../../src/messaging/delivery.js';
import type { CommitOffset, IncomingRecord, KafkaConsumer } from '../../src/messaging/kafka-driver.js';
import { MessageIntake } from '../../src/messaging/kafka/intake.js';
import { MessageLanes } from '../../src/messaging/consuming/lanes.js';
import { PartitionProgress } from '../../src/messaging/kafka/offsets.js';

const TOPIC = 'topic';
const PARTITIONS = [0, 1, 2];

// @trap the offset passes a message that is not done
it('the offset to commit is the lowest that is not done, in whatever order messages are done', () => {
  const offsets = fc.uniqueArray(fc.bigInt(0n, 200n), { minLength: 1 });
  fc.assert(
    fc.property(offsets, fc.infiniteStream(fc.nat()), fc.bigInt(1n, 5n), (some, random, gap) => {
      const open = some.sort((a, b) => Number(a - b));
      const next = open.at(-1)! + gap;
      const progress = new PartitionProgress();
      const half = Math.floor(open.length / 2);
      if (half > 0) progress.received(open.slice(0, half), open[half]!);
      progress.received(open.slice(half), next);
      while (open.length > 0) {
        expect(progress.watermark).toBe(open[0]);
        const [done] = open.splice(random.next().value % open.length, 1);
        progress.done(done!);
      }
      expect(progress.watermark).toBe(next);
    }),
  );
});

/** A topic, its group's offsets, and one member of the group whose messages end when the test says so. */
class World {
  readonly log = new Map(PARTITIONS.map((partition) => [partition, [] as bigint[]]));
  readonly committed = new Map(PARTITIONS.map((partition) => [partition, 0n]));
  /** By whichever member. */
  readonly handled = new Set<string>();
  owned = new Set<number>();
  readonly fetched = new Map<number, bigint>();
  running: { batch: Delivery[]; end: (done: number) => void }[] = [];
  readonly intake: MessageIntake;

  constructor(concurrency: number, batchSize: number) {
    const lanes = new MessageLanes({ concurrency, batchSize });
    lanes.start({
      handle: (batch, settle) =>
        new Promise((resolve) => {
          const end = (done: number) => {
            batch.forEach((delivery, index) => {
              if (index >= done) return settle(delivery, { retryInMs: 0 });
              const { partition, offset } = delivery.record;
              this.handled.add(`${partition} ${offset}`);
              this.intake.done(delivery);
              settle(delivery, 'done');
            });
            resolve();
          };
          this.running.push({ batch, end });
        }),
    });
    const consumer = {
      raw: undefined,
      pause: () => undefined,
      resume: () => undefined,
      close: () => Promise.resolve(),
      commit: (offsets: readonly CommitOffset[]) => Promise.resolve(offsets.forEach((at) => this.take(at))),
    } satisfies KafkaConsumer;
    this.intake = new MessageIntake({
      limits: { messages: 1000, bytes: 1e9 },
      logger: new Logger(),
      lanes,
      consumer: () => consumer,
      toDelivery: (record) =>
        ({ record, laneKey: String(record.key), isBatchable: true, bytes: 1 }) as unknown as Delivery,
    });
  }

  /** What the group keeps; a commit must be this member's to make, and must skip nothing. */
  private take({ partition, offset }: CommitOffset): void {
    expect([...this.owned]).toContain(partition);
    expect(offset).toBeGreaterThanOrEqual(this.committed.get(partition)!);
    const skipped = this.log
      .get(partition)!
      .filter((at) => at < offset && !this.handled.has(`${partition} ${at}`));
    expect(skipped).toEqual([]);
    this.committed.set(partition, offset);
  }

  assign(partitions: number[]): void {
    this.owned = new Set(partitions);
    for (const partition of partitions) this.fetched.set(partition, this.committed.get(partition)!);
    this.intake.assigned(partitions.map((partition) => ({ topic: TOPIC, partition })));
  }

  /** What was sent in the meantime, with gaps as compaction leaves them. */
  fetch(partition: number, count: number, gap: number): void {
    const log = this.log.get(partition)!;
    for (let n = 0; n < count; n++) log.push((log.at(-1) ?? -1n) + BigInt(n % gap) + 1n);
    if (!this.owned.has(partition)) return;
    const from = this.fetched.get(partition)!;
    const offsets = log.filter((offset) => offset >= from);
    const nextOffset = (log.at(-1) ?? -1n) + 1n;
    this.fetched.set(partition, nextOffset);
    const records = offsets.map(
      (offset) =>
        ({
          topic: TOPIC,
          partition,
          offset,
          key: `${partition} ${offset % 3n}`,
        }) as unknown as IncomingRecord,
    );
    this.intake.records({ topic: TOPIC, partition, records, nextOffset });
  }

  async end(which: number, done: number): Promise<void> {
    const [batch] = this.running.splice(which % Math.max(1, this.running.length), 1);
    batch?.end(done % (batch.batch.length + 1));
    await turn();
  }

  /** Another member handles what this one is not to, and commits it. */
  others(): void {
    for (const partition of PARTITIONS) {
      if (this.owned.has(partition)) continue;
      const log = this.log.get(partition)!;
      for (const offset of log) this.handled.add(`${partition} ${offset}`);
      this.committed.set(partition, (log.at(-1) ?? -1n) + 1n);
    }
  }

  async finish(): Promise<void> {
    for (const partition of this.owned) this.fetch(partition, 0, 1);
    do {
      for (const { batch, end } of this.running.splice(0)) end(batch.length);
      await turn();
      await turn();
    } while (this.running.length > 0);
    await this.intake.offsets.commit();
  }
}

/** Lets lanes go on, also those that wait to try again. */
const turn = () => new Promise((resolve) => setTimeout(resolve, 1));

// @trap partitions are shared out anew in the midst of a batch
// @trap offsets with gaps, as compaction leaves them
it('partitions that come and go while messages are held: none is committed that is another’s, goes back, or skips a message', async () => {
  const step = fc.oneof(
    fc.record({
      fetch: fc.constantFrom(...PARTITIONS),
      count: fc.nat(6),
      gap: fc.integer({ min: 1, max: 3 }),
    }),
    fc.record({ end: fc.nat(5), done: fc.nat(3) }),
    fc.record({ assign: fc.subarray(PARTITIONS) }),
    fc.constant('others' as const),
    fc.constant('commit' as const),
  );
  const sizes = fc.integer({ min: 1, max: 4 });
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 40 }),
      sizes,
      sizes,
      async (steps, concurrency, batchSize) => {
        const world = new World(concurrency, batchSize);
        world.assign(PARTITIONS);
        for (const each of steps) {
          if (each === 'commit') await world.intake.offsets.commit();
          else if (each === 'others') world.others();
          else if ('fetch' in each) world.fetch(each.fetch, each.count, each.gap);
          else if ('end' in each) await world.end(each.end, each.done);
          else world.assign(each.assign);
        }
        await world.finish();
        for (const partition of world.owned)
          expect(world.committed.get(partition)).toBe((world.log.get(partition)!.at(-1) ?? -1n) + 1n);
      },
    ),
    { numRuns: 150 },
  );
});
