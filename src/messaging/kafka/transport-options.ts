import type { KafkaParserConfig, Deserializer, Serializer } from '@nestjs/microservices';
import type { KafkaClientName, KafkaDriverFactory } from './clients.js';
import type { KafkaClientSettings, OffsetOutOfRangePolicy, TopicSettings } from '../kafka-driver.js';
import { RECORD_LIMITS } from '../records/limits.js';
import type { RecordLimits } from '../records/record.js';
import type { MemoryLimits } from '../consuming/held-messages.js';
import { messagingSettingsOf, retentionOf } from '../messaging-settings.js';
import type { MessageStore } from '../message-store.js';

/** How a `KafkaTransport` reads, handles and answers messages. Times are in ms, sizes in bytes. */
export interface KafkaTransportOptions {
  /** Broker addresses and security. */
  client: KafkaClientSettings;
  /** The client library (`platformatic` is @platformatic/kafka, to be installed), or a driver of your own. Default `kafkajs`. */
  driver?: KafkaClientName | KafkaDriverFactory;
  /** The consumer group: one of its own for each application. */
  groupId: string;
  /** Messages (or batches of them) that are handled at once, at most. */
  concurrency: number;
  /** How missing topics are created: those of the handlers, their dead letter topics, and `eventTopics`. */
  topics: TopicSettings;
  /** Topics that events are published to. */
  eventTopics?: readonly string[];
  /**
   * Where it is kept what was handled: with it a message of a batchable or `@Transactional` handler is applied once, and
   * dead letters and events are sent by the relay. Without it every message is handled at least once.
   */
  store?: MessageStore;
  /** Messages that share a transaction at most, where their handlers are `BATCHABLE`. Default 64. */
  batchSize?: number;
  /**
   * True: where a topic has a batch handler (`people.create`, `people.update`, `people.delete`, `people.commands`), the messages of a
   * batch, up to 500, are handled together by it. Nest's handler is called for those only that it can't do; so guards, pipes, interceptors, filters and
   * hooks that the application has bound to handlers of messages are not asked for the others: leave it out where there are some. Needs
   * `store`. Default false.
   */
  batchHandlers?: boolean;
  /** How often a message may fail for no known reason before it is dead-lettered. Default 5. */
  maxAttempts?: number;
  /**
   * How often a message may fail for a reason that passes (a conflict, a timeout) before it is dead-lettered as well. Default:
   * never, it is tried again until it can be handled.
   */
  maxTransientAttempts?: number;
  /**
   * Once a message is a dead letter, the later ones of its key are parked, in order, until it is replayed or discarded
   * (`DeadLetters`). Needs `store`. Default false. Keys that are quarantined already stay so, whatever this says.
   */
  quarantineKeys?: boolean;
  /** Messages, and their bytes, that are fetched and not done, at most. Default 5,000 and 32 MiB. */
  bufferMessages?: number;
  /** See `bufferMessages`. */
  bufferBytes?: number;
  /**
   * Messages of one key, and their bytes, that wait in memory behind one that has failed and is tried again. Past either, or
   * when the buffer is full, they wait in the store, and the other keys go on; without `store` their partition is paused.
   * Default a tenth of the buffer.
   */
  laneMessages?: number;
  /** See `laneMessages`. */
  laneBytes?: number;
  /**
   * What a record may have that is handled: headers (1,000), their bytes (64 KiB), bytes of its key (64 KiB), and bytes that a
   * fetch may be decompressed to (32 MiB). Past it the record is a dead letter `RECORD_TOO_LARGE`.
   */
  limits?: Partial<RecordLimits>;
  /**
   * Where replies may go: names of topics, or beginnings that end with `*`. Default: any topic but those that are read or
   * written here, those of dead letters and Kafka's own, to which replies go in no case.
   */
  replyTopics?: readonly string[];
  /**
   * How long a reply is tried again that its own address keeps from being sent (a partition without a leader), while others are
   * acknowledged, or the brokers can be read from, in ms; it is then logged, and its message's offset moves. Default 60,000.
   */
  replyTimeoutMs?: number;
  /**
   * Bytes of answers that are not with the brokers yet, before no more messages are handled until they are. Those that could not be
   * sent may take a quarter of it while others are sent; past that they are given up. Default 32 MiB.
   */
  replyBufferBytes?: number;
  /** Values that a handler may answer one request with; more are an error. Default 10,000. */
  maxReplyValues?: number;
  /**
   * How long a handler is waited for, in ms: then its request is answered `HANDLER_TIMEOUT`, and another message has failed as
   * if the handler had thrown. It frees its place in `concurrency`, and goes on by itself. Default 300,000.
   */
  handlerTimeoutMs?: number;
  /** `unavailableReason` tells of a partition of which nothing was done for so long though messages wait, in ms. Default 60,000. */
  stalledAfterMs?: number;
  /** How long the group waits for an instance that gives no sign of life, in ms. Default 10,000. */
  sessionTimeoutMs?: number;
  /** What is done when the group's offset is not there any more. Default `stop`: nothing is skipped unasked. */
  onOffsetOutOfRange?: OffsetOutOfRangePolicy;
  /** How long stopping waits for messages that are being handled, in ms. Default 20,000. */
  drainTimeoutMs?: number;
  /** How long what comes then may take (commit, leaving the group, sending what is in the outbox), in ms. Default 10,000. */
  closeTimeoutMs?: number;
  /** How long it is remembered that a message was handled, in ms. Default: that of the store's `MessagingModule`, 7 days. */
  inboxRetentionMs?: number;
  /** How often the outbox is looked at when nobody has told that there is something to send, in ms. Default 1,000. */
  outboxPollMs?: number;
  /**
   * As Nest's: values that look like JSON are parsed. `{ keepBinary: true }` hands their bytes over to every handler; a handler asks for
   * them by itself with `@MessagePattern(topic, { keepBinary: true })`, as those of people do.
   */
  parser?: KafkaParserConfig;
  /** What makes records of answers. Default: Nest's for Kafka. */
  serializer?: Serializer;
  /** What makes requests of records. Default: Nest's for Kafka. */
  deserializer?: Deserializer;
}

