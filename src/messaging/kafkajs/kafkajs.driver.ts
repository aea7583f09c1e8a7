import type { Logger } from '@nestjs/common';
import { type Admin, Kafka, type KafkaConfig, type logCreator, logLevel } from 'kafkajs';
import {
  type ConsumerListener,
  type ConsumerSettings,
  type KafkaClientSettings,
  type KafkaConsumer,
  type KafkaDriver,
  type KafkaProducer,
  replicationOf,
  type TopicPartition,
  type TopicSettings,
} from '../kafka-driver.js';
import { RECORD_LIMITS } from '../record-limits.js';
import { KafkajsConsumer } from './kafkajs.consumer.js';
import { causesOf } from './kafkajs.errors.js';
import { readRecordsOurselves } from './kafkajs.fetched.js';
import { KafkajsProducer } from './kafkajs.producer.js';

/** Less than kafkajs' own 30 s: closing waits for the answers of a broker that hangs. */
const REQUEST_TIMEOUT_MS = 10_000;
const RETRIES = 2;
const OUT_OF_RANGE = /^Offset out of range, resetting/;

/** kafkajs 2.2 behind the driver's interface. */
export class KafkajsDriver implements KafkaDriver {
  readonly raw: Kafka;

  constructor(
    private readonly settings: KafkaClientSettings,
    private readonly logger: Logger,
  ) {
    this.raw = this.newClient();
  }

  async createMissingTopics(topics: readonly string[], settings: TopicSettings): Promise<void> {
    await this.withAdmin(async (admin) => {
      const existing = new Set(await admin.listTopics());
      const missing = [...new Set(topics)].filter((topic) => !existing.has(topic));
      if (missing.length === 0) return;
      const { brokers } = await admin.describeCluster();
      const replicationFactor = replicationOf(settings, brokers.length);
      try {
        // Resolves with false when another instance was faster, which is as good.
        await admin.createTopics({
          topics: missing.map((topic) => ({ topic, numPartitions: settings.partitions, replicationFactor })),
          waitForLeaders: true,
        });
      } catch (cause) {
        const reasons = causesOf(cause).map(({ topic, message }) =>
          topic ? `${topic}: ${message}` : message,
        );
        throw new Error(`Topics could not be created: ${reasons.join('; ')}`, { cause });
      }
    });
  }

  async consume(settings: ConsumerSettings, listener: ConsumerListener): Promise<KafkaConsumer> {
    // A client of its own, as only the log tells that an offset is out of range.
    const client = this.newClient((where) => consumer.outOfRange(where));
    readRecordsOurselves(client, settings.limits ?? RECORD_LIMITS);
    const consumer = new KafkajsConsumer(client, settings, listener, (use) => this.withAdmin(use));
    await consumer.start();
    return consumer;
  }

  async producer(): Promise<KafkaProducer> {
    const producer = new KafkajsProducer(this.raw);
    await producer.connect();
    return producer;
  }

  private async withAdmin<T>(use: (admin: Admin) => Promise<T>): Promise<T> {
    const admin = this.raw.admin();
    await admin.connect();
    try {
      return await use(admin);
    } finally {
      await admin.disconnect();
    }
  }

  private newClient(onOutOfRange: (where: TopicPartition) => void = () => undefined): Kafka {
    const { brokers, clientId, ssl, sasl } = this.settings;
    return new Kafka({
      brokers,
      ...(clientId && { clientId }),
      ...(ssl !== undefined && { ssl }),
      ...(sasl && { sasl: sasl as KafkaConfig['sasl'] }),
      requestTimeout: REQUEST_TIMEOUT_MS,
      // Whoever needs it tries again, and must be able to stop in between.
      retry: { retries: RETRIES },
      logCreator: logTo(this.logger, onOutOfRange),
    });
  }
}

/** kafkajs' own reports, as fields; what it calls errors it mostly tries again. */
function logTo(logger: Logger, onOutOfRange: (where: TopicPartition) => void): logCreator {
  return () =>
    ({ level, namespace, log: { message, ...fields } }) => {
      const entry = { msg: message, part: namespace, ...fields };
      if (level <= logLevel.WARN) logger.warn(entry);
      else if (level === logLevel.INFO) logger.debug(entry);
      else logger.verbose(entry);
      if (OUT_OF_RANGE.test(message)) onOutOfRange(fields as unknown as TopicPartition);
    };
}
