import { AsyncResource } from 'node:async_hooks';

/** Calls of one kind that may share a statement. */
export interface SharedCalls<Item, Result> {
  /** For one that is alone: its own statement is the cheaper one. */
  one(item: Item): Promise<Result>;
  /** @returns the results in the order of the items */
  many(items: readonly Item[]): Promise<readonly Result[]>;
  /** True where an error is about one of the items, so that the others are tried without it. */
  isOfOne(error: unknown): boolean;
  /** Items of one key are not in one batch. */
  keyOf?(item: Item): string;
}

interface Waiting<Item, Result> {
  item: Item;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
}

/** Batches that are under way at once: with one the server would wait for this process between two. */
const AT_ONCE = 2;
/** Items of a batch at most: more share no more of a statement's cost. */
const MOST = 64;

/**
 * What arrives together travels together: calls that come while batches are under way form the next one. There is no timer, so one
 * that is alone is sent at once.
 */
export class Batches<Item, Result> extends AsyncResource {
  private waiting: Waiting<Item, Result>[] = [];
  private underWay = 0;
  private isDue = false;

  constructor(private readonly calls: SharedCalls<Item, Result>) {
    super('nestjs-people:batches');
  }

  add(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ item, resolve, reject });
      this.goOn();
    });
  }

  private goOn(): void {
    if (this.isDue || this.waiting.length === 0 || this.underWay >= AT_ONCE) return;
    this.isDue = true;
    // Beside a batch that is under way there is time to see what else this turn of the event loop brings.
    if (this.underWay === 0) queueMicrotask(this.next);
    else setImmediate(this.next);
  }

  /** In no caller's context: what is sent is of several. */
  private readonly next = () =>
    this.runInAsyncScope(() => {
      this.isDue = false;
      const batch = this.take();
      this.underWay++;
      void this.send(batch).then(() => {
        this.underWay--;
        this.goOn();
      });
      this.goOn();
    });

  /** Those that came first, of each key one. */
  private take(): Waiting<Item, Result>[] {
    const { keyOf } = this.calls;
    if (!keyOf) return this.waiting.splice(0, MOST);
    const keys = new Set<string>();
    const batch: Waiting<Item, Result>[] = [];
    const left: Waiting<Item, Result>[] = [];
    for (const each of this.waiting) {
      const key = keyOf(each.item);
      const isTaken = batch.length < MOST && !keys.has(key);
      keys.add(key);
      (isTaken ? batch : left).push(each);
    }
    this.waiting = left;
    return batch;
  }

  /** A batch that fails because of one of its items is sent again by halves. Never rejects. */
  private async send(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    try {
      const [first] = batch;
      if (batch.length === 1) return first!.resolve(await this.calls.one(first!.item));
      const results = await this.calls.many(batch.map(({ item }) => item));
      batch.forEach(({ resolve }, index) => resolve(results[index]!));
    } catch (error) {
      if (batch.length === 1 || !this.calls.isOfOne(error))
        return batch.forEach(({ reject }) => reject(error));
      const half = batch.length >> 1;
      await Promise.all([this.send(batch.slice(0, half)), this.send(batch.slice(half))]);
    }
  }
}
