import { Logger, type OnModuleDestroy } from '@nestjs/common';
import { KafkaContext, type MessageHandler, ServerKafka } from '@nestjs/microservices';
import { lastValueFrom, type Subject, take, takeUntil, toArray } from 'rxjs';
import { InvalidInputError } from '../errors/application-error.js';
import { ClosingSteps, endsWithin } from './waiting.js';
import { CrashSuspects } from './dead-letters/suspects.js';
import { DEAD_LETTER_SUFFIX, deadLetterRecord, placeOnly, withPlaceOnly } from './dead-letters/letter.js';
import { type Delivery, laneKeyOf, replyAddressOf, sizeOf, type Undeliverable } from './delivery.js';
import { classify, describe, replyErrorOf } from './failure-policy.js';
import { type HandlerExtras, knowCall } from './consuming/handled-call.js';
import { endedInTime, TooManyValuesError } from './consuming/handler-time.js';
import { InfrastructureWait } from './consuming/infrastructure-wait.js';
import { BrokerAnswerError } from './kafka/broker-answers.js';
import { driverFactory } from './kafka/clients.js';
import {
  type KafkaConsumer,
  type KafkaDriver,
  type KafkaProducer,
  OffsetOutOfRangeError,
  RecordRefusedError,
  type StuckPartition,
} from './kafka-driver.js';
import type { IncomingRecord, RecordLimits } from './records/record.js';
import { DEFAULTS, type KafkaTransportOptions } from './kafka/transport-options.js';
import { identityOf } from './message-identity.js';
import type { MessageAnswer } from './message-answer.js';
import { messagingSettingsOf, retentionOf } from './messaging-settings.js';
import { KeyQuarantine } from './dead-letters/quarantine.js';
import { LaneOverflow } from './consuming/overflow.js';
import { MessageFailures } from './consuming/failures.js';
import { MessageIntake } from './kafka/intake.js';
import { MessageLanes } from './consuming/lanes.js';
import { MessageProcessor } from './consuming/processor.js';
import type { MessageStore } from './message-store.js';
import { MessageReplies } from './kafka/replies/sending.js';
import { RECORD_LIMITS, withinLimits } from './records/limits.js';
import { addressOfRefusal, replyRefusal, type ReplyTopics } from './kafka/replies/rules.js';
import { firstHeadersOf, unreadRecordError } from './records/unread.js';
import { rememberingFailures } from '../transactions/unit-failures.js';
import { pause } from './waiting.js';
import { RefusedTopics } from './outbox/refused-topics.js';
import { standstillOf } from './kafka/standstill.js';
import { StoreUpkeep } from './dead-letters/store-upkeep.js';
import { TopicUpkeep } from './kafka/topic-upkeep.js';
import { OutboxRelay } from './outbox-relay.js';

/** Extras of a message pattern whose messages may share a transaction: `@MessagePattern('people.create', BATCHABLE)`. */
export const BATCHABLE = { batchable: true } as const;

const RECONNECT_MS = 1000;
const HEARTBEAT_MS = 1000;
/** How long a fetch waits for messages, and so how long stopping may take. */
const FETCH_WAIT_MS = 250;
const FETCH_BYTES = 4 * 1024 * 1024;
const COMMIT_EVERY_MS = 250;

/**
 * Nest's Kafka server, with what it lacks to lose nothing: messages of one key are handled in order and those of different
 * keys side by side; the offset moves only over messages whose effect is committed and whose reply is acknowledged; what
 * can't be handled goes to `<topic>-dlt`; while the database is away nothing is fetched and the place in the group is kept;
 * missing topics are created; and a broker that is away keeps nobody from starting.
 */
