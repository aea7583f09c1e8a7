import {
  type Admin,
  type Consumer,
  type IHeaders,
  type KafkaJSProtocolError,
  type KafkaMessage,
  Kafka,
  logLevel,
  type Message,
  type Producer,
} from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { eventually } from './barrier.js';
import { type PeopleApp, startPeopleApp } from './people-app.js';
import type { TestDatabase } from './test-database.js';

/** Those of the run's Kafka. */
export const brokers = () => process.env.TEST_KAFKA_BROKERS!.split(',');
export const broker = () => brokers()[0]!;

export interface Reply {
  /** The reply's value as text; null for none. */
  value: string | null;
  /** The parsed `kafka_nest-err`, when the handler failed. */
  error:
    | { code: string; message: string; retryable: boolean; errors?: { pointer: string; detail: string }[] }
    | undefined;
}

/** What an answer tells went wrong; null where nothing did. */
export const errorOf = ({ headers }: KafkaMessage) =>
  JSON.parse(String(headers!['kafka_nest-err'] ?? 'null')) as { code: string; message: string } | null;

/** A foreign Kafka client: kafkajs alone, nothing of ours and nothing of Nest's. */
export class KafkaPeer {
  readonly brokers: string[];
  private readonly kafka: Kafka;
  private readonly producer: Producer;
  readonly admin: Admin;
  readonly replyTopic = `replies-${randomUUID()}`;
  private readonly waiting = new Map<string, (reply: Reply) => void>();
  private readonly consumers: Consumer[] = [];

  /** @param to left out: the run's Kafka */
  constructor(to = brokers()) {
    this.brokers = to;
    this.kafka = new Kafka({ brokers: to, clientId: 'peer', logLevel: logLevel.NOTHING });
    this.producer = this.kafka.producer();
    this.admin = this.kafka.admin();
  }

  async connect(): Promise<void> {
    await Promise.all([this.producer.connect(), this.admin.connect()]);
    await this.createTopics([this.replyTopic]);
    await this.consume([this.replyTopic], ({ headers, value }) => {
      const id = String(headers?.kafka_correlationId);
      const error = headers?.['kafka_nest-err'];
      this.waiting.get(id)?.({ value: value?.toString() ?? null, error: error && JSON.parse(String(error)) });
      this.waiting.delete(id);
    });
  }

  /** Sends without asking for a reply. */
  async emit(topic: string, message: Message): Promise<void> {
    await this.producer.send({ topic, messages: [message] });
  }

  async emitAll(topic: string, messages: Message[]): Promise<void> {
    await this.producer.send({ topic, messages });
  }

  /** Sends and waits for the reply. */
  async ask(topic: string, value: Message['value'], message: Partial<Message> = {}): Promise<Reply> {
    const { id, reply } = this.awaitReply();
    const headers: IHeaders = {
      kafka_correlationId: id,
      kafka_replyTopic: this.replyTopic,
      ...message.headers,
    };
    await this.producer.send({ topic, messages: [{ ...message, value, headers }] });
    return reply;
  }

  /** For a request that is sent in some other way, with this correlation id and `replyTopic`. */
  awaitReply(): { id: string; reply: Promise<Reply> } {
    const id = randomUUID();
    return { id, reply: new Promise<Reply>((resolve) => this.waiting.set(id, resolve)) };
  }

  /** Hands every message of `topics` to `take`, from the first one there is. */
  async consume(
    topics: string[],
    take: (message: KafkaMessage & { topic: string; partition: number }) => void,
  ): Promise<Consumer> {
    const consumer = this.kafka.consumer({ groupId: `peer-${randomUUID()}`, maxWaitTimeInMs: 100 });
    this.consumers.push(consumer);
    await consumer.connect();
    await consumer.subscribe({ topics, fromBeginning: true });
    await consumer.run({
      eachMessage: async ({ topic, partition, message }) => take({ ...message, topic, partition }),
    });
    return consumer;
  }

  /** Resolves once they can be written to and read. */
  createTopics(topics: string[], numPartitions = 1): Promise<void> {
    return createTopics(this.admin, topics, numPartitions);
  }

  /** Removes the topics of the service: they are the same for every test file. */
  async deleteTopics(): Promise<void> {
    const ours = (await this.admin.listTopics()).filter((topic) => topic.startsWith('people.'));
    if (ours.length > 0) await this.admin.deleteTopics({ topics: ours });
    await eventually(
      async () => !(await this.admin.listTopics()).some((topic) => topic.startsWith('people.')),
    );
  }

  async close(): Promise<void> {
    await Promise.all(this.consumers.map((consumer) => consumer.disconnect()));
    await this.producer.disconnect();
    await this.admin.deleteTopics({ topics: [this.replyTopic] });
    await this.admin.disconnect();
  }
}

/** @param to left out: the run's Kafka */
export async function connectPeer(to?: string[]): Promise<KafkaPeer> {
  const peer = new KafkaPeer(to);
  await peer.connect();
  return peer;
}

/**
 * Creates topics, and resolves once each has its leaders. kafkajs' own `waitForLeaders` throws when the broker that it asks has
 * not heard yet of what the controller has just created.
 */
export async function createTopics(admin: Admin, topics: string[], numPartitions = 1): Promise<void> {
  await admin.createTopics({
    topics: topics.map((topic) => ({ topic, numPartitions })),
    waitForLeaders: false,
  });
  await eventually(async () => {
    try {
      const found = await admin.fetchTopicMetadata({ topics });
      return found.topics.every(({ partitions }) => partitions.every(({ leader }) => leader >= 0));
    } catch (error) {
      if ((error as KafkaJSProtocolError).retriable) return false;
      throw error;
    }
  }, 30_000);
}

/** The service with its Kafka door open, on topics and in a group of its own, once it consumes; connects `peer` first. */
export async function startKafkaApp(
  peer: KafkaPeer,
  environment: Record<string, string> = {},
  given?: TestDatabase,
): Promise<PeopleApp> {
  await peer.connect();
  await peer.deleteTopics();
  const app = await startPeopleApp(
    {
      KAFKA_BROKERS: brokers().join(','),
      KAFKA_GROUP_ID: `test-${randomUUID()}`,
      KAFKA_TOPIC_PARTITIONS: '4',
      ...environment,
    },
    given,
  );
  await eventually(async () => (await app.request('/health/ready?group=messages')).status === 200);
  return app;
}
