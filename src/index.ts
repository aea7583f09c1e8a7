// People: the module, its service and what they take and return
export {
  PeopleModule,
  type PeopleModuleAsyncOptions,
  type PeopleModuleExtras,
  type PeopleModuleOptions,
  type PeopleRuntimeOptions,
} from './people/people.module.js';
export { type CallerOf } from './people/http/caller.js';
export { InjectPeopleDataSource, PEOPLE_DATA_SOURCE, type PeopleOptions } from './people/people.options.js';
export {
  type IfMatch,
  type ImportOptions,
  type NewPerson,
  type PeoplePage,
  PeopleService,
  type PersonChanges,
} from './people/people.service.js';
export { Person, personJson } from './people/person.entity.js';
export {
  CreatePersonDto,
  FindPeopleDto,
  InsertedDto,
  PeoplePageDto,
  PersonDto,
  UpdatePersonDto,
} from './people/person.dto.js';
export { peopleMigrations, transactionMigrations } from '../migrations/index.js';

// Lossless JSON
export { IsUint64 } from './people/person-data.js';
export { JsonError, JsonText, MAX_JSON_DEPTH } from './json/text.js';
export {
  JsonNumber,
  type JsonNumeric,
  type JsonObject,
  type JsonValue,
  parseJson,
  stringifyJson,
} from './json/lossless.js';

// Transactions that retry, for any entity
export {
  TransactionsModule,
  type TransactionsModuleAsyncOptions,
  type TransactionsModuleOptions,
} from './transactions/transactions.module.js';
export { TransactionRunner } from './transactions/transaction-runner.js';
export {
  type PoolQueryMode,
  type Propagation,
  type TransactionOptions,
  type TransactionRunnerSettings,
  type UnitOptions,
} from './transactions/transaction-options.js';
export { Transactional, TransactionManager } from './transactions/transactional.decorator.js';
export { type TransactionalOptions } from './transactions/transactional.metadata.js';
export { RetryingTransactionInterceptor } from './transactions/retrying-transaction.interceptor.js';
export {
  currentTransaction,
  type Statement,
  TransactionContext,
} from './transactions/transaction-context.js';
export {
  TRANSACTION_RETRY_CHANNEL,
  type TransactionBegin,
  transactionChannels,
  type TransactionCommit,
  type TransactionExhausted,
  type TransactionFailed,
  type TransactionOutcomeUnknown,
  type TransactionPhase,
  type TransactionRetry,
  type TransactionRollback,
} from './transactions/transaction-events.js';
export {
  type Backoff,
  type ExponentialBackoff,
  type RetryPolicy,
  type TransactionFailure,
} from './transactions/retry-policy.js';
export { type IsolationLevel } from './database/data-source-options.js';
export { type RecyclingMethod } from './database/pooled-client.js';

// Messages
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

// Traces
export { continueTrace } from './tracing/continue-trace.js';

// What people on call see and do
export { ConsoleModule } from './operations/console/console.module.js';
export {
  MessageOperationsModule,
  type MessageOperationsOptions,
} from './operations/dead-letters/dead-letters.module.js';
export { OPERATION_SCOPE, type OperationScope, type OperatorOf } from './operations/dead-letters/access.js';

// Errors, and how they look from outside
export {
  ApplicationError,
  type ErrorDescription,
  type FieldError,
  InvalidInputError,
} from './errors/application-error.js';
export {
  describeFailure,
  type Failure,
  type MessageError,
  MessageErrorFilter,
  ProblemDetailsFilter,
} from './errors/error-responses.js';
export {
  ImportNotRepeatableError,
  PersonChangedError,
  PersonConflictError,
  PersonInUseError,
  PersonNotFoundError,
  PersonRefusedError,
  StoredDataInvalidError,
} from './people/people.errors.js';
export { ImportPlacesTakenError } from './people/importing/places.js';
export { type ImportSource, ImportStalledError } from './people/importing/pace.js';
export { MemoryBudgetExhaustedError } from './people/byte-budget.js';
export {
  AfterCommitError,
  ClaimTakenError,
  ConflictKeyDeadlockError,
  ConflictQueueFullError,
  ShuttingDownError,
  TransactionError,
  TransactionOutcomeUnknownError,
  TransactionRetriesExhaustedError,
  TransactionRolledBackError,
  TransactionTimeoutError,
  TransactionUsageError,
} from './transactions/transaction-errors.js';
export {
  DatabaseRefusedError,
  DatabaseUnavailableError,
  LockTimeoutError,
  PoolExhaustedError,
  StatementTimeoutError,
} from './database/postgres-errors.js';