export class KafkaTransport extends ServerKafka implements OnModuleDestroy {
  protected override readonly logger = new Logger(KafkaTransport.name);
  private readonly settings: KafkaTransportOptions & typeof DEFAULTS;
  private readonly stopping = new AbortController();
  private readonly lanes: MessageLanes;
  private readonly intake: MessageIntake;
  private readonly overflow: LaneOverflow;
  private readonly replies: MessageReplies;
  private readonly quarantine: KeyQuarantine | undefined;
  private readonly upkeep: StoreUpkeep | undefined;
  private readonly limits: RecordLimits;
  private driver: KafkaDriver | undefined;
  private kafkaConsumer: KafkaConsumer | undefined;
  private kafkaProducer: KafkaProducer | undefined;
  private relayProducer: KafkaProducer | undefined;
  private relay: OutboxRelay | undefined;
  private starting: Promise<void> | undefined;
  private draining: Promise<void> | undefined;
  private committing: NodeJS.Timeout | undefined;
  private knownReplyTopics: ReplyTopics | undefined;
  private left = 0;
  /** Set once it is closed for good. */
  private closing: ClosingSteps | undefined;
  private unavailable: string | undefined = 'not connected yet';
  private stuck: readonly StuckPartition[] = [];
  private topicUpkeep: TopicUpkeep | undefined;
  private readonly refusedTopics = new RefusedTopics();

  constructor(options: KafkaTransportOptions) {
    const { client, groupId, parser, serializer, deserializer } = options;
    super({
      client: { brokers: client.brokers, ...(client.clientId && { clientId: client.clientId }) },
      consumer: { groupId },
      postfixId: '',
      ...(parser && { parser }),
      ...(serializer && { serializer }),
      ...(deserializer && { deserializer }),
    });
    this.settings = { ...DEFAULTS, ...options };
    this.limits = { ...RECORD_LIMITS, ...options.limits };
    const { concurrency, batchSize, store, maxAttempts, bufferMessages, bufferBytes } = this.settings;
    const { laneMessages = Math.ceil(bufferMessages / 10), laneBytes = Math.ceil(bufferBytes / 10) } =
      options;
    if (this.settings.quarantineKeys && !store)
      throw new Error('KafkaTransport: quarantineKeys needs a store, which keeps what is parked.');
    const { sessionTimeoutMs } = this.settings;
    const retentionMs =
      options.inboxRetentionMs ?? retentionOf(store ? messagingSettingsOf(store.transactions) : {});
    const infrastructure = new InfrastructureWait({
      store,
      logger: this.logger,
      stopping: this.stopping.signal,
      suspend: () => this.intake.suspend(),
      resume: () => this.intake.resume(),
    });
    const quarantine = store && this.quarantineOf(store, infrastructure);
    const crashes = store && new CrashSuspects(store, groupId, sessionTimeoutMs);
    this.quarantine = quarantine;
    if (store && quarantine && crashes)
      this.upkeep = new StoreUpkeep({
        ...{ store, groupId, retentionMs, quarantine, crashes },
        committed: () => this.intake.committed,
        logger: this.logger,
      });
    const finish = (delivery: Delivery, answer: MessageAnswer) => {
      delivery.ended ??= 'handled';
      if (delivery.line) quarantine?.handled(delivery);
      if (delivery.parkedAs !== undefined) return;
      if (delivery.replyTo) this.replies.send(delivery, answer, () => this.intake.done(delivery));
      else this.intake.done(delivery);
    };
    const failures = new MessageFailures({
      store,
      maxAttempts,
      maxTransientAttempts: this.settings.maxTransientAttempts,
      finish,
      putAside: (delivery, error) =>
        store ? this.addDeadLetter(store, delivery, error) : this.sendDeadLetter(delivery, error),
      isForgotten: (delivery) => this.intake.isForgotten(delivery),
      isEndedBefore: (delivery) => this.intake.isEndedBefore(delivery),
      onInfrastructureFailure: (error) => infrastructure.waitFor(error),
    });
    const { handlerTimeoutMs } = this.settings;
    const call = (delivery: Delivery) =>
      endedInTime(delivery.record.topic, handlerTimeoutMs, (overdue) => this.callHandler(delivery, overdue));
    const processor = new MessageProcessor({ store, call, finish, failures, quarantine, crashes });
    this.lanes = new MessageLanes({
      concurrency,
      batchSize,
      handle: async (batch, settle) => {
        if (batch.some(({ replyTo }) => replyTo)) await this.replies.untilRoom();
        for (const delivery of batch) delivery.hasBegun = true;
        await processor.handle(batch, settle);
      },
      ...(quarantine && { putAside: (lane) => quarantine.putAside(lane) }),
      onWaiting: (lane) => this.overflow.waits(lane),
    });
    this.intake = new MessageIntake({
      limits: { messages: bufferMessages, bytes: bufferBytes },
      logger: this.logger,
      lanes: this.lanes,
      consumer: () => this.kafkaConsumer,
      toDelivery: (record) => this.toDelivery(record),
      onFull: () => this.overflow.look(),
      onAssigned: () => {
        this.unavailable = undefined;
        quarantine?.assigned();
        crashes?.assigned();
      },
      onInterrupted: (reason) => (this.unavailable = reason.message),
      onRecovered: () => (this.unavailable = undefined),
      onStuck: (partitions) => {
        this.stuck = partitions;
        if (partitions.some(({ partition }) => partition < 0)) this.topicUpkeep?.suspect();
      },
      onFailed: (reason) => this.failed(reason),
    });
    this.overflow = new LaneOverflow({
      lanes: this.lanes,
      intake: this.intake,
      limits: { messages: laneMessages, bytes: laneBytes },
      hasStore: store !== undefined,
      isParking: (delivery) => quarantine?.holds(delivery) === true,
    });
    this.replies = new MessageReplies(
      (response) => this.serializer.serialize(response as never) as never,
      () => this.kafkaProducer,
      this.stopping.signal,
      {
        timeoutMs: this.settings.replyTimeoutMs,
        bufferBytes: this.settings.replyBufferBytes,
        isReachable: () => this.unavailable === undefined,
      },
    );
  }

