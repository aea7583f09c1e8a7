import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KafkaPeer, Reply } from './kafka.js';
import { readRaw } from './raw-reader.js';

/** What a test's requests need of whoever gets their replies. */
export type Replies = Pick<KafkaPeer, 'brokers' | 'replyTopic' | 'awaitReply' | 'deleteTopics'>;

const EVERY_MS = 100;

/** Reads replies by itself, from whichever broker has them: a library's consumer may be what takes its time when one goes. */
export class ReplyReader implements Replies {
  readonly replyTopic = `replies-${randomUUID()}`;
  private readonly waiting = new Map<string, (reply: Reply) => void>();
  private isClosed = false;
  private reading: Promise<void> | undefined;

  constructor(private readonly peer: KafkaPeer) {}

  get brokers(): string[] {
    return this.peer.brokers;
  }

  async open(): Promise<void> {
    await this.peer.createTopics([this.replyTopic]);
    this.reading = this.read();
  }

  awaitReply(): { id: string; reply: Promise<Reply> } {
    const id = randomUUID();
    return { id, reply: new Promise<Reply>((resolve) => this.waiting.set(id, resolve)) };
  }

  deleteTopics(): Promise<void> {
    return this.peer.deleteTopics();
  }

  async close(): Promise<void> {
    this.isClosed = true;
    await this.reading;
  }

  private async read(): Promise<void> {
    while (!this.isClosed) {
      await sleep(EVERY_MS);
      if (this.waiting.size === 0) continue;
      for (const broker of this.brokers) {
        const found = await readRaw(broker, this.replyTopic, 0).catch(() => []);
        for (const { headers, value } of found) {
          const header = (name: string) => headers.find(([key]) => key.toString() === name)?.[1]?.toString();
          const [id, error] = [header('kafka_correlationId') ?? '', header('kafka_nest-err')];
          this.waiting.get(id)?.({ value: value?.toString() ?? null, error: error ? (JSON.parse(error) as Reply['error']) : undefined }); // prettier-ignore
          this.waiting.delete(id);
        }
      }
    }
  }
}
