import { type Kafka, Partitioners, type Producer, type ProducerRecord, type RecordMetadata } from 'kafkajs';

/**
 * Sends replies to topics that come and go with their clients.
 *
 * A kafkajs producer asks for every topic it ever sent to whenever it meets a new one, and fails when one of them is gone
 * since; so replies have a producer of their own, which is replaced when that happens, and never makes a topic.
 */
export class ReplyProducer {
  private current: Promise<Producer> | undefined;

  constructor(private readonly kafka: Kafka) {}

  /** @throws KafkaJSError the topic does not exist, or the brokers can't be reached */
  async send(record: ProducerRecord): Promise<RecordMetadata[]> {
    const used = (this.current ??= this.connect());
    try {
      return await (await used).send(record);
    } catch (error) {
      // One that failed is replaced by whoever notices first; the others find its successor.
      if (this.current === used) {
        this.current = this.connect();
        await disconnect(used);
      }
      if (!isAboutTopics(error)) throw error;
      return (await this.current).send(record);
    }
  }

  async close(): Promise<void> {
    const { current } = this;
    this.current = undefined;
    if (current) await disconnect(current);
  }

  private async connect(): Promise<Producer> {
    const producer = this.kafka.producer({
      allowAutoTopicCreation: false,
      createPartitioner: Partitioners.DefaultPartitioner,
      retry: { retries: 2 },
    });
    await producer.connect();
    return producer;
  }
}

/** A producer that never connected has nothing to disconnect. */
async function disconnect(producer: Promise<Producer>): Promise<void> {
  await producer.then(
    (connected) => connected.disconnect(),
    () => undefined,
  );
}

const isAboutTopics = (error: unknown) =>
  /does not host this topic-partition|no leader for this topic/i.test(String((error as Error).message));
