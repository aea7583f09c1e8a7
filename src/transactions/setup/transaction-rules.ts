import { ISOLATION_LEVELS } from '../../database/data-source-options.js';
import { PREPARED_STATEMENTS } from '../../database/known-server.js';
import { RECYCLING_METHODS } from '../../database/pooled-client.js';
import type { TransactionRunnerSettings } from '../transaction-options.js';
import type { RulesFor } from './known-options.js';

/** What the defaults of every unit of work may be; how large its numbers, and what goes with what, `validateOptions` tells. */
export const settingRules: RulesFor<TransactionRunnerSettings> = {
  isolationLevel: ISOLATION_LEVELS,
  readOnly: 'a boolean',
  deferrable: 'a boolean',
  maxAttempts: 'a whole number',
  backoff: {
    expected: 'a function, or an object such as { baseMs: 25, capMs: 250 }',
    test: (value) => typeof value === 'function' || (typeof value === 'object' && value !== null),
  },
  timeoutMs: 'a whole number',
  acquireTimeoutMs: 'a whole number',
  lockTimeoutMs: 'a whole number',
  statementTimeoutMs: 'a whole number',
  idleInTransactionTimeoutMs: 'a whole number',
  retryOn: {
    expected: 'a function, or an array of SQLSTATEs',
    test: (value) => typeof value === 'function' || Array.isArray(value),
  },
  commitOutcome: ['resolve', 'row', 'report'],
  recycling: RECYCLING_METHODS,
  preparedStatements: PREPARED_STATEMENTS,
  sharedStatements: 'a boolean',
  statementComments: 'a boolean',
  poolQueries: ['warn', 'throw', 'off'],
  drainTimeoutMs: 'a whole number',
  conflictQueueSize: 'a whole number',
};

/** The same with what `TransactionsModule.forRoot` takes beside them. */
export const transactionRules = {
  ...settingRules,
  dataSource: 'a text',
  isGlobal: 'a boolean',
} as const;
