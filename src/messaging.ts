// What `nestjs-people/messaging` exports: messages that are applied once, and the transport between Kafka and Nest.

export { BATCHABLE, KafkaTransport } from './messaging/kafka.transport.js';
export { type KafkaTransportOptions } from './messaging/kafka/transport-options.js';
export {
  MessagingModule,
  type MessagingModuleAsyncOptions,
  type MessagingModuleOptions,
} from './messaging/messaging.module.js';
export { type MessagingSettings } from './messaging/messaging-settings.js';
export { MessageStore } from './messaging/message-store.js';
export { Inbox, MessageIdConflictError } from './messaging/inbox.js';
export { type HandledMessage, type MessageAnswer } from './messaging/message-answer.js';
export { type MessageIdentity } from './messaging/message-identity.js';
export { Outbox, type OutboxEvent } from './messaging/outbox.js';
export {
  type Correction,
  type DeadLetter,
  type DeadLetterCause,
  type DeadLetterDetails,
  type DeadLetterFilter,
  type DeadLetterState,
  type ShownBytes,
  type ShownHeader,
  DeadLetters,
  type WaitingKey,
} from './messaging/dead-letters.js';
export {
  type BrokerLate,
  messageChannels,
  type MessageHandled,
  type MessageOutcome,
  type MessagesFetched,
  type OutboxRefused,
  type OutboxRelayed,
} from './messaging/telemetry/message-events.js';
export {
  type HeldFigures,
  type PartitionLag,
  type PauseReason,
  type TransportFigures,
} from './messaging/telemetry/transport-figures.js';
export { ReplyTopicRefusedError } from './messaging/kafka/replies/rules.js';
export { HandlerTimeoutError, TooManyValuesError } from './messaging/consuming/handler-time.js';
export { RecordTooLargeError, RecordUnreadableError } from './messaging/records/unread.js';
export { type RecordLimits, type UnreadPart } from './messaging/kafka-driver.js';
export { MessageKillsProcessError } from './messaging/dead-letters/suspects.js';
export { KeyQuarantinedError } from './messaging/dead-letters/quarantine.js';
export { KeyWaitsError } from './messaging/dead-letters/lane-store.js';
export { UndecodableBatchError } from './messaging/records/batches.js';
export { type KafkaClientName, type KafkaDriverFactory } from './messaging/kafka/clients.js';
export {
  type BrokerAnswer,
  brokerAnswer,
  BrokerAnswerError,
  refusalReason,
} from './messaging/kafka/broker-answers.js';
export {
  type CommitOffset,
  type CommittedRecords,
  CommitRefusedError,
  type ConsumerListener,
  type ConsumerSettings,
  type FetchPosition,
  type IncomingRecord,
  type KafkaClientSettings,
  type KafkaConsumer,
  type KafkaDriver,
  type KafkaProducer,
  type OutgoingRecord,
  PartlySentError,
  type RawHeaders,
  type RecordBatch,
  type RecordHeaders,
  RecordRefusedError,
  type RecordWindow,
  type RefusalReason,
  type StuckPartition,
  type TopicPartition,
  type OffsetOutOfRangePolicy,
  OffsetOutOfRangeError,
  type TopicSettings,
  type WindowReader,
  type WindowSettings,
} from './messaging/kafka-driver.js';
export { messagingMigrations } from '../migrations/index.js';
