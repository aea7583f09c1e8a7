import {
  type ICustomPartitioner,
  type IHeaders,
  type Kafka,
  type Producer,
  type ProducerBatch,
  type TopicMessages,
} from 'kafkajs';
import {
  type KafkaProducer,
  type OutgoingRecord,
  type RecordHeaders,
  RecordRefusedError,
} from '../kafka-driver.js';
import { partitionOfKey } from '../key-partition.js';
import { causesOf } from './kafkajs.errors.js';

const ABOUT_TOPICS =
  /does not host this topic-partition|no leader for this topic|topic.*invalid|invalid topic/i;
const REFUSED =
  /^(UNKNOWN_TOPIC_OR_PARTITION|INVALID_TOPIC_EXCEPTION|TOPIC_AUTHORIZATION_FAILED|INVALID_RECORD)$/;
/** Brokers take a batch of 1 MiB by default. */
const CHUNK_BYTES = 768 * 1024;
/** More than what surrounds a key, value or header. */
const OVERHEAD_BYTES = 16;
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
    for (const chunk of chunksOf(records)) await this.sendChunk(chunk);
  }

  private async sendChunk(records: readonly OutgoingRecord[]): Promise<void> {
    try {
      await this.sendAtOnce(records);
    } catch (error) {
      // The topic may take less at once than brokers do by default.
      if (!(error instanceof RecordRefusedError && error.isTooLarge) || records.length === 1) throw error;
      const half = records.length >> 1;
      await this.sendChunk(records.slice(0, half));
      await this.sendChunk(records.slice(half));
    }
  }

  private async sendAtOnce(records: readonly OutgoingRecord[]): Promise<void> {
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
    createPartitioner,
  });
  await producer.connect();
  return producer;
}

/** As kafkajs' default, whose hash takes time that grows with the square of the key's length. */
const createPartitioner: ICustomPartitioner = () => {
  let turn = Math.floor(Math.random() * 1024);
  return ({ partitionMetadata, message: { partition, key } }) => {
    if (partition !== undefined && partition !== null) return partition;
    if (key !== undefined && key !== null) return partitionOfKey(Buffer.from(key), partitionMetadata.length);
    const led = partitionMetadata.filter(({ leader }) => leader >= 0);
    const among = led.length > 0 ? led : partitionMetadata;
    return among[turn++ % among.length]!.partitionId;
  };
};

/** In order, none larger than a broker takes by default: kafkajs makes one batch of all that it is given for a partition. */
function* chunksOf(records: readonly OutgoingRecord[]): Generator<OutgoingRecord[]> {
  let chunk: OutgoingRecord[] = [];
  let bytes = 0;
  for (const record of records) {
    const size = sizeOf(record);
    if (chunk.length > 0 && bytes + size > CHUNK_BYTES) {
      yield chunk;
      [chunk, bytes] = [[], 0];
    }
    chunk.push(record);
    bytes += size;
  }
  if (chunk.length > 0) yield chunk;
}

function sizeOf({ key, value, headers = {} }: OutgoingRecord): number {
  const parts = [key, value, ...Object.entries(headers).flat(2)];
  return parts.reduce((sum: number, part) => sum + Buffer.byteLength(part ?? '') + OVERHEAD_BYTES, 0);
}

function withoutUndefined(headers: RecordHeaders): IHeaders {
  const isThere = ([, value]: [string, RecordHeaders[string]]) => value !== undefined;
  // fromEntries, as a header may have the name __proto__.
  return Object.fromEntries(Object.entries(headers).filter(isThere));
}

function byTopic(records: readonly OutgoingRecord[]): TopicMessages[] {
  const topics = new Map<string, TopicMessages['messages']>();
  for (const { topic, key = null, value, headers, partition } of records) {
    const messages = topics.get(topic) ?? [];
    messages.push({
      key,
      value,
      ...(headers && { headers: withoutUndefined(headers) }),
      ...(partition !== undefined && { partition }),
    });
    topics.set(topic, messages);
  }
  return [...topics].map(([topic, messages]) => ({ topic, messages }));
}

const isAboutTopics = (error: unknown) =>
  causesOf(error).some(
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
