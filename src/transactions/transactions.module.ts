// transactions/: Units of work that retry, and their doors into Nest: runner, decorator, interceptor.
// Promises: what returns is committed, what throws is not; 40001 and 40P01 run again, at most ten attempts.
// May know: database/ and below; nothing of messages or people.

import {
  type DynamicModule,
  Module,
  type ModuleMetadata,
  type OnModuleInit,
  type Type,
} from '@nestjs/common';
import type { Pool } from 'pg';
import { ApplicationErrorFilter } from '../errors/application-error.filter.js';
import { assertPgInternals } from '../database/pg/self-test.js';
import { poolOf } from '../database/pooled-client.js';
import { assertSupportedVersions } from '../database/versions/supported.js';
import { checkedBy } from './setup/known-options.js';
import { providedDataSource } from './setup/provided-data-source.js';
import { SharedModule } from './setup/shared-module.js';
import { transactionRules } from './setup/transaction-rules.js';
import type { TransactionRunnerSettings } from './transaction-options.js';
import { TRANSACTION_SETTINGS, TRANSACTIONS_DATA_SOURCE, TransactionRunner } from './transaction-runner.js';

/** Options of `TransactionsModule.forRoot`: the defaults of every unit of work. */
export interface TransactionsModuleOptions extends TransactionRunnerSettings {
  /** Name of the TypeORM DataSource whose pool is used; left out, the application's default one. */
  dataSource?: string;
  /** True to make `TransactionRunner` injectable, and `@Transactional` usable, everywhere. Default false. */
  isGlobal?: boolean;
}

/** Options of `TransactionsModule.forRootAsync`. `dataSource` and `isGlobal` shape the module graph and so stand beside the factory. */
export interface TransactionsModuleAsyncOptions extends Pick<ModuleMetadata, 'imports'> {
  /** As of `TransactionsModuleOptions`. */
  dataSource?: string;
  /** As of `TransactionsModuleOptions`. */
  isGlobal?: boolean;
  /** What the factory is given. */
  inject?: (Type | string | symbol)[];
  /** Gives the options, once, when the application starts. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- the factory's parameters are what `inject` names
  useFactory: (...dependencies: any[]) => TransactionRunnerSettings | Promise<TransactionRunnerSettings>;
}

/** Options that need no factory, as one gives them. */
export function knownNow({
  dataSource,
  isGlobal = false,
  ...settings
}: TransactionsModuleOptions): TransactionsModuleAsyncOptions {
  return { ...(dataSource && { dataSource }), isGlobal, useFactory: () => settings };
}

/** What is exported, by token. */
export const TRANSACTIONS_EXPORTS = [TransactionRunner, TRANSACTIONS_DATA_SOURCE];

const shared = new SharedModule('TransactionsModule', TRANSACTIONS_EXPORTS, () =>
  TransactionsModule.forRoot(),
);

@Module({})
class TransactionsCoreModule {}

/**
 * Provides `TransactionRunner` on one of the application's TypeORM DataSources. Needs a `TypeOrmModule.forRoot`.
 *
 * `forRoot` sets it up once, in the root module. Where `TransactionRunner` is injected, import it without options, as
 * `imports: [TransactionsModule]`: that is the same one. `PeopleModule` and `MessagingModule` set it up as well.
 */
@Module(shared.bare)
export class TransactionsModule implements OnModuleInit {
  constructor(private readonly runner: TransactionRunner) {}

  /** Nest's hook: checks that this pg fits, and learns about the server. @internal */
  async onModuleInit(): Promise<void> {
    const { dataSource } = this.runner;
    assertSupportedVersions();
    const pool = poolOf(dataSource) as Pool | undefined;
    // There is none where the application connects later: then whatever is wrong shows with the first statement.
    if (pool) assertPgInternals(pool);
    await this.runner.know();
  }

  /** The defaults of every unit of work, known now. */
  static forRoot(options: TransactionsModuleOptions = {}): DynamicModule {
    return this.forRootAsync(knownNow(options));
  }

  /** The same, from a factory. */
  static forRootAsync(options: TransactionsModuleAsyncOptions): DynamicModule {
    const useFactory = checkedBy(transactionRules, 'TransactionsModule.forRoot', options);
    return transactionsModule({ ...options, useFactory });
  }
}

/** `TransactionsModule` with options that were checked by whoever sets it up. */
export function transactionsModule({
  dataSource,
  isGlobal,
  imports = [],
  inject = [],
  useFactory,
}: TransactionsModuleAsyncOptions): DynamicModule {
  const core: DynamicModule = {
    module: TransactionsCoreModule,
    imports,
    providers: [
      providedDataSource(TRANSACTIONS_DATA_SOURCE, dataSource),
      { provide: TRANSACTION_SETTINGS, inject, useFactory },
      TransactionRunner,
      // Wherever our errors may be thrown.
      ApplicationErrorFilter,
    ],
    exports: TRANSACTIONS_EXPORTS,
  };
  return shared.setUp(TransactionsModule, { core, dataSource, isGlobal });
}
