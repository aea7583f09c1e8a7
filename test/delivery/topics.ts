import { type Admin, type IHeaders, Kafka, logLevel, type Message } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { partitionOfKey } from '../../src/messaging/kafka/protocol/key-partition.js';
import { createTopics } from '../support/kafka.js';
import { type Compression, type RawRecord, sendRaw } from '../support/raw-records.js';
import { ALL_CODECS } from './codecs.js';

export const COMMANDS = 'people.commands';
export const EVENTS = 'people.events';
export const REPLIES = 'check-replies';
export const DEAD_LETTERS = 'people.commands-dlt';

export interface Received {
  topic: string;
  key: string;
  value: string;
  headers: IHeaders;
}

/** Whoever waits longer finds out why in the end. */
const CATCH_UP_MS = 60_000;

/** Per partition: how far the group has come, and where the topic ends. */
export type Progress = Map<number, { committed: number; end: number }>;

/** The check's own way to Kafka, which outlives brokers. */
export class Topics {
  /** How often something had to be sent again. */
  sentAgain = 0;
  private isClosed = false;
  private batches = 0;
  private readonly read = new Map<string, bigint>();

  private constructor(
    private readonly kafka: Kafka,
    private readonly admin: Admin,
    private readonly broker: string,
    private readonly partitions: number,
    private readonly groupId: string,
  ) {}

  static async open(port: number, groupId: string, topics: Record<string, number>): Promise<Topics> {
    const kafka = new Kafka({
      brokers: [`127.0.0.1:${port}`],
      clientId: 'check',
      logLevel: logLevel.NOTHING,
    });
    const admin = kafka.admin();
    await admin.connect();
    for (const [topic, numPartitions] of Object.entries(topics))
      await createTopics(admin, [topic], numPartitions);
    return new Topics(kafka, admin, `127.0.0.1:${port}`, topics[COMMANDS]!, groupId);
  }

  /** In their order, as often as it takes. */
  async send(messages: Message[]): Promise<void> {
    const compression = ALL_CODECS[this.batches++ % ALL_CODECS.length]!;
    const shares = new Map<number, RawRecord[]>();
    for (const { key, value, headers = {} } of messages) {
      const partition = partitionOfKey(Buffer.from(key!), this.partitions);
      const record = { key: key!, value, headers: pairsOf(headers) };
      shares.set(partition, [...(shares.get(partition) ?? []), record]);
    }
    await Promise.all(
      [...shares].map(([partition, records]) => this.sendTo(partition, records, compression)),
    );
  }

  private async sendTo(partition: number, records: RawRecord[], compression: Compression): Promise<void> {
    for (;;) {
      try {
        await sendRaw(this.broker, COMMANDS, records, compression, partition);
        return;
      } catch (error) {
        if (this.isClosed) throw error;
        this.sentAgain++;
        await sleep(100);
      }
    }
  }

  /** @throws when the broker is away */
  async progress(): Promise<Progress> {
    const [ends, [group]] = await Promise.all([
      this.admin.fetchTopicOffsets(COMMANDS),
      this.admin.fetchOffsets({ groupId: this.groupId, topics: [COMMANDS] }),
    ]);
    const committed = new Map(group!.partitions.map(({ partition, offset }) => [partition, Number(offset)]));
    return new Map(
      ends.map(({ partition, high }) => [
        partition,
        { committed: Math.max(0, committed.get(partition) ?? 0), end: Number(high) },
      ]),
    );
  }

  /** Messages that the group has not committed. */
  async lag(): Promise<number> {
    const progress = await this.progress();
    return [...progress.values()].reduce((sum, { committed, end }) => sum + end - committed, 0);
  }

  /** Until each partition has come to where its end is now; not for ever. */
  async untilCaughtUp(): Promise<void> {
    const deadline = Date.now() + CATCH_UP_MS;
    let ends: Progress | undefined;
    while (Date.now() < deadline) {
      const progress = await this.progress().catch(() => undefined);
      ends ??= progress;
      const isThere = ([partition, { end }]: [number, { end: number }]) =>
        progress!.get(partition)!.committed >= end;
      if (progress && [...ends!].every(isThere)) return;
      await sleep(100);
    }
  }

  /** What has come to `topic` since this was last asked, in the order of its partitions. */
  async readOn(topic: string): Promise<Received[]> {
    const ends = new Map(
      (await this.admin.fetchTopicOffsets(topic)).map(({ partition, high }) => [partition, BigInt(high)]),
    );
    const place = (partition: number) => `${topic} ${partition}`;
    const positionOf = (partition: number) => this.read.get(place(partition)) ?? 0n;
    const isOver = () => [...ends].every(([partition, end]) => positionOf(partition) >= end);
    const received: Received[] = [];
    if (isOver()) return received;
    const consumer = this.kafka.consumer({ groupId: `reader-${randomUUID()}`, maxWaitTimeInMs: 100 });
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    await new Promise<void>((resolve, reject) => {
      const eachMessage = async ({ partition, message }: { partition: number; message: KafkaRecord }) => {
        if (BigInt(message.offset) < positionOf(partition)) return;
        this.read.set(place(partition), BigInt(message.offset) + 1n);
        const { key, value, headers = {} } = message;
        received.push({ topic, key: String(key), value: String(value), headers });
        if (isOver()) resolve();
      };
      consumer.run({ autoCommit: false, eachMessage }).catch(reject);
      for (const partition of ends.keys())
        consumer.seek({ topic, partition, offset: String(positionOf(partition)) });
    });
    await consumer.disconnect();
    return received;
  }

  async close(): Promise<void> {
    this.isClosed = true;
    await this.admin.disconnect();
  }
}

/** As a record has them: one that is sent more than once stands there as often. */
const pairsOf = (headers: IHeaders): NonNullable<RawRecord['headers']> =>
  Object.entries(headers).flatMap(([name, value]) =>
    [value ?? null].flat().map((each): [string, Buffer | string | null] => [name, each]),
  );

interface KafkaRecord {
  offset: string;
  key: Buffer | null;
  value: Buffer | null;
  headers?: IHeaders;
}
