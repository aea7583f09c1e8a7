import type { Logger } from '@nestjs/common';
import type { MessageLanes } from '../consuming/lanes.js';
import type { LaneOverflow } from '../consuming/overflow.js';
import type { RestoredDatabase } from '../consuming/restored-database.js';
import { DEAD_LETTER_SUFFIX } from '../dead-letters/letter.js';
import type { KeyQuarantine } from '../dead-letters/quarantine.js';
import type { StoreUpkeep } from '../dead-letters/store-upkeep.js';
import type { CrashSuspects } from '../dead-letters/suspects.js';
import {
  type ConsumerListener,
  type KafkaDriver,
  OffsetOutOfRangeError,
  type StuckPartition,
} from '../kafka-driver.js';
import type { OutboxRelay } from '../outbox-relay.js';
import type { RecordBatch, TopicPartition } from '../records/record.js';
import type { WindowReplays } from '../replaying/window-replays.js';
import { ClosingSteps, endsWithin, pause } from '../waiting.js';
import type { Availability } from './availability.js';
import { BrokerAnswerError } from './broker-answers.js';
import type { ConnectedClients, NestServer } from './handler-calls.js';
import type { MessageIntake } from './intake.js';
import type { MessageReplies } from './replies/sending.js';
import { TopicUpkeep } from './topic-upkeep.js';
import type { TransportSettings } from './transport-options.js';

/** What is connected, and told what comes. Without a store there is none of the last six. */
export interface ConnectionParts {
  settings: TransportSettings;
  server: NestServer;
  logger: Logger;
  /** Aborted when stopping begins. */
  stopping: AbortController;
  clients: ConnectedClients;
  lanes: MessageLanes;
  intake: MessageIntake;
  overflow: LaneOverflow;
  replies: MessageReplies;
  availability: Availability;
  quarantine: KeyQuarantine | undefined;
  crashes: CrashSuspects | undefined;
  upkeep: StoreUpkeep | undefined;
  relay: OutboxRelay | undefined;
  replays: WindowReplays | undefined;
  restored: RestoredDatabase | undefined;
}

const RECONNECT_MS = 1000;
const HEARTBEAT_MS = 1000;
/** How long a fetch waits for messages, and so how long stopping may take. */
const FETCH_WAIT_MS = 250;
const FETCH_BYTES = 4 * 1024 * 1024;
const COMMIT_EVERY_MS = 250;

/** Connects the clients, again and again until the brokers can be reached, hands on what they tell, and closes them. */
export class KafkaConnection implements ConsumerListener {
  /** Messages that did not end before the deadline of stopping. */
  unfinished = 0;
  /** Steps of stopping that did not end before its deadline. */
  unfinishedSteps: readonly string[] = [];
  private driver: KafkaDriver | undefined;
  private starting: Promise<void> | undefined;
  private stopped: Promise<void> | undefined;
  /** Set once it is closed for good. */
  private closing: ClosingSteps | undefined;
  private committing: NodeJS.Timeout | undefined;
  private topicUpkeep: TopicUpkeep | undefined;

  constructor(private readonly parts: ConnectionParts) {}

  /** The library's own client, consumer and producer; undefined before `start`. */
  get raw(): unknown[] | undefined {
    const { consumer, producer } = this.parts.clients;
    return this.driver && [this.driver.raw, consumer?.raw, producer?.raw];
  }

  /** Connects in the background. */
  start(driver: KafkaDriver): void {
    this.driver = this.parts.clients.driver = driver;
    this.starting = this.connect(driver);
  }

  /** Finishes the messages that run, commits their offsets, leaves the group, and sends what is in the outbox. */
  stop(): Promise<void> {
    return (this.stopped ??= this.drain());
  }

  assigned(partitions: TopicPartition[]): void {
    const { intake, availability, quarantine, crashes, restored } = this.parts;
    this.parts.logger.log({ msg: 'messages are consumed', partitions: partitions.length });
    intake.assigned(partitions);
    availability.isUp();
    quarantine?.assigned();
    crashes?.assigned();
    restored?.assigned(partitions);
  }

  revoking(): void {
    this.parts.logger.log('the group shares out its partitions anew');
    void this.parts.intake.offsets.commit();
  }

  records(batch: RecordBatch): void {
    this.parts.intake.records(batch);
  }

  interrupted(reason: Error): void {
    this.parts.availability.isInterrupted(reason);
  }

  recovered(): void {
    this.parts.availability.isUp();
  }

  stuck(partitions: readonly StuckPartition[]): void {
    this.parts.availability.stuck = partitions;
    if (partitions.some(({ partition }) => partition < 0)) this.topicUpkeep?.suspect();
  }

  failed(reason: Error): void {
    const { availability, stopping, logger } = this.parts;
    availability.down = reason.message;
    const isOver = reason instanceof OffsetOutOfRangeError || stopping.signal.aborted;
    if (isOver) logger.error({ msg: 'messages are not consumed any more', err: reason });
    else availability.isDown('messages are not consumed; connecting anew', reason);
    this.starting = this.disconnect().then(() => (isOver ? undefined : this.connect(this.driver!)));
  }

