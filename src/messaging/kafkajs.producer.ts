import { type Kafka, Partitioners, type Producer, type ProducerBatch, type TopicMessages } from 'kafkajs';
import { type KafkaProducer, type OutgoingRecord, RecordRefusedError } from './kafka-driver.js';

const ABOUT_TOPICS =
  /does not host this topic-partition|no leader for this topic|topic.*invalid|invalid topic/i;
const REFUSED =
  /^(UNKNOWN_TOPIC_OR_PARTITION|INVALID_TOPIC_EXCEPTION|TOPIC_AUTHORIZATION_FAILED|INVALID_RECORD)$/;
const TOO_LARGE = /^(MESSAGE_TOO_LARGE|RECORD_LIST_TOO_LARGE)$/;

/**
 * A kafkajs producer asks for every topic it ever sent to whenever it meets a new one, and fails when one of them is gone
 * since; so it is replaced when that happens. It never makes a topic.
 */
export class KafkajsProducer implements KafkaProducer {
  raw: Producer | undefined;
  private current: Promise<Producer> | undefined;
  private isClosed = false;
  /** How many sends of each producer are under way. */
  private readonly sending = new Map<Producer, number>();

  constructor(private readonly kafka: Kafka) {}

  /** @throws KafkaJSError the brokers can't be reached */
  async connect(): Promise<Producer> {
    if (this.isClosed) throw new Error('The producer is closed.');
    const connecting = (this.current ??= connect(this.kafka));
    try {
      return (this.raw = await connecting);
    } catch (error) {
      if (this.current === connecting) this.current = undefined;
      throw error;
    }
  }

  async send(records: readonly OutgoingRecord[]): Promise<void> {
    if (records.length === 0) return;
    const batch = { acks: -1, topicMessages: byTopic(records) };
    const used = await this.connect();
    try {
      await this.sendBy(used, batch);
    } catch (error) {
      if (!isAboutTopics(error)) throw refusal(error) ?? error;
      await this.replace(used);
      const fresh = await this.connect();
      try {
        await this.sendBy(fresh, batch);
      } catch (again) {
        // What it has just learnt of a topic that is gone would spoil what is sent next.
        if (isAboutTopics(again)) await this.replace(fresh);
        throw refusal(again) ?? again;
      }
    }
  }

  async close(): Promise<void> {
    this.isClosed = true;
    await this.current?.then(
      (producer) => producer.disconnect(),
      () => undefined,
    );
  }

  private async sendBy(producer: Producer, batch: ProducerBatch): Promise<void> {
    this.sending.set(producer, (this.sending.get(producer) ?? 0) + 1);
    try {
      await producer.sendBatch(batch);
    } finally {
      const left = this.sending.get(producer)! - 1;
      if (left > 0) this.sending.set(producer, left);
      else this.sending.delete(producer);
      if (left === 0 && producer !== this.raw && !this.isClosed) await producer.disconnect();
    }
  }

  /** By whoever notices first; the others find its successor. It is closed once nobody sends by it. */
  private async replace(used: Producer): Promise<void> {
    if (this.raw !== used) return;
    this.raw = this.current = undefined;
    if (!this.sending.has(used)) await used.disconnect();
  }
}

async function connect(kafka: Kafka): Promise<Producer> {
  const producer = kafka.producer({
    allowAutoTopicCreation: false,
    // As Java's default, so that a key's partition is the same whoever sends.
    createPartitioner: Partitioners.DefaultPartitioner,
    retry: { retries: 2 },
  });
  await producer.connect();
  return producer;
}

function byTopic(records: readonly OutgoingRecord[]): TopicMessages[] {
  const topics = new Map<string, TopicMessages['messages']>();
  for (const { topic, key = null, value, headers, partition } of records) {
    const messages = topics.get(topic) ?? [];
    messages.push({
      key,
      value,
      ...(headers && { headers: headers }),
      ...(partition !== undefined && { partition }),
    });
    topics.set(topic, messages);
  }
  return [...topics].map(([topic, messages]) => ({ topic, messages }));
}

/** kafkajs gives up with an error that has the last failure as its cause. */
function* causesOf(error: unknown): Generator<{ type?: string; message: string }> {
  for (let at = error; at instanceof Error; at = at.cause) yield at;
}

const isAboutTopics = (error: unknown) =>
  [...causesOf(error)].some(
    ({ type, message }) => type === 'UNKNOWN_TOPIC_OR_PARTITION' || ABOUT_TOPICS.test(message),
  );

function refusal(error: unknown): RecordRefusedError | undefined {
  for (const { type = '', message } of causesOf(error)) {
    const isTooLarge = TOO_LARGE.test(type);
    if (isTooLarge || REFUSED.test(type) || ABOUT_TOPICS.test(message))
      return new RecordRefusedError(message, isTooLarge, { cause: error });
  }
  return undefined;
}
