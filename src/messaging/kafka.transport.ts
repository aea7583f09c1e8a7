import { Logger } from '@nestjs/common';
import {
  KafkaContext,
  KafkaHeaders,
  type KafkaOptions,
  type MessageHandler,
  type OutgoingResponse,
  ServerKafka,
} from '@nestjs/microservices';
import {
  type EachMessagePayload,
  type Kafka,
  type logCreator,
  logLevel,
  type Message,
  Partitioners,
  type RecordMetadata,
} from 'kafkajs';
import { setTimeout as sleep } from 'node:timers/promises';
import { lastValueFrom } from 'rxjs';
import { type MessageError, toMessageError } from '../errors/error-responses.js';
import { DEAD_LETTER_SUFFIX, deadLetter, messageIdOf } from './dead-letter.js';
import { ReplyProducer } from './reply-producer.js';
import { createMissingTopics, type TopicSettings } from './kafka-topics.js';

export interface KafkaTransportOptions {
  /** Broker addresses and security, as kafkajs takes them. */
  client: NonNullable<NonNullable<KafkaOptions['options']>['client']>;
  groupId: string;
  /** Messages in flight at most. Those of one partition run one after another. */
  concurrency: number;
  /** How missing topics, dead letter topics included, are created. */
  topics: TopicSettings;
}

type Outcome = { response: unknown } | { error: MessageError };

const RECONNECT_MS = 1000;
const RETRY_FIRST_MS = 100;
const RETRY_MOST_MS = 5000;
/** How long the group waits for an instance that was killed; one that lives sends heartbeats, also while a handler runs. */
const SESSION_MS = 10_000;
const HEARTBEAT_MS = 3000;
/** How long a fetch waits for messages, and so how long stopping may take. */
const FETCH_WAIT_MS = 250;

/**
 * Nest's Kafka server, with what it lacks to lose nothing: the offset moves only when a message's effect is committed and
 * its reply sent; a message that can't be handled goes to `<topic>-dlt` and the partition goes on; one that fails because
 * the database is away or busy is kept and tried again; handlers get the bytes as they came; missing topics are created;
 * and a broker that is away keeps nobody from starting.
 */
export class KafkaTransport extends ServerKafka {
  protected override readonly logger: Logger;
  private readonly stopping = new AbortController();
  private starting: Promise<void> | undefined;
  private replies: ReplyProducer | undefined;
  private unavailable: string | undefined = 'not connected yet';

  constructor(private readonly settings: KafkaTransportOptions) {
    const logger = new Logger(KafkaTransport.name);
    super({
      client: { logCreator: logTo(logger), ...settings.client },
      consumer: {
        groupId: settings.groupId,
        maxWaitTimeInMs: FETCH_WAIT_MS,
        allowAutoTopicCreation: false,
        sessionTimeout: SESSION_MS,
        heartbeatInterval: HEARTBEAT_MS,
      },
      producer: { createPartitioner: Partitioners.DefaultPartitioner },
      run: { partitionsConsumedConcurrently: settings.concurrency },
      // A group that is new takes what was sent before it came.
      subscribe: { fromBeginning: true },
      parser: { keepBinary: true },
      postfixId: '',
    });
    this.logger = logger;
  }

  /** undefined while messages are consumed, else why they are not. */
  get unavailableReason(): string | undefined {
    return this.unavailable;
  }

  /** Returns at once and connects in the background, again and again until the brokers can be reached. */
  override async listen(callback: (error?: unknown) => void): Promise<void> {
    this.starting = this.connect();
    callback();
  }

  /** Finishes the messages that run, commits their offsets and leaves the group. */
  override async close(): Promise<void> {
    this.stopping.abort();
    await this.starting;
    await this.release();
  }

  private async connect(): Promise<void> {
    while (!this.stopping.signal.aborted) {
      try {
        const client = (await this.createClient()) as unknown as Kafka;
        this.client = client;
        const topics = [...this.messageHandlers.keys()].filter((pattern) => typeof pattern === 'string');
        const deadLetters = topics.map((topic) => `${topic}${DEAD_LETTER_SUFFIX}`);
        await createMissingTopics(client, [...topics, ...deadLetters], this.settings.topics);
        this.replies = new ReplyProducer(client);
        await this.start(() => undefined);
        return;
      } catch (error) {
        this.unavailable = (error as Error).message;
        this.logger.warn({ msg: 'Kafka cannot be reached; trying again', err: error });
        await this.disconnect();
        await this.pause(RECONNECT_MS);
      }
    }
  }

  override registerConsumerEventListeners(): void {
    super.registerConsumerEventListeners();
    const { consumer } = this;
    if (!consumer) return;
    const { GROUP_JOIN, CRASH, DISCONNECT } = consumer.events;
    consumer.on(GROUP_JOIN, () => (this.unavailable = undefined));
    consumer.on(DISCONNECT, () => (this.unavailable ??= 'disconnected'));
    consumer.on(CRASH, ({ payload: { error, restart } }) => {
      this.unavailable = error.message;
      // kafkajs gives up for good on errors that it takes for programming mistakes.
      if (!restart) this.starting = this.disconnect().then(() => this.connect());
    });
  }

