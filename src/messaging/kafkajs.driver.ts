import type { Logger } from '@nestjs/common';
import {
  type Admin,
  type Consumer,
  type EachBatchPayload,
  Kafka,
  type KafkaMessage,
  type logCreator,
  logLevel,
} from 'kafkajs';
import {
  CommitRefusedError,
  type CommitOffset,
  type ConsumerListener,
  type ConsumerSettings,
  type KafkaClientSettings,
  type KafkaConsumer,
  type KafkaDriver,
  type KafkaProducer,
  OffsetOutOfRangeError,
  partitionKey,
  type TopicPartition,
  type TopicSettings,
} from './kafka-driver.js';
import { KafkajsProducer } from './kafkajs.producer.js';

const USUAL_REPLICATION = 3;
const OUT_OF_RANGE = /^Offset out of range, resetting/;
const CHECK_AGAIN_MS = 500;
const CONSUMER_RETRIES = 5;

/** kafkajs 2.2 behind the driver's interface. */
export class KafkajsDriver implements KafkaDriver {
  readonly raw: Kafka;
  /** Told what kafkajs only logs. */
  private readonly onOutOfRange = new Set<(where: TopicPartition) => void>();

  constructor({ brokers, clientId, ssl, sasl }: KafkaClientSettings, logger: Logger) {
    this.raw = new Kafka({
      brokers,
      ...(clientId && { clientId }),
      ...(ssl !== undefined && { ssl }),
      ...(sasl && { sasl: sasl as { mechanism: 'plain'; username: string; password: string } }),
      logCreator: this.logTo(logger),
    });
  }

  async createMissingTopics(topics: readonly string[], settings: TopicSettings): Promise<void> {
    await this.withAdmin(async (admin) => {
      const existing = new Set(await admin.listTopics());
      const missing = topics.filter((topic) => !existing.has(topic));
      if (missing.length === 0) return;
      const { brokers } = await admin.describeCluster();
      const replicationFactor = settings.replication ?? Math.min(USUAL_REPLICATION, brokers.length);
      // Resolves with false when another instance was faster, which is as good.
      await admin.createTopics({
        topics: missing.map((topic) => ({ topic, numPartitions: settings.partitions, replicationFactor })),
        waitForLeaders: true,
      });
    });
  }

  async consume(settings: ConsumerSettings, listener: ConsumerListener): Promise<KafkaConsumer> {
    const consumer = new KafkajsConsumer(this.raw, settings, listener, (use) => this.withAdmin(use));
    const onOutOfRange = (where: TopicPartition) => void consumer.fetchedOutOfRange(where);
    this.onOutOfRange.add(onOutOfRange);
    consumer.whenClosed = () => this.onOutOfRange.delete(onOutOfRange);
    try {
      await consumer.start();
    } catch (error) {
      await consumer.close();
      throw error;
    }
    return consumer;
  }

  async producer(): Promise<KafkaProducer> {
    const producer = new KafkajsProducer(this.raw);
    await producer.connect();
    return producer;
  }

  private async withAdmin<T>(use: (admin: Admin) => Promise<T>): Promise<T> {
    // Whoever needs it tries again, and must be able to stop in between.
    const admin = this.raw.admin({ retry: { retries: 1 } });
    await admin.connect();
    try {
      return await use(admin);
    } finally {
      await admin.disconnect();
    }
  }

  /** kafkajs' own reports, as fields; what it calls errors it mostly tries again. */
  private logTo(logger: Logger): logCreator {
    return () =>
      ({ level, namespace, log: { message, ...fields } }) => {
        const entry = { msg: message, part: namespace, ...fields };
        if (level <= logLevel.WARN) logger.warn(entry);
        else if (level === logLevel.INFO) logger.debug(entry);
        else logger.verbose(entry);
        if (!OUT_OF_RANGE.test(message)) return;
        const { topic, partition } = fields as unknown as TopicPartition;
        for (const tell of this.onOutOfRange) tell({ topic, partition });
      };
  }
}

class KafkajsConsumer implements KafkaConsumer {
  readonly raw: Consumer;
  whenClosed: () => void = () => undefined;
  /** The next offset of each assigned partition, as far as known. */
  private next = new Map<string, bigint | undefined>();
  private readonly paused = new Set<string>();
  private assignment = 0;
  private checking: Promise<void> | undefined;
  private closing: Promise<void> | undefined;
  private isRunning = false;
  /** What kept it from starting: `run()` resolves all the same. */
  private crash: Error | undefined;
  private hasFailed = false;

