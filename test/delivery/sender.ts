import { setTimeout as sleep } from 'node:timers/promises';
import type { Message } from 'kafkajs';
import type { Topics } from './topics.js';

const BATCH = 100;
const EVERY_MS = 100;
/** Over about this long a share is spread, after a first half that comes at once. */
const SPREAD_MS = 12_000;

/** Sends messages in their order: one batch is with the broker before the next one leaves. */
export class Sender {
  private position = 0;

  constructor(
    private readonly topics: Topics,
    private readonly messages: Message[],
  ) {}

  get left(): number {
    return this.messages.length - this.position;
  }

  /**
   * Sends `share` messages: half of them at once, the rest in a while, and slowly more of them, but for `reserve`, should they
   * be gone before `over`.
   */
  async sendDuring(over: Promise<unknown>, share: number, reserve = 0): Promise<void> {
    let isOver = false;
    const ended = over.finally(() => (isOver = true));
    const [burst, end] = [this.position + share / 2, this.position + Math.floor(share)];
    const atOnce = Math.max(1, Math.ceil(((share / 2) * EVERY_MS) / SPREAD_MS));
    while (!isOver && this.left > reserve) {
      const isBurst = this.position < burst;
      const sending = this.send(isBurst ? BATCH : this.position < end ? atOnce : 1);
      // What can't be recovered ends this, too.
      await Promise.race([ended.then(() => sending), sending]);
      if (!isBurst) await Promise.race([ended, sleep(EVERY_MS)]);
    }
    while (this.position < end) await this.send(Math.min(BATCH, end - this.position));
  }

  async sendRest(): Promise<void> {
    while (this.left > 0) await this.send(BATCH);
  }

  private async send(count: number): Promise<void> {
    const batch = this.messages.slice(this.position, this.position + count);
    await this.topics.send(batch);
    this.position += batch.length;
  }
}