  private async connect(driver: KafkaDriver): Promise<void> {
    const { availability, stopping } = this.parts;
    while (!stopping.signal.aborted) {
      try {
        await this.connectOnce(driver);
        return;
      } catch (error) {
        const isRefused = error instanceof BrokerAnswerError;
        const what = isRefused ? 'Kafka refuses what this application asks for' : 'Kafka cannot be reached';
        availability.isDown(`${what}; it is tried again`, error as Error);
        await this.disconnect();
        await pause(RECONNECT_MS, stopping.signal);
      }
    }
  }

  private async connectOnce(driver: KafkaDriver): Promise<void> {
    const { settings, server, clients, intake, upkeep, relay, stopping, logger } = this.parts;
    const { groupId, sessionTimeoutMs, onOffsetOutOfRange, limits, eventTopics = [] } = settings;
    const patterns = server.patterns();
    const topics = patterns.filter((pattern) => typeof pattern === 'string');
    const deadLetters = topics.map((topic) => `${topic}${DEAD_LETTER_SUFFIX}`);
    this.topicUpkeep = new TopicUpkeep({
      driver,
      topics: [...topics, ...deadLetters, ...eventTopics],
      settings: settings.topics,
      logger,
    });
    await this.topicUpkeep.createMissing();
    clients.producer = await driver.producer();
    if (relay) {
      clients.relayProducer = await driver.producer();
      relay.start();
    }
    clients.consumer = await driver.consume(
      {
        ...{ groupId, topics: patterns, sessionTimeoutMs, onOffsetOutOfRange, limits },
        heartbeatIntervalMs: HEARTBEAT_MS,
        fetchWaitMs: FETCH_WAIT_MS,
        fetchMaxBytes: FETCH_BYTES,
        // A group that is new takes what was sent before it came.
        fromBeginning: true,
      },
      this,
    );
    // Stopping has begun meanwhile, and closes what was connected here.
    if (stopping.signal.aborted) return;
    this.committing = setInterval(() => void intake.offsets.commit(), COMMIT_EVERY_MS);
    this.topicUpkeep.start();
    upkeep?.start();
  }

  private async drain(): Promise<void> {
    const { settings, stopping, lanes, intake, overflow, replies, upkeep, relay, logger } = this.parts;
    const { drainTimeoutMs, closeTimeoutMs, store } = settings;
    stopping.abort();
    store?.transactions.stopsSoon();
    const since = performance.now();
    const closing = (this.closing = new ClosingSteps(drainTimeoutMs + closeTimeoutMs));
    this.unfinishedSteps = closing.unfinished;
    const { starting } = this;
    const replaying = this.parts.replays?.stop();
    await this.attempt('connecting', starting);
    overflow.stop();
    intake.suspend();
    intake.drop();
    const idle = lanes.untilIdle().then(() => replies.untilSent());
    if (!(await endsWithin(drainTimeoutMs - (performance.now() - since), idle))) {
      this.unfinished = intake.held.size;
      logger.error({
        msg: 'Messages did not end in time; they stay uncommitted, and come again',
        messages: this.unfinished,
      });
    }
    await this.attempt('ending the replay of a window', replaying);
    await this.attempt('committing offsets', intake.offsets.commit());
    await this.attempt('ending what is done for the store', upkeep?.stop());
    await this.disconnect(() => relay?.stop(closing.nextStepMs));
    // If connecting ends after the deadline, what it has connected is closed then.
    if (closing.unfinished.includes('connecting'))
      starting?.then(() => this.disconnect()).catch((err: unknown) => this.report(err));
  }

  /** Closes the clients. A failure to do so is logged, and keeps nobody from connecting anew. */
  private async disconnect(between?: () => Promise<void> | undefined): Promise<void> {
    const { clients, intake, upkeep, availability } = this.parts;
    clearInterval(this.committing);
    this.topicUpkeep?.stop();
    upkeep?.pause();
    const { consumer, producer, relayProducer } = clients;
    clients.consumer = undefined;
    intake.reset();
    availability.stuck = [];
    await this.attempt('leaving the group', consumer?.close());
    await this.attempt('sending what is in the outbox', between?.());
    clients.producer = clients.relayProducer = undefined;
    await this.attempt('closing the producer of replies', producer?.close());
    await this.attempt('closing the producer of events', relayProducer?.close());
  }

  /** Waits for a step; while stopping, no longer than the time that is meant for it. */
  private async attempt(name: string, step: Promise<void> | undefined): Promise<void> {
    if (!step) return;
    try {
      if (!this.closing) await step;
      else if (!(await this.closing.end(name, step)))
        this.parts.logger.error({
          msg: 'a step of stopping did not end in time; it is left to itself',
          step: name,
        });
    } catch (err) {
      this.report(err);
    }
  }

  private report(err: unknown): void {
    this.parts.logger.warn({ msg: 'a step of disconnecting failed', err });
  }
}