  /** undefined while messages are consumed and handled, else why they, or those of a topic or partition, are not. */
  get unavailableReason(): string | undefined {
    if (this.stopping.signal.aborted) return 'is stopping';
    return (
      this.unavailable ?? standstillOf(this.stuck) ?? this.refusedTopics.standstill ?? this.stalledReason
    );
  }

  /** The partitions, and whole topics (partition -1), that are not read on while the others are. */
  get stuckPartitions(): readonly StuckPartition[] {
    return this.stuck;
  }

  /** Messages that did not end before the deadline of stopping; they come again. */
  get unfinished(): number {
    return this.left;
  }

  /** Steps of stopping that did not end before its deadline, as where the brokers hang; they are left to themselves. */
  get unfinishedSteps(): readonly string[] {
    return this.closing?.unfinished ?? [];
  }

  /**
   * Connects in the background, again and again until the brokers can be reached. Calls back with an error only where the
   * client library is not installed.
   */
  override async listen(callback: (error?: unknown) => void): Promise<void> {
    const { driver, client } = this.settings;
    try {
      const create = typeof driver === 'string' ? await driverFactory(driver) : driver;
      this.driver = create(client, this.logger);
    } catch (error) {
      return callback(error);
    }
    this.starting = this.connect(this.driver);
    callback();
  }

  /** Before Nest closes clients and HTTP: handlers that run may need them. */
  async onModuleDestroy(): Promise<void> {
    await this.drain();
  }

  /** Finishes the messages that run, commits their offsets, leaves the group, and sends what is in the outbox. */
  override async close(): Promise<void> {
    await this.drain();
  }

  override unwrap<T>(): T {
    if (!this.driver) throw new Error('Not connected yet. Call startAllMicroservices() first.');
    return [this.driver.raw, this.kafkaConsumer?.raw, this.kafkaProducer?.raw] as T;
  }

  private get stalledReason(): string | undefined {
    const stalled = this.intake.stalled(this.settings.stalledAfterMs);
    if (!stalled) return undefined;
    const seconds = Math.round(stalled.forMs / 1000);
    return `${stalled.topic}, partition ${stalled.partition}: nothing was done for ${seconds} s, though messages wait`;
  }

  private async connect(driver: KafkaDriver): Promise<void> {
    while (!this.stopping.signal.aborted) {
      try {
        await this.connectOnce(driver);
        return;
      } catch (error) {
        this.unavailable = (error as Error).message;
        const isRefused = error instanceof BrokerAnswerError;
        const what = isRefused ? 'Kafka refuses what this application asks for' : 'Kafka cannot be reached';
        this.logger.warn({ msg: `${what}; trying again`, err: error });
        await this.disconnect();
        await pause(RECONNECT_MS, this.stopping.signal);
      }
    }
  }