const MEBIBYTE = 1024 * 1024;
export const DEFAULTS = {
  driver: 'kafkajs' as KafkaClientName | KafkaDriverFactory,
  batchSize: 64,
  batchHandlers: false,
  maxAttempts: 5,
  maxTransientAttempts: Infinity,
  bufferMessages: 5000,
  bufferBytes: 32 * MEBIBYTE,
  sessionTimeoutMs: 10_000,
  drainTimeoutMs: 20_000,
  closeTimeoutMs: 10_000,
  outboxPollMs: 1000,
  stalledAfterMs: 60_000,
  replyTimeoutMs: 60_000,
  replyBufferBytes: 32 * MEBIBYTE,
  maxReplyValues: 10_000,
  handlerTimeoutMs: 300_000,
  quarantineKeys: false,
  onOffsetOutOfRange: 'stop' as OffsetOutOfRangePolicy,
};

/** The options, with what they leave out. */
export type TransportSettings = KafkaTransportOptions &
  typeof DEFAULTS & {
    limits: RecordLimits;
    /** Of one lane. */
    laneLimits: MemoryLimits;
    inboxRetentionMs: number;
  };

/** @throws Error what is asked for can't be done */
export function settingsOf(options: KafkaTransportOptions): TransportSettings {
  const settings = { ...DEFAULTS, ...options };
  const { store, bufferMessages, bufferBytes } = settings;
  if (settings.quarantineKeys && !store)
    throw new Error('KafkaTransport: quarantineKeys needs a store, which keeps what is parked.');
  const { laneMessages = Math.ceil(bufferMessages / 10), laneBytes = Math.ceil(bufferBytes / 10) } = options;
  return {
    ...settings,
    limits: { ...RECORD_LIMITS, ...options.limits },
    laneLimits: { messages: laneMessages, bytes: laneBytes },
    inboxRetentionMs:
      options.inboxRetentionMs ?? retentionOf(store ? messagingSettingsOf(store.transactions) : {}),
  };
}