  constructor(
    kafka: Kafka,
    private readonly settings: ConsumerSettings,
    private readonly listener: ConsumerListener,
    private readonly withAdmin: <T>(use: (admin: Admin) => Promise<T>) => Promise<T>,
  ) {
    const { groupId, sessionTimeoutMs, heartbeatIntervalMs, fetchWaitMs, fetchMaxBytes } = settings;
    this.raw = kafka.consumer({
      groupId,
      sessionTimeout: sessionTimeoutMs,
      heartbeatInterval: heartbeatIntervalMs,
      maxWaitTimeInMs: fetchWaitMs,
      maxBytes: fetchMaxBytes,
      maxBytesPerPartition: fetchMaxBytes,
      allowAutoTopicCreation: false,
      // Left to itself it may start once more while it is closed, and stay in the group for ever.
      retry: { retries: CONSUMER_RETRIES, restartOnFailure: () => Promise.resolve(false) },
    });
  }

  async start(): Promise<void> {
    const { raw, settings, listener } = this;
    const { GROUP_JOIN, REBALANCING, CRASH, END_BATCH_PROCESS } = raw.events;
    raw.on(GROUP_JOIN, ({ payload }) => this.joined(payload.memberAssignment));
    raw.on(REBALANCING, () => listener.revoking());
    raw.on(CRASH, ({ payload: { error } }) => {
      if (this.isRunning) this.fail(error);
      else this.crash = error;
    });
    // A batch of control records alone reaches no handler.
    raw.on(END_BATCH_PROCESS, ({ payload: { topic, partition, batchSize, lastOffset } }) => {
      if (batchSize === 0) this.deliver({ topic, partition }, [], BigInt(lastOffset) + 1n);
    });
    await raw.connect();
    await raw.subscribe({ topics: settings.topics, fromBeginning: settings.fromBeginning });
    await raw.run({
      autoCommit: false,
      eachBatch: (payload) => this.eachBatch(payload),
      // A fetch is handed over at once, whatever the number of its partitions.
      partitionsConsumedConcurrently: 1000,
    });
    if (this.crash) throw this.crash;
    this.isRunning = true;
  }

