import fc from 'fast-check';
import type { Delivery } from '../../src/messaging/delivery.js';
import type { Lane } from '../../src/messaging/consuming/lane.js';
import type { LaneToPark } from '../../src/messaging/dead-letters/lane-store.js';
import { MessageLanes } from '../../src/messaging/consuming/lanes.js';

type Numbered = Delivery & { n: number };

/** Lanes whose messages end, and are stored, when the test says so. */
class World {
  readonly sent: Numbered[] = [];
  readonly handled: Numbered[] = [];
  readonly stored: Numbered[] = [];
  readonly running = new Set<Numbered>();
  /** Stored while they ran. */
  readonly open = new Set<Numbered>();
  /** What may not happen, told at the end: whoever is called back must not throw. */
  readonly wrong: string[] = [];
  batches: { batch: Numbered[]; end: (done: number) => void }[] = [];
  leaving: { lane: LaneToPark; end: (isStored: boolean) => void }[] = [];
  readonly lanes: MessageLanes;

  constructor(concurrency: number, batchSize: number) {
    this.lanes = new MessageLanes({ concurrency, batchSize });
    this.lanes.start({
      handle: (batch, settle) =>
        new Promise((resolve) => {
          for (const delivery of batch as Numbered[]) this.begins(delivery);
          const end = (done: number) => {
            batch.forEach((delivery, index) => this.ends(delivery as Numbered, index < done, settle));
            resolve();
          };
          this.batches.push({ batch: batch as Numbered[], end });
        }),
    });
  }

  private readonly park = (lane: LaneToPark): Promise<ReadonlySet<Delivery>> =>
    new Promise((resolve) => {
      const end = (isStored: boolean) => {
        if (isStored) for (const delivery of lane.messages) this.store(delivery as Numbered, lane);
        resolve(new Set(isStored ? lane.messages : []));
      };
      this.leaving.push({ lane, end });
    });

  send(key: number): void {
    const delivery = { laneKey: String(key), n: this.sent.length, isBatchable: true, bytes: 1, attempts: 0 };
    this.sent.push(delivery as unknown as Numbered);
    this.lanes.add(delivery as unknown as Numbered);
  }

  leave(which: number): void {
    const all: Lane[] = this.lanes.all;
    const lane = all[which % Math.max(1, all.length)];
    // The store takes nothing for a while after it has failed.
    if (lane) void this.lanes.park(lane, this.park);
  }

  async end(which: number, done: number): Promise<void> {
    const [batch] = this.batches.splice(which % Math.max(1, this.batches.length), 1);
    batch?.end(done % (batch.batch.length + 1));
    await turn();
  }

  async endLeaving(which: number, isStored: boolean): Promise<void> {
    const [leaving] = this.leaving.splice(which % Math.max(1, this.leaving.length), 1);
    leaving?.end(isStored);
    await turn();
  }

  async finish(): Promise<void> {
    do {
      for (const { end } of this.leaving.splice(0)) end(true);
      for (const { batch, end } of this.batches.splice(0)) end(batch.length);
      for (let n = 0; n < 3; n++) await turn();
    } while (this.batches.length + this.leaving.length > 0);
  }

  private begins(delivery: Numbered): void {
    if (this.handled.includes(delivery)) this.wrong.push(`${delivery.n} is handled twice`);
    // What was put aside before it began is the store's; what was while it ran is tried again here until it is put back.
    if (this.stored.includes(delivery) && !this.open.has(delivery))
      this.wrong.push(`${delivery.n} begins, and stands in the store`);
    this.running.add(delivery);
  }

  private ends(
    delivery: Numbered,
    isDone: boolean,
    settle: (delivery: Delivery, how: 'done' | { retryInMs: number }) => void,
  ) {
    this.running.delete(delivery);
    if (!isDone) {
      delivery.attempts++;
      return settle(delivery, { retryInMs: 0 });
    }
    // In order: whatever was sent before it is handled, or stands in the store before it.
    const before = this.sent.filter(({ laneKey, n }) => laneKey === delivery.laneKey && n < delivery.n);
    if (!this.stored.includes(delivery))
      expect(before.filter((each) => !this.handled.includes(each) && !this.stored.includes(each))).toEqual(
        [],
      );
    this.handled.push(delivery);
    settle(delivery, 'done');
  }

  private store(delivery: Numbered, lane: LaneToPark): void {
    expect(lane.isRunning(delivery)).toBe(this.running.has(delivery));
    if (lane.isRunning(delivery)) this.open.add(delivery);
    else this.open.delete(delivery);
    if (this.handled.includes(delivery)) return;
    const last = this.stored.filter(({ laneKey }) => laneKey === delivery.laneKey).at(-1);
    if (!this.stored.includes(delivery)) {
      expect(delivery.n).toBeGreaterThan(last?.n ?? -1);
      this.stored.push(delivery);
    }
  }
}

const turn = () => new Promise((resolve) => setTimeout(resolve, 1));

it('lanes that are put aside at any time: each message is handled or stored, in the order of its key, and none that is stored begins', async () => {
  const nat = fc.nat(20);
  const step = fc.oneof(
    fc.record({ send: fc.nat(2) }),
    fc.record({ end: nat, done: nat }),
    fc.record({ leave: nat }),
    fc.record({ endLeaving: nat, isStored: fc.boolean() }),
  );
  const sizes = fc.integer({ min: 1, max: 4 });
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 60 }),
      sizes,
      sizes,
      async (steps, concurrency, batchSize) => {
        const world = new World(concurrency, batchSize);
        for (const each of steps) {
          if ('send' in each) world.send(each.send);
          else if ('end' in each) await world.end(each.end, each.done);
          else if ('leave' in each) world.leave(each.leave);
          else await world.endLeaving(each.endLeaving, each.isStored);
        }
        await world.finish();
        const done = new Set([...world.handled, ...world.stored]);
        expect(world.sent.filter((delivery) => !done.has(delivery))).toEqual([]);
        await world.lanes.untilIdle();
        expect(world.wrong).toEqual([]);
      },
    ),
    { numRuns: 300 },
  );
});
