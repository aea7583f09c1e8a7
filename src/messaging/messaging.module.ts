// messaging/: Messages that are applied once, events that leave with their transaction, and the transport between Kafka and
// Nest.
// Promises: a message, its effect and its events are one transaction; nothing is lost when a process, broker or database dies.
// May know: transactions/ and below; nothing of people. What stands beside the rooms here is what all of them may know.

import { type DynamicModule, Inject, Logger, Module, type OnApplicationBootstrap } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import { absentTables, isMigratedLater } from '../database/table-name.js';
import {
  knownNow,
  TRANSACTIONS_EXPORTS,
  transactionsModule,
  TransactionsModule,
  type TransactionsModuleAsyncOptions,
  type TransactionsModuleOptions,
} from '../transactions/transactions.module.js';
import { checkedBy } from '../transactions/setup/known-options.js';
import { SharedModule } from '../transactions/setup/shared-module.js';
import { transactionRules } from '../transactions/setup/transaction-rules.js';
import type { TransactionRunnerSettings } from '../transactions/transaction-options.js';
import { TransactionRunner, TRANSACTIONS_DATA_SOURCE } from '../transactions/transaction-runner.js';
import { DeadLetters } from './dead-letters.js';
import { HandlerInbox } from './kafka/handler-inbox.js';
import { Inbox } from './inbox.js';
import { MessageStore } from './message-store.js';
import {
  MESSAGING_SETTINGS,
  messagingRules,
  type MessagingSettings,
  messagingSettingsOf,
} from './messaging-settings.js';
import { Outbox } from './outbox.js';
import { StorePruning } from './dead-letters/store-pruning.js';

/** Options of `MessagingModule.forRoot`. */
export type MessagingModuleOptions = TransactionsModuleOptions & MessagingSettings;

/** Options of `MessagingModule.forRootAsync`: the factory gives the defaults of every unit of work, and `MessagingSettings`. */
export interface MessagingModuleAsyncOptions extends TransactionsModuleAsyncOptions {
  /** Gives the options, once, when the application starts. */
  useFactory: (
    // eslint-disable-next-line @typescript-eslint/no-explicit-any -- the factory's parameters are what `inject` names
    ...dependencies: any[]
  ) =>
    (TransactionRunnerSettings & MessagingSettings) | Promise<TransactionRunnerSettings & MessagingSettings>;
}

/** What is exported, by token. */
export const MESSAGING_EXPORTS = [...TRANSACTIONS_EXPORTS, Inbox, Outbox, DeadLetters, MessageStore];

const shared = new SharedModule('MessagingModule', MESSAGING_EXPORTS, () => MessagingModule.forRoot());

/** What no message and no event does without. */
const TABLES = ['message_inbox', 'message_outbox', 'message_outbox_lease', 'message_dead_letter'];

@Module({})
class MessagingCoreModule implements OnApplicationBootstrap {
  private readonly logger = new Logger('MessagingModule');

  constructor(@Inject(TRANSACTIONS_DATA_SOURCE) private readonly dataSource: DataSource) {}

  async onApplicationBootstrap(): Promise<void> {
    if (isMigratedLater(this.dataSource)) return;
    // What keeps the database from answering is told by whoever needs it. A host may migrate later: that is not an error yet.
    const absent = await absentTables(this.dataSource, TABLES).catch(() => []);
    if (absent.length > 0)
      this.logger.warn(
        `The tables ${absent.join(', ')} are not there; run the migrations: peopleMigrations in your DataSource.`,
      );
  }
}

/**
 * Provides `Inbox`, `Outbox`, `DeadLetters` and `MessageStore` (for `KafkaTransport`), and `TransactionRunner` as
 * `TransactionsModule` does, on one of the application's TypeORM DataSources. Where it is imported, message handlers with
 * `@Transactional` are applied once per message, and what is old is removed (`inboxRetentionMs`). Needs the migrations `peopleMigrations`.
 *
 * `forRoot` sets it up once, in the root module. Where what it provides is injected, import it without options, as
 * `imports: [MessagingModule]`: that is the same one. `PeopleModule` sets it up as well.
 */
@Module(shared.bare)
export class MessagingModule {
  /** The options, known now. */
  static forRoot(options: MessagingModuleOptions = {}): DynamicModule {
    return this.forRootAsync(knownNow(options));
  }

  /** The same, from a factory. */
  static forRootAsync(options: MessagingModuleAsyncOptions): DynamicModule {
    const useFactory = checkedBy(
      { ...transactionRules, ...messagingRules },
      'MessagingModule.forRoot',
      options,
    );
    return messagingModule({ ...options, useFactory });
  }
}

/** `MessagingModule` with options that were checked by whoever sets it up. */
export function messagingModule(options: MessagingModuleAsyncOptions): DynamicModule {
  const core: DynamicModule = {
    module: MessagingCoreModule,
    imports: [transactionsModule({ ...options, isGlobal: false })],
    providers: [
      { provide: MESSAGING_SETTINGS, inject: [TransactionRunner], useFactory: messagingSettingsOf },
      Inbox,
      Outbox,
      DeadLetters,
      HandlerInbox,
      MessageStore,
      StorePruning,
    ],
    exports: [TransactionsModule, Inbox, Outbox, DeadLetters, MessageStore],
  };
  const { dataSource, isGlobal } = options;
  return shared.setUp(MessagingModule, { core, dataSource, isGlobal });
}