  /** A message is done when this resolves; when it rejects kafkajs delivers it again. */
  override async handleMessage(payload: EachMessagePayload): Promise<void> {
    const { topic, partition, message } = payload;
    const record = this.parser!.parse<KafkaRecord>({ ...message, topic, partition });
    const heartbeat = () => payload.heartbeat();
    const context = new KafkaContext([
      record as never,
      partition,
      topic,
      this.consumer!,
      heartbeat,
      this.producer!,
    ]);
    const handler = this.getHandlerByPattern(topic);
    const reply = handler?.isEventHandler ? undefined : replyAddressOf(record.headers);
    for (let attempt = 1; ; attempt++) {
      const outcome = await this.withHeartbeats(payload, () => this.handle(handler, record.value, context));
      if (reply) return this.reply(reply, outcome, context);
      if (!('error' in outcome)) return;
      const { error } = outcome;
      const messageId = messageIdOf(payload, message);
      if (!error.retryable) {
        this.logger.warn({
          msg: 'message dead-lettered',
          messageId,
          topic,
          code: error.code,
          detail: error.message,
        });
        await this.producer!.send(deadLetter(payload, message, error, attempt));
        return;
      }
      this.logger.warn({
        msg: 'message waits to be tried again',
        messageId,
        topic,
        attempt,
        code: error.code,
      });
      await this.waitToRetry(attempt, payload);
    }
  }

  /** kafkajs sends heartbeats between messages only; a handler may take longer than the group waits. */
  private async withHeartbeats<T>(payload: EachMessagePayload, work: () => Promise<T>): Promise<T> {
    const timer = setInterval(() => {
      payload.heartbeat().catch((err: unknown) => this.logger.warn({ msg: 'heartbeat failed', err }));
    }, HEARTBEAT_MS);
    try {
      return await work();
    } finally {
      clearInterval(timer);
    }
  }

  private async handle(
    handler: MessageHandler | null,
    value: unknown,
    context: KafkaContext,
  ): Promise<Outcome> {
    try {
      if (!handler) throw new Error(`No handler for the topic ${context.getTopic()}`);
      const result$ = this.transformToObservable(await handler(value, context));
      return { response: await lastValueFrom(result$, { defaultValue: null }) };
    } catch (error) {
      return { error: isMessageError(error) ? error : toMessageError(error) };
    }
  }

  /** The effect is applied whatever becomes of the reply, so a reply that can't be sent does not stop the partition. */
  private async reply(
    { topic, partition, correlationId }: ReplyAddress,
    outcome: Outcome,
    context: KafkaContext,
  ) {
    const packet = 'error' in outcome ? { err: outcome.error } : { response: outcome.response };
    const message: OutgoingResponse = { id: correlationId, ...packet, isDisposed: true };
    try {
      await this.sendMessage(message, topic, partition, correlationId, context);
    } catch (error) {
      this.logger.error({ msg: 'reply could not be sent', correlationId, topic, err: error });
    }
  }

  override async sendMessage(
    message: OutgoingResponse,
    topic: string,
    partition: string | undefined,
    correlationId: string,
    _context: KafkaContext,
  ): Promise<RecordMetadata[]> {
    const outgoing = (await this.serializer.serialize(message.response as never)) as Message;
    this.assignReplyPartition(partition, outgoing);
    this.assignCorrelationIdHeader(correlationId, outgoing);
    this.assignErrorHeader(message, outgoing);
    this.assignIsDisposedHeader(message, outgoing);
    return this.replies!.send({ topic, messages: [outgoing] });
  }

  private async waitToRetry(attempt: number, payload: EachMessagePayload): Promise<void> {
    await payload.heartbeat();
    await this.pause(Math.min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** (attempt - 1)));
    if (this.stopping.signal.aborted)
      throw new Error(`Stopping; offset ${payload.message.offset} stays uncommitted.`);
  }

  private async pause(milliseconds: number): Promise<void> {
    await sleep(milliseconds, undefined, { signal: this.stopping.signal }).catch((error: Error) => {
      if (error.name !== 'AbortError') throw error;
    });
  }

  private async release(): Promise<void> {
    await super.close();
    await this.replies?.close();
  }

  /** As `release`, of a connection that is given up: that it can't be closed properly is no reason not to make another. */
  private async disconnect(): Promise<void> {
    try {
      await this.release();
    } catch (error) {
      this.logger.warn({ msg: 'disconnecting from Kafka failed', err: error });
    }
  }
}

interface KafkaRecord {
  value: Buffer | null;
  headers: Record<string, unknown>;
}

interface ReplyAddress {
  topic: string;
  partition: string | undefined;
  correlationId: string;
}

/** Where the sender waits for a reply, if it does. */
function replyAddressOf(headers: Record<string, unknown>): ReplyAddress | undefined {
  const correlationId = textOf(headers[KafkaHeaders.CORRELATION_ID]);
  const topic = textOf(headers[KafkaHeaders.REPLY_TOPIC]);
  return correlationId && topic
    ? { topic, correlationId, partition: textOf(headers[KafkaHeaders.REPLY_PARTITION]) }
    : undefined;
}

/** Nest's parser decodes headers that look like JSON; an id is text whatever it looks like. */
function textOf(header: unknown): string | undefined {
  if (header === undefined || header === null) return undefined;
  return typeof header === 'string'
    ? header
    : Buffer.isBuffer(header)
      ? header.toString()
      : JSON.stringify(header);
}

const isMessageError = (error: unknown): error is MessageError =>
  typeof error === 'object' &&
  error !== null &&
  'code' in error &&
  'retryable' in error &&
  !(error instanceof Error);

/** kafkajs' own reports, as fields; what it calls errors it mostly tries again. */
function logTo(logger: Logger): logCreator {
  return () =>
    ({ level, namespace, log: { message, ...fields } }) => {
      const entry = { msg: message, part: namespace, ...fields };
      if (level <= logLevel.WARN) logger.warn(entry);
      else if (level === logLevel.INFO) logger.debug(entry);
      else logger.verbose(entry);
    };
}
