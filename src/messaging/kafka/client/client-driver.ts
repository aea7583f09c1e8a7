// messaging/kafka/client/: A Kafka client over given connections: group member, fetching, producing, the making of topics.
// Promises: what test/messaging/kafka-driver.contract asks of a driver, with any library's connections.
// May know: protocol/, `BrokerConnections` and the port; no library.

import type { Logger } from '@nestjs/common';
import type {
  ConsumerListener,
  ConsumerSettings,
  KafkaClientSettings,
  KafkaConsumer,
  KafkaDriver,
  KafkaProducer,
  RecordWindow,
  TopicSettings,
  WindowReader,
  WindowSettings,
} from '../../kafka-driver.js';
import { brokerAddress, type BrokerConnections } from '../broker-connections.js';
import { Cluster } from './cluster.js';
import { GroupConsumer } from './group-consumer.js';
import { LateAnswers } from '../../telemetry/late-answers.js';
import { RecordProducer } from './record-producer.js';
import { createMissingTopics } from './topic-creation.js';
import { windowReader } from './window-reader.js';

/** What a client library is needed for. */
export interface ClientLibrary {
  /** The library's own client object, for `unwrap()`. */
  readonly raw: unknown;
  connections(): BrokerConnections;
  /** The library's own consumer, for `KafkaContext.getConsumer()`; it is not connected. */
  consumer(groupId: string): unknown;
  /** The library's own producer, for handlers that send by it, and how it is closed. @throws Error the brokers can't be reached */
  producer(): Promise<{ raw: unknown; close: () => Promise<void> }>;
}

/**
 * Kafka by a client library: its connections, and who asks what, and when, is decided here. The libraries' own consumers end
 * or stop with the first partition, topic or record that they can't cope with, and their producers repeat what was
 * acknowledged, or keep silent about what was not.
 */
export class ClientDriver implements KafkaDriver {
  private readonly late: LateAnswers;

  constructor(
    private readonly library: ClientLibrary,
    private readonly settings: KafkaClientSettings,
    private readonly logger: Logger,
  ) {
    this.late = new LateAnswers(logger);
  }

  get raw(): unknown {
    return this.library.raw;
  }

  async createMissingTopics(topics: readonly string[], settings: TopicSettings): Promise<void> {
    const cluster = this.cluster();
    try {
      await createMissingTopics(cluster, topics, settings);
    } finally {
      cluster.close();
    }
  }

  async consume(settings: ConsumerSettings, listener: ConsumerListener): Promise<KafkaConsumer> {
    const raw = this.library.consumer(settings.groupId);
    const consumer = new GroupConsumer(raw, this.cluster(), settings, listener, this.logger);
    await consumer.start();
    return consumer;
  }

  async producer(): Promise<KafkaProducer> {
    const cluster = this.cluster();
    try {
      await cluster.view([]);
      const { raw, close } = await this.library.producer();
      return new RecordProducer(raw, cluster, this.logger, close);
    } catch (error) {
      cluster.close();
      throw error;
    }
  }

  async readWindow(window: RecordWindow, settings: WindowSettings): Promise<WindowReader> {
    const cluster = this.cluster();
    try {
      return await windowReader(cluster, window, settings);
    } catch (error) {
      cluster.close();
      throw error;
    }
  }

  private cluster(): Cluster {
    return new Cluster(this.library.connections(), this.settings.brokers.map(brokerAddress), this.late);
  }
}
