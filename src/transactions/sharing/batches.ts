// transactions/sharing/: Calls that arrive together share a statement.
// Promises: each call has the outcome that it would have had alone; nobody waits for others to come.
// May know: errors of transactions/ and database/; not what is sent.

import type { Span } from '@opentelemetry/api';
import { AsyncResource } from 'node:async_hooks';
import { DatabaseUnavailableError, PoolExhaustedError } from '../../database/postgres-errors.js';
import { belowSpan, inSpan, linksTo } from '../../tracing/spans.js';
import { TransactionOutcomeUnknownError, TransactionRetriesExhaustedError } from '../transaction-errors.js';
import { SharingPause } from './pause.js';
import { SpareTime } from './spare-time.js';

/** Calls of one kind that may share a statement. */
export interface SharedCalls<Item, Result> {
  /**
   * The statement of one alone, with all that is owed to it: it waits for locks, and is repeated.
   *
   * @param tried attempts that were made together with others
   * @param doubt of such an attempt: it may have been applied, so that this one is not to be told as if nothing was
   */
  alone(item: Item, tried: number, doubt?: TransactionOutcomeUnknownError): Promise<Result>;
  /**
   * One statement for several, tried once, which does not wait for the locks of others.
   *
   * @returns the results in the order of the items; undefined for one that has to be sent alone
   * @throws TransactionRetriesExhaustedError it has met a conflict
   */
  together(items: readonly Item[]): Promise<readonly (Result | undefined)[]>;
  /** True where it is harmless to send an item once more that may have been applied. */
  repeats?(item: Item): boolean;
}

interface Waiting<Item, Result> {
  item: Item;
  /** Of the caller's unit of work, where it has one. */
  span: Span | undefined;
  since: number;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
}

interface UnderWay {
  readonly since: number;
  readonly items: number;
}

/** Batches that are under way at once: with one the server would wait for this process between two. */
const AT_ONCE = 2;
/** One that takes longer does not count among them any more: a connection may be lost without a word, or a table locked. */
const SLOW_MS = 100;
/** Who was answered so short a time ago may be back. */
const IDLE_MS = 1;
/** Items of a batch at most: more share no more of a statement's cost. */
export const MOST_SHARED = 64;

/**
 * What arrives together travels together: calls that come while batches are under way form the next one. Who is alone is sent at
 * once. A batch that fails is sent again by halves and then one by one, so that each call has the outcome it would have had alone.
 */
export class Batches<Item, Result> extends AsyncResource {
  private waiting: Waiting<Item, Result>[] = [];
  /** The batches under way that count, in the order in which they began. */
  private readonly underWay: UnderWay[] = [];
  private isDue = false;
  private slow: NodeJS.Timeout | undefined;
  private readonly pause = new SharingPause();
  private readonly spareTime = new SpareTime();
  private idleSince = -Infinity;

  constructor(private readonly calls: SharedCalls<Item, Result>) {
    super('nestjs-people:batches');
  }

  add(item: Item, span?: Span): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ item, span, since: performance.now(), resolve, reject });
      this.goOn();
    });
  }

  private goOn(): void {
    if (this.isDue || this.waiting.length === 0 || !this.hasRoom()) return;
    this.isDue = true;
    // Behind what the calling code does in one go.
    process.nextTick(this.next);
  }

  /** Where there is none it is looked again once the oldest is slow: whom nobody waits behind needs no timer. */
  private hasRoom(): boolean {
    const [oldest] = this.underWay;
    if (this.underWay.length < AT_ONCE || !oldest || this.pause.isOn) return true;
    const leftMs = oldest.since + SLOW_MS - performance.now();
    if (leftMs <= 0) return this.underWay.shift() !== undefined;
    this.slow ??= setTimeout(() => {
      this.slow = undefined;
      this.goOn();
    }, leftMs);
    return false;
  }

  /** In no caller's context: what is sent is of several. */
  private readonly next = () =>
    this.runInAsyncScope(() => {
      this.isDue = false;
      const since = performance.now();
      const batch = this.waiting.splice(0, this.share(since));
      // Those who waited were told meanwhile that there is no connection.
      if (batch.length === 0) return;
      const counted = { since, items: batch.length };
      this.underWay.push(counted);
      void this.send(batch).then(() => {
        const place = this.underWay.indexOf(counted);
        if (place >= 0) this.underWay.splice(place, 1);
        if (this.underWay.length === 0) this.idleSince = performance.now();
        this.goOn();
      });
      this.goOn();
    });

  /**
   * How many of those who wait go now. Where others are under way it is not more than an even part of all: while one batch is with the
   * server this process works on another, which it could not if nearly all of them were in one. Who comes to a process that has been idle,
   * or that has no time to spare, goes with all the others.
   */
  private share(now: number): number {
    if (this.pause.isOn) return 1;
    let all = this.waiting.length;
    for (const { items } of this.underWay) all += items;
    const isIdle = this.underWay.length === 0 && now - this.idleSince > IDLE_MS;
    if (isIdle || !this.spareTime.isThere(now)) return MOST_SHARED;
    return Math.min(MOST_SHARED, Math.ceil(all / AT_ONCE));
  }

  /** Never rejects. */
  private async send(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    const since = performance.now();
    if (batch.length === 1) {
      await this.sendAlone(batch[0]!);
      this.pause.tookAlone(performance.now() - since);
      return;
    }
    const items = batch.map(({ item }) => item);
    try {
      const links = batch[0]!.span ? linksTo(batch.map(({ span }) => span)) : [];
      const results = await inSpan('shared statement', { links, isRoot: true }, () =>
        this.calls.together(items),
      );
      this.pause.tookTogether(performance.now() - since, items.length);
      const rest: Promise<void>[] = [];
      for (const [index, each] of batch.entries()) {
        const result = results[index];
        if (result === undefined) rest.push(this.sendAlone(each));
        else each.resolve(result);
      }
      if (rest.length > 0) await Promise.all(rest);
    } catch (error) {
      await this.afterFailure(batch, since, error);
    }
  }

  private async afterFailure(
    batch: readonly Waiting<Item, Result>[],
    since: number,
    error: unknown,
  ): Promise<void> {
    if (error instanceof PoolExhaustedError || error instanceof DatabaseUnavailableError) {
      // Who has waited as long as that for others to get a connection would wait as long again for none.
      const late = this.waiting.filter((each) => each.since <= since);
      this.waiting = this.waiting.filter((each) => each.since > since);
      for (const { reject } of [...batch, ...late]) reject(error);
    } else if (error instanceof TransactionOutcomeUnknownError) {
      const settle = async (each: Waiting<Item, Result>) =>
        this.calls.repeats?.(each.item) ? this.sendAlone(each, 1, error) : each.reject(error);
      await Promise.all(batch.map(settle));
    } else if (error instanceof TransactionRetriesExhaustedError) {
      await Promise.all(batch.map((each) => this.sendAlone(each, 1)));
    } else {
      this.pause.failed();
      const half = batch.length >> 1;
      await Promise.all([this.send(batch.slice(0, half)), this.send(batch.slice(half))]);
    }
  }

  private async sendAlone(
    { item, span, resolve, reject }: Waiting<Item, Result>,
    tried = 0,
    doubt?: TransactionOutcomeUnknownError,
  ): Promise<void> {
    try {
      resolve(await belowSpan(span, () => this.calls.alone(item, tried, doubt)));
    } catch (error) {
      reject(error);
    }
  }
}
