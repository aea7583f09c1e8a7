import { type DynamicModule, Module } from '@nestjs/common';
import {
  knownNow,
  TransactionsModule,
  type TransactionsModuleAsyncOptions,
  type TransactionsModuleOptions,
} from '../transactions/transactions.module.js';
import { DeadLetters } from './dead-letters.js';
import { Inbox } from './inbox.js';
import { MessageStore } from './message-store.js';
import { Outbox } from './outbox.js';

/**
 * Provides `Inbox`, `Outbox`, `DeadLetters` and `MessageStore` (for `KafkaTransport`), and `TransactionRunner` as
 * `TransactionsModule` does, on one of the application's TypeORM DataSources. Where it is imported, message handlers with
 * `@Transactional` are applied once per message. Needs the migrations `peopleMigrations`.
 */
@Module({})
export class MessagingModule {
  /** The defaults of every unit of work, known now. */
  static forRoot(options: TransactionsModuleOptions = {}): DynamicModule {
    return this.forRootAsync(knownNow(options));
  }

  /** The same, from a factory. */
  static forRootAsync(options: TransactionsModuleAsyncOptions): DynamicModule {
    return {
      module: MessagingModule,
      global: options.isGlobal ?? false,
      imports: [TransactionsModule.forRootAsync(options)],
      providers: [Inbox, Outbox, DeadLetters, MessageStore],
      exports: [TransactionsModule, Inbox, Outbox, DeadLetters, MessageStore],
    };
  }
}
