import { randomUUID } from 'node:crypto';
import {
  CommitRefusedError,
  type ConsumerListener,
  type ConsumerSettings,
  type IncomingRecord,
  type KafkaConsumer,
  type KafkaDriver,
  type RecordBatch,
  type TopicPartition,
} from '../../src/messaging/kafka-driver.js';
import { eventually } from '../support/barrier.js';

/** Joining a group waits for its other members, and for sessions of those that are gone. */
const PATIENCE_MS = 40_000;

export interface MemberOptions extends Partial<ConsumerSettings> {
  driver?: KafkaDriver;
  /** Commits what has come whenever `revoking` is told. */
  commitsWhenRevoking?: boolean;
}

/** A member of a group that keeps all it is told. */
export class Member implements ConsumerListener {
  consumer!: KafkaConsumer;
  /** `assigned <count>` and `revoking`, in order. */
  readonly events: string[] = [];
  /** `events`, with `records` for each run of batches. */
  readonly log: string[] = [];
  readonly interruptions: Error[] = [];
  recoveries = 0;
  /** What became of the commits that were made when revoking. */
  readonly commits: Promise<string>[] = [];
  failure: Error | undefined;
  private readonly batches: RecordBatch[] = [];
  private current: TopicPartition[] = [];

  private constructor(
    readonly groupId: string,
    private readonly commitsWhenRevoking: boolean,
  ) {}

  static async join(
    driver: KafkaDriver,
    { commitsWhenRevoking, ...settings }: MemberOptions,
  ): Promise<Member> {
    const groupId = settings.groupId ?? `contract-${randomUUID()}`;
    const member = new Member(groupId, commitsWhenRevoking ?? false);
    member.consumer = await driver.consume(
      {
        topics: [],
        sessionTimeoutMs: 6_000,
        heartbeatIntervalMs: 300,
        fetchWaitMs: 100,
        fetchMaxBytes: 5 * 1024 * 1024,
        fromBeginning: true,
        onOffsetOutOfRange: 'stop',
        ...settings,
        groupId,
      },
      member,
    );
    return member;
  }

  assigned(partitions: TopicPartition[]): void {
    this.current = partitions;
    this.tell(`assigned ${partitions.length}`);
  }

  revoking(): void {
    this.tell('revoking');
    if (!this.commitsWhenRevoking) return;
    const offsets = this.current.map((at) => ({
      ...at,
      offset: this.nextOffset(at.topic, at.partition) ?? 0n,
    }));
    this.commits.push(
      this.consumer.commit(offsets).then(
        () => 'committed',
        (error: unknown) => (error instanceof CommitRefusedError ? 'refused' : String(error)),
      ),
    );
  }

  records(batch?: undefined): IncomingRecord[];
  records(batch: RecordBatch): void;
  records(batch?: RecordBatch): IncomingRecord[] | void {
    if (!batch) return this.batches.flatMap(({ records }) => records);
    if (this.log.at(-1) !== 'records') this.log.push('records');
    this.batches.push(batch);
  }

  interrupted(reason: Error): void {
    this.interruptions.push(reason);
  }

  recovered(): void {
    this.recoveries++;
  }

  failed(reason: Error): void {
    this.failure = reason;
  }

  /** What is this member's now. */
  partitions(): TopicPartition[] {
    return this.current;
  }

  /** The values that have come, of one partition when told. */
  values(topic?: string, partition?: number): string[] {
    return this.records()
      .filter((record) => topic === undefined || (record.topic === topic && record.partition === partition))
      .map(({ value }) => String(value));
  }

  nextOffset(topic: string, partition = 0): bigint | undefined {
    return this.batches.findLast((batch) => batch.topic === topic && batch.partition === partition)
      ?.nextOffset;
  }

  /** Records that did not come behind the one before them, in a topic without transactions. */
  gaps(): IncomingRecord[] {
    const expected = new Map<string, bigint>();
    return this.records().filter(({ topic, partition, offset }) => {
      const key = `${topic}:${partition}`;
      const isGap = offset !== (expected.get(key) ?? offset);
      expected.set(key, offset + 1n);
      return isGap;
    });
  }

  async assignedTo(count: number): Promise<void> {
    await this.until(
      () => this.events.at(-1) === `assigned ${count}`,
      `the assignment of ${count} partitions`,
    );
  }

  async received(count: number): Promise<void> {
    await this.until(() => this.records().length >= count, `${count} records`);
  }

  async close(): Promise<void> {
    await this.consumer.close();
  }

  private tell(event: string): void {
    this.events.push(event);
    this.log.push(event);
  }

  private async until(condition: () => boolean, what: string): Promise<void> {
    await eventually(condition, PATIENCE_MS).catch((cause: unknown) => {
      const seen = { log: this.log, records: this.records().length, failure: this.failure };
      throw new Error(`Waited in vain for ${what}: ${JSON.stringify(seen)} ${this.interruptions.join()}`, {
        cause,
      });
    });
  }
}
