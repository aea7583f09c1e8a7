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

  /** Sends `share` messages, and more of them should they be gone before `over`. */
  async sendDuring(over: Promise<unknown>, share: number): Promise<void> {
    let isOver = false;
    const ended = over.finally(() => (isOver = true));
    const end = this.position + Math.floor(share);
    const burst = this.position + share / 2;
    const atOnce = Math.max(1, Math.ceil(((share / 2) * EVERY_MS) / SPREAD_MS));
    while (!isOver && this.left > 0) {
      await this.send(this.position < burst ? BATCH : atOnce);
      if (this.position >= burst) await Promise.race([ended, pause(EVERY_MS)]);
    }
    while (this.position < end) await this.send(Math.min(BATCH, end - this.position));
    await ended;
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

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
