import type { RecordRefusedError } from '../kafka-driver.js';
import { firstOf } from '../telling.js';

/** A refused record is sent again within 5 minutes; after twice that it must have been removed by somebody. */
const TOLD_FOR_MS = 600_000;

/** Topics that the brokers take nothing for: what is to be sent there waits. */
export class RefusedTopics {
  private readonly topics = new Map<string, { reason: string; at: number }>();

  refused(topic: string, { reason, message }: RecordRefusedError): void {
    if (reason === 'no-topic' || reason === 'not-allowed')
      this.topics.set(topic, { reason: message, at: performance.now() });
  }

  taken(topic: string): void {
    this.topics.delete(topic);
  }

  /** In a sentence; undefined where there is none. */
  get standstill(): string | undefined {
    const now = performance.now();
    for (const [topic, { at }] of this.topics) if (now - at > TOLD_FOR_MS) this.topics.delete(topic);
    return firstOf(
      [...this.topics].map(([topic, { reason }]) => `${topic}: what is to be sent there waits: ${reason}`),
    );
  }
}