  pause(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) this.paused.add(partitionKey(partition));
    this.raw.pause(byTopic(partitions));
  }

  resume(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) this.paused.delete(partitionKey(partition));
    this.raw.resume(byTopic(partitions));
  }

  async commit(offsets: readonly CommitOffset[]): Promise<void> {
    try {
      await this.raw.commitOffsets(offsets.map((at) => ({ ...at, offset: String(at.offset) })));
    } catch (cause) {
      const { type = '', message } = cause as Error & { type?: string };
      if (/^(REBALANCE_IN_PROGRESS|UNKNOWN_MEMBER_ID|ILLEGAL_GENERATION|FENCED_INSTANCE_ID)$/.test(type))
        throw new CommitRefusedError(message, { cause });
      throw cause;
    }
  }

  close(): Promise<void> {
    return (this.closing ??= this.closeOnce());
  }

  private async closeOnce(): Promise<void> {
    this.whenClosed();
    await this.raw.disconnect();
    await this.checking;
  }

  /** Told while kafkajs goes on with its default offset, which it commits at once. */
  async fetchedOutOfRange(where: TopicPartition): Promise<void> {
    const next = this.next.get(partitionKey(where));
    if (!this.next.has(partitionKey(where)) || this.hasFailed) return;
    const { onOffsetOutOfRange: policy, groupId } = this.settings;
    if (policy === 'earliest') return;
    if (policy === 'latest') return this.raw.seek({ ...where, offset: '-1' });
    this.fail(new OffsetOutOfRangeError(where, groupId, `the offset ${next ?? ''} is not there.`));
  }

  private joined(assignment: Record<string, number[]>): void {
    const partitions = Object.entries(assignment).flatMap(([topic, numbers]) =>
      numbers.map((partition) => ({ topic, partition })),
    );
    this.assignment++;
    this.next = new Map(partitions.map((partition) => [partitionKey(partition), undefined]));
    for (const key of this.paused) if (!this.next.has(key)) this.paused.delete(key);
    // Nothing is fetched before it is known that the group's offsets are there: kafkajs would skip in silence.
    this.raw.pause(byTopic(partitions));
    this.listener.assigned(partitions);
    const before = this.checking;
    const check = this.checkOffsets(partitions, this.assignment);
    this.checking = Promise.all([before, check]).then(() => undefined);
  }

  private async checkOffsets(partitions: TopicPartition[], assignment: number): Promise<void> {
    const isCurrent = () => assignment === this.assignment && !this.closing && !this.hasFailed;
    while (isCurrent()) {
      try {
        const found = await this.withAdmin((admin) => this.findOutOfRange(admin, partitions));
        if (!isCurrent()) return;
        this.goOn(partitions, found);
        return;
      } catch (error) {
        if (!isCurrent()) return;
        this.listener.interrupted(error as Error);
        await new Promise((resolve) => setTimeout(resolve, CHECK_AGAIN_MS));
      }
    }
  }

  private goOn(partitions: TopicPartition[], found: OutOfRange[]): void {
    const { onOffsetOutOfRange: policy, groupId } = this.settings;
    const [first] = found;
    if (first && policy === 'stop') {
      const where = `its offset ${first.committed} is not among those from ${first.low} to ${first.high}.`;
      return this.fail(new OffsetOutOfRangeError(first, groupId, where));
    }
    for (const { topic, partition, low, high } of found)
      this.raw.seek({ topic, partition, offset: String(policy === 'latest' ? high : low) });
    this.raw.resume(byTopic(partitions.filter((partition) => !this.paused.has(partitionKey(partition)))));
  }

  private async findOutOfRange(admin: Admin, partitions: TopicPartition[]): Promise<OutOfRange[]> {
    const found: OutOfRange[] = [];
    const { groupId } = this.settings;
    const topics = [...new Set(partitions.map(({ topic }) => topic))];
    if (topics.length === 0) return found;
    const committed = await admin.fetchOffsets({ groupId, topics });
    for (const { topic, partitions: offsets } of committed) {
      const bounds = new Map((await admin.fetchTopicOffsets(topic)).map((bound) => [bound.partition, bound]));
      for (const { partition, offset } of offsets) {
        const bound = bounds.get(partition);
        if (!bound || !this.next.has(partitionKey({ topic, partition })) || Number(offset) < 0) continue;
        const [at, low, high] = [BigInt(offset), BigInt(bound.low), BigInt(bound.high)];
        this.next.set(partitionKey({ topic, partition }), at);
        if (at < low || at > high) found.push({ topic, partition, committed: at, low, high });
      }
    }
    return found;
  }

  private async eachBatch(payload: EachBatchPayload): Promise<void> {
    const { batch } = payload;
    if (!payload.isRunning() || payload.isStale() || this.hasFailed) return;
    this.deliver(batch, batch.messages, BigInt(batch.lastOffset()) + 1n);
    await payload.heartbeat();
  }

  private deliver(where: TopicPartition, messages: readonly KafkaMessage[], nextOffset: bigint): void {
    const { topic, partition } = where;
    const key = partitionKey(where);
    if (!this.next.has(key)) return;
    const from = this.next.get(key) ?? 0n;
    if (nextOffset < from) return;
    this.next.set(key, nextOffset);
    const records = messages.map(({ offset, timestamp, key, value, headers = {} }) => ({
      ...{ topic, partition, offset: BigInt(offset), timestamp, key, value, headers },
    }));
    this.listener.records({
      topic,
      partition,
      records: records.filter(({ offset }) => offset >= from),
      nextOffset,
    });
  }

  private fail(error: Error): void {
    if (this.hasFailed || this.closing) return;
    this.hasFailed = true;
    this.listener.failed(error);
  }
}

interface OutOfRange extends TopicPartition {
  committed: bigint;
  low: bigint;
  high: bigint;
}

function byTopic(partitions: readonly TopicPartition[]): { topic: string; partitions: number[] }[] {
  const topics = new Map<string, number[]>();
  for (const { topic, partition } of partitions) topics.set(topic, [...(topics.get(topic) ?? []), partition]);
  return [...topics].map(([topic, numbers]) => ({ topic, partitions: numbers }));
}
