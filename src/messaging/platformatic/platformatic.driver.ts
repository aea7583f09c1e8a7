import type { Logger } from '@nestjs/common';
import { Admin } from '@platformatic/kafka';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type ConsumerListener,
  type ConsumerSettings,
  type KafkaClientSettings,
  type KafkaConsumer,
  type KafkaDriver,
  type KafkaProducer,
  replicationOf,
  type TopicSettings,
} from '../kafka-driver.js';
import { answerOf, clientOptions, Cluster, kafkaName, REQUEST_TIMEOUT_MS } from './platformatic.cluster.js';
import { PlatformaticConsumer } from './platformatic.consumer.js';
import { PlatformaticProducer } from './platformatic.producer.js';

const VISIBLE_MS = 10_000;
const LOOK_AGAIN_MS = 50;

/** Kafka by @platformatic/kafka: its connections, requests and formats; who asks what, and when, is decided here. */
export class PlatformaticDriver implements KafkaDriver {
  /** Connects when it is used; who uses it closes it. */
  readonly raw: Admin;

  constructor(
    private readonly settings: KafkaClientSettings,
    private readonly logger: Logger,
  ) {
    this.raw = new Admin(clientOptions(settings));
  }

  async createMissingTopics(topics: readonly string[], settings: TopicSettings): Promise<void> {
    const cluster = new Cluster(new Admin(clientOptions(this.settings)), this.settings);
    try {
      const { brokers, controllerId, topics: known } = await cluster.view(topics);
      const missing = [...new Set(topics)].filter((topic) => !known.has(topic));
      if (missing.length === 0) return;
      const wanted = missing.map((name) => ({
        name,
        numPartitions: settings.partitions,
        replicationFactor: replicationOf(settings, brokers.size),
        assignments: [],
        configs: [],
      }));
      const answer = await cluster
        .call('CreateTopics', brokers.get(controllerId), [wanted, REQUEST_TIMEOUT_MS, false])
        .catch(answerOf<'CreateTopics'>);
      const refused = answer.topics
        .filter(({ errorCode }) => errorCode !== 0 && kafkaName(errorCode) !== 'TOPIC_ALREADY_EXISTS')
        .map(({ name, errorCode, errorMessage }) => `${name}: ${errorMessage ?? kafkaName(errorCode)}`);
      if (refused.length > 0) throw new Error(`Topics could not be created: ${refused.join('; ')}`);
      await this.untilVisible(cluster, missing);
    } finally {
      await cluster.close();
    }
  }

  async consume(settings: ConsumerSettings, listener: ConsumerListener): Promise<KafkaConsumer> {
    const consumer = new PlatformaticConsumer(this.settings, settings, listener, this.logger);
    await consumer.start();
    return consumer;
  }

  async producer(): Promise<KafkaProducer> {
    const producer = new PlatformaticProducer(this.settings, this.logger);
    await producer.start();
    return producer;
  }

  /** The controller has created them; the brokers hear of it a little later. */
  private async untilVisible(cluster: Cluster, missing: readonly string[]): Promise<void> {
    const deadline = Date.now() + VISIBLE_MS;
    for (;;) {
      const { topics } = await cluster.view(missing);
      if (missing.every((name) => topics.get(name)?.leaders.every((leader) => leader !== undefined))) return;
      if (Date.now() > deadline)
        throw new Error(`Created, and not to be seen in ${VISIBLE_MS} ms: ${missing.join()}`);
      await sleep(LOOK_AGAIN_MS);
    }
  }
}
