// messaging/: Messages that are applied once, events that leave with their transaction, and the transport between Kafka and
// Nest.
// Promises: a message, its effect and its events are one transaction; nothing is lost when a process, broker or database dies.
// May know: transactions/ and below; nothing of people. What stands beside the rooms here is what all of them may know.

import { type DynamicModule, Module } from '@nestjs/common';
import {
  knownNow,
  TransactionsModule,
  type TransactionsModuleAsyncOptions,
  type TransactionsModuleOptions,
} from '../transactions/transactions.module.js';
import type { TransactionRunnerSettings } from '../transactions/transaction-options.js';
import { TransactionRunner } from '../transactions/transaction-runner.js';
import { DeadLetters } from './dead-letters.js';
import { HandlerInbox } from './kafka/handler-inbox.js';
import { Inbox } from './inbox.js';
import { MessageStore } from './message-store.js';
import { MESSAGING_SETTINGS, type MessagingSettings, messagingSettingsOf } from './messaging-settings.js';
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

/**
 * Provides `Inbox`, `Outbox`, `DeadLetters` and `MessageStore` (for `KafkaTransport`), and `TransactionRunner` as
 * `TransactionsModule` does, on one of the application's TypeORM DataSources. Where it is imported, message handlers with
 * `@Transactional` are applied once per message, and what is old is removed (`inboxRetentionMs`). Needs the migrations `peopleMigrations`.
 */
@Module({})
export class MessagingModule {
  /** The options, known now. */
  static forRoot(options: MessagingModuleOptions = {}): DynamicModule {
    return this.forRootAsync(knownNow(options));
  }

  /** The same, from a factory. */
  static forRootAsync(options: MessagingModuleAsyncOptions): DynamicModule {
    return {
      module: MessagingModule,
      global: options.isGlobal ?? false,
      imports: [TransactionsModule.forRootAsync(options)],
      providers: [
        {
          provide: MESSAGING_SETTINGS,
          inject: [TransactionRunner],
          useFactory: messagingSettingsOf,
        },
        Inbox,
        Outbox,
        DeadLetters,
        HandlerInbox,
        MessageStore,
        StorePruning,
      ],
      exports: [TransactionsModule, Inbox, Outbox, DeadLetters, MessageStore],
    };
  }
}
