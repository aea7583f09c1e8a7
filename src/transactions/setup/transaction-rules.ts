import { RECYCLING_METHODS } from '../../database/pooled-client.js';
import type { TransactionRunnerSettings } from '../transaction-options.js';
import type { RulesFor } from './known-options.js';

/** What the defaults of every unit of work may be, as far as `validateOptions` does not tell. */
export const settingRules: RulesFor<TransactionRunnerSettings> = {
  isolationLevel: 'checked later',
  readOnly: 'a boolean',
  deferrable: 'a boolean',
  maxAttempts: 'checked later',
  backoff: {
    expected: 'a function, or an object such as { baseMs: 25, capMs: 250 }',
    test: (value) => typeof value === 'function' || (typeof value === 'object' && value !== null),
  },
  timeoutMs: 'checked later',
  acquireTimeoutMs: 'checked later',
  lockTimeoutMs: 'checked later',
  statementTimeoutMs: 'checked later',
  idleInTransactionTimeoutMs: 'checked later',
  retryOn: {
    expected: 'a function, or an array of SQLSTATEs',
    test: (value) => typeof value === 'function' || Array.isArray(value),
  },
  commitOutcome: 'checked later',
  recycling: RECYCLING_METHODS,
  preparedStatements: 'checked later',
  sharedStatements: 'a boolean',
  statementComments: 'a boolean',
  poolQueries: 'checked later',
  repositories: 'checked later',
  drainTimeoutMs: 'checked later',
  conflictQueueSize: 'checked later',
};

/** The same with what `TransactionsModule.forRoot` takes beside them. */
export const transactionRules = {
  ...settingRules,
  dataSource: 'a text',
  isGlobal: 'a boolean',
} as const;