  private async connectOnce(driver: KafkaDriver): Promise<void> {
    const { settings } = this;
    const { groupId, sessionTimeoutMs, store, onOffsetOutOfRange } = settings;
    const patterns: (string | RegExp)[] = [...this.messageHandlers.keys()];
    const topics = patterns.filter((pattern) => typeof pattern === 'string');
    const deadLetters = topics.map((topic) => `${topic}${DEAD_LETTER_SUFFIX}`);
    const { eventTopics = [] } = settings;
    this.topicUpkeep = new TopicUpkeep({
      driver,
      topics: [...topics, ...deadLetters, ...eventTopics],
      settings: settings.topics,
      logger: this.logger,
    });
    await this.topicUpkeep.createMissing();
    this.kafkaProducer = await driver.producer();
    if (store) {
      const { transactions, outbox } = store;
      // Apart from that of the replies, whose topics come and go.
      this.relayProducer = await driver.producer();
      const { dataSource } = transactions;
      this.relay ??= new OutboxRelay(
        transactions,
        outbox,
        dataSource,
        settings.outboxPollMs,
        () => this.relayProducer,
        this.refusedTopics,
      );
      this.relay.start();
    }
    this.kafkaConsumer = await driver.consume(
      {
        groupId,
        topics: patterns,
        sessionTimeoutMs,
        heartbeatIntervalMs: HEARTBEAT_MS,
        fetchWaitMs: FETCH_WAIT_MS,
        fetchMaxBytes: FETCH_BYTES,
        // A group that is new takes what was sent before it came.
        fromBeginning: true,
        onOffsetOutOfRange,
        limits: this.limits,
      },
      this.intake,
    );
    // Given up while it came up: whoever stops it closes what there is.
    if (this.stopping.signal.aborted) return;
    this.committing = setInterval(() => void this.intake.commit(), COMMIT_EVERY_MS);
    this.topicUpkeep.start();
    this.upkeep?.start();
  }

  private failed(reason: Error): void {
    this.unavailable = reason.message;
    const isOver = reason instanceof OffsetOutOfRangeError || this.stopping.signal.aborted;
    if (isOver) this.logger.error({ msg: 'messages are not consumed any more', err: reason });
    else this.logger.warn({ msg: 'messages are not consumed; connecting anew', err: reason });
    this.starting = this.disconnect().then(() => (isOver ? undefined : this.connect(this.driver!)));
  }

  private toDelivery(fetched: IncomingRecord): Delivery {
    const record = withinLimits(fetched, this.limits);
    const handler = this.getHandlerByPattern(record.topic) ?? undefined;
    const { digestHeaders } = (handler?.extras ?? {}) as HandlerExtras;
    const message = identityOf(record, this.settings.groupId, digestHeaders);
    const headers = record.unread ? firstHeadersOf(record.unread) : record.headers;
    const asked = handler?.isEventHandler ? undefined : replyAddressOf({ headers });
    const refused = asked && replyRefusal(asked, this.replyTopics);
    const refusal = record.unread ? unreadRecordError(record, record.unread) : refused;
    const replyTo = refused ? addressOfRefusal(asked, refused) : asked;
    const isBatchable = this.settings.store !== undefined && handler?.extras?.batchable === true;
    return {
      ...{ record, message, handler, isBatchable, replyTo, refusal },
      laneKey: laneKeyOf(record),
      bytes: sizeOf(record),
      attempts: 0,
      assignment: 0,
    };
  }

  /** Known once the handlers are. */
  private get replyTopics(): ReplyTopics {
    const { replyTopics: allowed, eventTopics = [] } = this.settings;
    return (this.knownReplyTopics ??= { allowed, own: [...this.messageHandlers.keys(), ...eventTopics] });
  }

