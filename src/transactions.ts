// What `nestjs-people/transactions` exports: the engine without people and messages.

export {
  TransactionsModule,
  type TransactionsModuleAsyncOptions,
  type TransactionsModuleOptions,
} from './transactions/transactions.module.js';
export { TransactionRunner } from './transactions/transaction-runner.js';
export {
  type PoolQueryMode,
  type Propagation,
  type RepositoryMode,
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
export { outsideTransaction } from './transactions/session/places.js';
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

export { transactionMigrations } from '../migrations/index.js';

// Traces
export { continueTrace } from './tracing/continue-trace.js';

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
