import type { Message } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { REPLIES, type Topics } from '../delivery/topics.js';
import type { Asked, Ledger } from './ledger.js';

const AT_ONCE = 10;
const EVERY_MS = 200;
/** Of `AT_ONCE`, those whose sender waits for a reply. */
const REQUESTS = 2;

/** A producer whose messages create people, of which some ask for a reply, until `isOver`. */
export class MessageLoad {
  private sent = 0;
  private readonly waiting = new Map<string, Asked>();
  private readonly producer: Promise<void>;

  /** @param round names what it creates */
  constructor(
    private readonly topics: Topics,
    private readonly ledger: Ledger,
    private readonly round: string,
    private readonly isOver: () => boolean,
  ) {
    this.producer = this.run();
  }

  /** What was being sent is with the broker. */
  async ended(): Promise<void> {
    await this.producer;
  }

  /** Reads the replies, once all is handled. @returns what is wrong with them */
  async readReplies(): Promise<void> {
    for (const { headers } of await this.topics.readOn(REPLIES)) {
      const id = String(headers.kafka_correlationId);
      const asked = this.waiting.get(id);
      if (!asked) continue;
      this.waiting.delete(id);
      const error = headers['kafka_nest-err'];
      if (error === undefined) asked.outcome = 'done';
      else {
        const { code } = JSON.parse(String(error)) as { code: string };
        asked.outcome = code === 'TRANSACTION_OUTCOME_UNKNOWN' ? 'unknown' : 'refused';
        asked.told = `by message: ${code}`;
      }
    }
    for (const { change } of this.waiting.values())
      this.ledger.violations.push(`a request by message had no reply: ${change}`);
  }

  private async run(): Promise<void> {
    while (!this.isOver()) {
      const messages = Array.from({ length: AT_ONCE }, (_, n) => this.message(n < REQUESTS));
      await this.topics.send(messages);
      await sleep(EVERY_MS);
    }
  }

  /** Once it is with the broker, the effect of an event is as good as done. */
  private message(isRequest: boolean): Message {
    const name = `${this.round}-message-${this.sent++}`;
    const asked: Asked = isRequest
      ? { by: 'request by message', change: `created ${name}`, outcome: 'unknown' }
      : { by: 'message', change: `created ${name}`, outcome: 'done' };
    this.ledger.add(asked);
    const id = randomUUID();
    if (isRequest) this.waiting.set(id, asked);
    return {
      key: id,
      value: JSON.stringify({ name }),
      headers: {
        'people-operation': 'create',
        'message-id': id,
        ...(isRequest && { kafka_correlationId: id, kafka_replyTopic: REPLIES }),
      },
    };
  }
}