  private async callHandler(delivery: Delivery, overdue: Subject<void>): Promise<unknown[]> {
    const { handler, record, refusal } = delivery;
    const { topic, value } = record;
    if (refusal) throw refusal;
    if (!handler) throw new InvalidInputError(`No handler takes messages of the topic ${topic}.`);
    let conflict: Error | undefined;
    const context = this.contextOf(delivery, (error) => (conflict = error));
    const packet = await this.deserializer.deserialize(context.getMessage(), { channel: topic });
    // Nest would hand over the whole record.
    const payload: unknown = value === null ? null : packet.data;
    const handle = async () => {
      try {
        const result: unknown = await (handler as MessageHandler<unknown, KafkaContext>)(payload, context);
        return await this.valuesOf(delivery, result, overdue);
      } finally {
        // Whatever the host's filters have made of it: the message was not handled.
        if (conflict) throw conflict;
      }
    };
    return this.withProcessingHooks(context, () => rememberingFailures(handle));
  }

  /** All that a handler gives; of what nobody asked for nothing is kept. */
  private async valuesOf(
    { record, replyTo }: Delivery,
    result: unknown,
    overdue: Subject<void>,
  ): Promise<unknown[]> {
    const given = this.transformToObservable(result as never).pipe(takeUntil(overdue));
    if (!replyTo) {
      await lastValueFrom(given, { defaultValue: undefined });
      return [];
    }
    const { maxReplyValues: atMost } = this.settings;
    const values = await lastValueFrom(given.pipe(take(atMost + 1), toArray()), { defaultValue: [] });
    if (values.length > atMost) throw new TooManyValuesError(record.topic, atMost);
    return values;
  }

