import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type IHeaders, Kafka, logLevel, type Message } from 'kafkajs';

const TOPIC = 'people.create';
const good = (name: string) => JSON.stringify({ name });
const headers = (count: number): IHeaders =>
  Object.fromEntries(Array.from({ length: count }, (_, n) => [`h${n}`, 'x']));

/** What a producer that means no good may send; none of them is to be handled, but for those with nothing wrong but their headers. */
const BAD: readonly ((n: number) => Omit<Message, 'partition'>)[] = [
  () => ({ value: 'no JSON' }),
  () => ({ value: '['.repeat(500_000) }),
  () => ({ value: `{"name":"${'x'.repeat(100)}","${'k'.repeat(500_000)}":1}` }),
  () => ({ value: Buffer.from([0xff, 0xfe, 0]) }),
  () => ({ value: null }),
  (n) => ({ value: 'no JSON', headers: { constructor: `${n}`, toString: 'x' } }),
  () => ({ value: 'no JSON', headers: headers(2000) }),
  () => ({ value: 'no JSON', headers: { kafka_replyTopic: 'people.events', kafka_correlationId: 'x' } }),
  () => ({ value: 'no JSON', headers: { kafka_replyTopic: 'x'.repeat(10_000), kafka_correlationId: 'x' } }),
  () => ({ value: 'no JSON', headers: { 'message-id': 'x'.repeat(10_000) } }),
  () => ({ value: `{"name":${'1'.repeat(500_000)}}` }),
];

/** A flood of messages that mean no good, and beside it requests that do. */
export class BadMessages {
  sent = 0;
  answered = 0;
  private readonly waiting = new Map<string, () => void>();
  private readonly replies = `soak-replies-${randomUUID()}`;
  private stopReading = (): Promise<void> => Promise.resolve();

  constructor(
    private readonly brokers: string[],
    private readonly everyMs: number,
  ) {}

  async send(until: AbortSignal): Promise<void> {
    const kafka = new Kafka({ brokers: this.brokers, clientId: 'soak', logLevel: logLevel.NOTHING });
    const [producer, admin] = [kafka.producer({ allowAutoTopicCreation: false }), kafka.admin()];
    const consumer = kafka.consumer({ groupId: this.replies, maxWaitTimeInMs: 100 });
    await Promise.all([producer.connect(), admin.connect(), consumer.connect()]);
    this.stopReading = () => consumer.disconnect();
    await admin.createTopics({ topics: [{ topic: this.replies, numPartitions: 1 }], waitForLeaders: false });
    // Known everywhere a little later.
    await sleep(2000);
    await consumer.subscribe({ topic: this.replies, fromBeginning: true });
    await consumer.run({
      eachMessage: ({ message }) =>
        Promise.resolve(this.waiting.get(String(message.headers?.kafka_correlationId))?.()),
    });
    const partitions = (await admin.fetchTopicOffsets(TOPIC)).length;
    for (let n = 0; !until.aborted; n++) {
      const message = BAD[n % BAD.length]!(n);
      // Their place is given: kafkajs would hash large keys for long.
      const messages = [{ key: randomUUID(), ...message, partition: n % partitions }];
      if (n % 50 === 0) messages.push({ ...this.request(), partition: n % partitions });
      await producer.send({ topic: TOPIC, messages });
      this.sent++;
      await sleep(this.everyMs);
    }
    await Promise.all([producer.disconnect(), admin.disconnect()]);
  }

  /** Reads no answer any more: those to what was sent last come behind the end of the sending. */
  async close(): Promise<void> {
    await this.stopReading();
  }

  /** Requests of the bystander that have no answer yet. */
  get unanswered(): number {
    return this.waiting.size;
  }

  private request() {
    const id = randomUUID();
    this.waiting.set(id, () => {
      this.answered++;
      this.waiting.delete(id);
    });
    const address = { kafka_correlationId: id, kafka_replyTopic: this.replies };
    return { key: id, value: good(`bystander-${id}`), headers: address };
  }
}