  /** Around each call of a handler; what becomes of the call does not depend on what the hooks return. */
  private withProcessingHooks<T>(context: KafkaContext, call: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const done = () => {
        const called = call().finally(() => this.onProcessingEndHook?.(this.transportId, context));
        called.then(resolve, reject);
        return called;
      };
      // A hook may pass on the failure of the call, which is told already.
      Promise.resolve(this.onProcessingStartHook(this.transportId, context, done)).catch(reject);
    });
  }

  /** Anew for each call, so that none sees what an earlier one has made of the message. */
  private contextOf(delivery: Delivery, onConflict: (error: Error) => void): KafkaContext {
    const { record, message, handler, isBatchable, replyTo, bytes } = delivery;
    const raw = { ...record, offset: String(record.offset), size: bytes, attributes: 0 };
    const context = new KafkaContext([
      this.parser!.parse(raw),
      record.partition,
      record.topic,
      this.kafkaConsumer?.raw as never,
      // The driver sends them, whatever handlers do.
      () => Promise.resolve(),
      this.kafkaProducer?.raw as never,
    ]);
    knowCall(context, {
      message,
      isAnswered: replyTo !== undefined,
      isClaimed: isBatchable,
      isShared: handler?.next !== undefined,
      onRepeated: () => this.quarantine?.fresh.markStale(),
      onConflict,
    });
    return context;
  }

  private quarantineOf(store: MessageStore, infrastructure: InfrastructureWait): KeyQuarantine {
    const { groupId: consumer, concurrency } = this.settings;
    return new KeyQuarantine({
      ...{ store, consumer, concurrency },
      partitions: () => this.intake.partitions,
      readmit: (record, parkedAs, attempts, line) => {
        // Apart from what comes of the key meanwhile, which is parked and need not wait for that.
        const laneKey = `parked ${laneKeyOf(record)}`;
        const delivery = {
          ...this.toDelivery(record),
          replyTo: undefined,
          laneKey,
          parkedAs,
          attempts,
          line,
        };
        this.intake.readmit(delivery);
        return delivery;
      },
      stored: (delivery) => this.intake.done(delivery),
      refuse: (delivery, error) => {
        if (this.intake.isForgotten(delivery)) return;
        const answer = { error: replyErrorOf(error) };
        this.replies.send(delivery, answer, () => this.intake.done(delivery));
      },
      onFailed: (error) => {
        if (classify(error) === 'infrastructure') infrastructure.waitFor(error);
      },
    });
  }

  private async addDeadLetter(store: MessageStore, delivery: Delivery, error: unknown): Promise<void> {
    const { quarantineKeys } = this.settings;
    let isWhole = true;
    const add = (letter: Undeliverable) =>
      store.deadLetters.add(letter, describe(error), { quarantinesKey: quarantineKeys });
    const isAdded = await add(delivery).catch((failure: unknown) => {
      const kind = classify(failure);
      if (kind === 'infrastructure' || kind === 'transient') throw failure;
      isWhole = false;
      this.logger.error({ msg: 'a dead letter could not be stored as it is; its place is', err: failure });
      return add(withPlaceOnly(delivery));
    });
    if (isAdded) delivery.ended = 'dead';
    if (!isAdded) this.quarantine?.fresh.markStale();
    else if (quarantineKeys && isWhole) this.quarantine?.add(delivery);
  }

  private async sendDeadLetter({ record, attempts }: Delivery, error: unknown): Promise<void> {
    if (!this.kafkaProducer) throw new Error('Not connected.');
    const producer = this.kafkaProducer;
    const send = async (what: IncomingRecord) => {
      const letter = deadLetterRecord(what, describe(error), attempts);
      try {
        await producer.send([letter]);
        this.refusedTopics.taken(letter.topic);
      } catch (refusal) {
        if (refusal instanceof RecordRefusedError) this.refusedTopics.refused(letter.topic, refusal);
        throw refusal;
      }
    };
    try {
      await send(record);
    } catch (refusal) {
      if (!(refusal instanceof RecordRefusedError && refusal.isTooLarge)) throw refusal;
      // Its place is told, where the whole message is as long as its topic keeps it.
      await send(placeOnly(record));
    }
  }

  private drain(): Promise<void> {
    return (this.draining ??= this.drainOnce());
  }

  private async drainOnce(): Promise<void> {
    const { drainTimeoutMs, closeTimeoutMs, store } = this.settings;
    this.stopping.abort();
    store?.transactions.stopsSoon();
    const since = performance.now();
    const closing = (this.closing = new ClosingSteps(drainTimeoutMs + closeTimeoutMs));
    const { starting } = this;
    await this.attempt('connecting', starting);
    this.overflow.stop();
    this.intake.suspend();
    this.intake.drop();
    const finished = this.lanes.untilIdle().then(() => this.replies.untilSent());
    if (!(await endsWithin(drainTimeoutMs - (performance.now() - since), finished))) {
      this.left = this.intake.size;
      this.logger.error({
        msg: 'Messages did not end in time; they stay uncommitted, and come again',
        messages: this.left,
      });
    }
    await this.attempt('committing offsets', this.intake.commit());
    await this.attempt('ending what is done for the store', this.upkeep?.stop());
    await this.disconnect(() => this.relay?.stop(closing.shareMs));
    // What comes up behind the deadline is closed as well.
    if (closing.unfinished.includes('connecting'))
      starting?.then(() => this.disconnect()).catch((err: unknown) => this.report(err));
  }

  /** A connection that can't be closed properly is no reason not to make another. */
  private async disconnect(between?: () => Promise<void> | undefined): Promise<void> {
    clearInterval(this.committing);
    this.topicUpkeep?.stop();
    this.upkeep?.pause();
    const { kafkaConsumer, kafkaProducer, relayProducer } = this;
    this.kafkaConsumer = undefined;
    this.intake.reset();
    this.stuck = [];
    await this.attempt('leaving the group', kafkaConsumer?.close());
    await this.attempt('sending what is in the outbox', between?.());
    this.kafkaProducer = this.relayProducer = undefined;
    await this.attempt('closing the producer of replies', kafkaProducer?.close());
    await this.attempt('closing the producer of events', relayProducer?.close());
  }

  /** While it stops, no longer than its share of the time. */
  private async attempt(name: string, step: Promise<void> | undefined): Promise<void> {
    if (!step) return;
    try {
      if (!this.closing) await step;
      else if (!(await this.closing.end(name, step)))
        this.logger.error({
          msg: 'a step of stopping did not end in time; it is left to itself',
          step: name,
        });
    } catch (err) {
      this.report(err);
    }
  }

  private report(err: unknown): void {
    this.logger.warn({ msg: 'a step of disconnecting failed', err });
  }
}
