// people/: The feature: people, what may be done with them, and the module that a host imports.
// Promises: each operation is one unit of work, refused alike at every door; no digit of `data` changes.
// May know: messaging/ and everything below it.

import {
  type DynamicModule,
  forwardRef,
  type InjectionToken,
  type MiddlewareConsumer,
  Module,
  type ModuleMetadata,
  type NestModule,
  type OnModuleInit,
  type OptionalFactoryDependency,
  type Type,
} from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import type { TransactionRunnerSettings } from '../transactions/transaction-options.js';
import { messagingRules, type MessagingSettings } from '../messaging/messaging-settings.js';
import { MESSAGING_EXPORTS, messagingModule, MessagingModule } from '../messaging/messaging.module.js';
import { checkedBy, type RulesFor } from '../transactions/setup/known-options.js';
import { SharedModule } from '../transactions/setup/shared-module.js';
import { settingRules } from '../transactions/setup/transaction-rules.js';
import { TRANSACTIONS_DATA_SOURCE } from '../transactions/transaction-runner.js';
import type { JsonObject } from '../json/lossless.js';
import { continueTrace } from '../tracing/continue-trace.js';
import { ByteBudget, DEFAULT_BUDGET_BYTES, DEFAULT_WAIT_MS } from './byte-budget.js';
import { PeopleHttpController } from './http/controller.js';
import { UnreadBodies } from './http/unread-bodies.js';
import { PeopleMessagesController } from './messages/controller.js';
import {
  PEOPLE_DATA_SOURCE,
  PEOPLE_OPTIONS,
  type PeopleOptions,
  peopleOptionRules,
} from './people.options.js';
import { PeopleService } from './people.service.js';
import { PeopleTable } from './table/known-table.js';
import { Person } from './person.entity.js';

/** What shapes the module graph, and so can't come from an async factory. */
export interface PeopleModuleExtras {
  /** Name of the TypeORM DataSource to work on; left out, the application's default one. */
  dataSource?: string;
  /** Which doors are open; both by default. DI always is. */
  controllers?: { http?: boolean; messages?: boolean };
  /** True to make PeopleService injectable everywhere. Default false. */
  isGlobal?: boolean;
}

/** What may come from an async factory. */
export interface PeopleRuntimeOptions<Data extends object = JsonObject>
  extends PeopleOptions<Data>, MessagingSettings {
  /** Defaults of every unit of work. */
  transactions?: TransactionRunnerSettings;
}

/** Options of `PeopleModule.forRoot`. */
export type PeopleModuleOptions<Data extends object = JsonObject> = PeopleModuleExtras &
  PeopleRuntimeOptions<Data>;

/** Options of `PeopleModule.forRootAsync`. */
export interface PeopleModuleAsyncOptions<Data extends object = JsonObject>
  extends PeopleModuleExtras, Pick<ModuleMetadata, 'imports'> {
  /** What the factory is given. */
  inject?: (InjectionToken | OptionalFactoryDependency)[];
  /** Gives the options, once, when the application starts. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- the factory's parameters are what `inject` names
  useFactory: (...dependencies: any[]) => PeopleRuntimeOptions<Data> | Promise<PeopleRuntimeOptions<Data>>;
}

/** What the options may be. */
const peopleRules = {
  ...peopleOptionRules,
  ...messagingRules,
  transactions: { options: settingRules },
  dataSource: 'a text',
  controllers: { options: { http: 'a boolean', messages: 'a boolean' } },
  isGlobal: 'a boolean',
} satisfies RulesFor<PeopleModuleOptions>;

/** What is exported, by token. */
const PEOPLE_EXPORTS = [...MESSAGING_EXPORTS, PeopleService, PEOPLE_DATA_SOURCE];

const shared = new SharedModule('PeopleModule', PEOPLE_EXPORTS, () => PeopleModule.forRoot());

@Module({})
class PeopleOptionsModule {}

/** Where people are provided; the routes and handlers are of `PeopleModule` itself, so that `RouterModule` finds them by its name. */
@Module({})
class PeopleCoreModule implements NestModule, OnModuleInit {
  constructor(
    private readonly adapterHost: HttpAdapterHost,
    private readonly bodies: UnreadBodies,
  ) {}

  /** The routes of people continue the trace of their requests; of Fastify by a hook, as its middleware costs each request more. */
  configure(consumer: MiddlewareConsumer): void {
    if (this.platform() === 'fastify') return this.bodies.prepareFastify();
    consumer.apply(continueTrace).forRoutes(PeopleHttpController);
  }

  private platform(): string | undefined {
    return (this.adapterHost.httpAdapter as typeof this.adapterHost.httpAdapter | undefined)?.getType();
  }

  onModuleInit(): void {
    if (this.platform() === 'express') this.bodies.prepareExpress();
    if (this.platform() !== 'fastify') return;
    const fastify = this.adapterHost.httpAdapter.getInstance<FastifyHooks>();
    fastify.addHook('onRequest', continueTrace);
  }
}

interface FastifyHooks {
  addHook(name: 'onRequest', hook: typeof continueTrace): void;
}

/** A DataSource with `autoLoadEntities` learns of the entity when the modules are read, before it is made. */
function autoLoadPerson(dataSource?: string): void {
  TypeOrmModule.forFeature([Person], dataSource);
}

/** Is imported by a `PeopleModule` without options, once an application has it: a host of other parts alone has no such entity. */
@Module({})
class PersonEntityModule {}

/**
 * People in a Nest application: HTTP routes `/people`, message patterns `people.*`, and `PeopleService` and
 * `TransactionRunner` for injection, all on one of the application's DataSources. Needs `TypeOrmModule.forRoot` with
 * `autoLoadEntities: true` (or `Person` among its entities), and the migrations `peopleMigrations`.
 *
 * `forRoot` sets it up once, in the root module. Where `PeopleService` is injected, import it without options, as
 * `imports: [PeopleModule]`: that is the same one, wherever and in whichever order the two stand. Without any `forRoot` it takes
 * every default.
 */
@Module({ ...shared.bare, imports: [forwardRef(() => (autoLoadPerson(), PersonEntityModule))] })
export class PeopleModule {
  /** The module with these options; `{}` takes every default. */
  static forRoot<Data extends object = JsonObject>(options: PeopleModuleOptions<Data> = {}): DynamicModule {
    const { dataSource, controllers, isGlobal, ...runtime } = options;
    return this.forRootAsync<Data>({
      ...(dataSource !== undefined && { dataSource }),
      ...(controllers !== undefined && { controllers }),
      ...(isGlobal !== undefined && { isGlobal }),
      useFactory: () => runtime,
    });
  }

  /** The options from a factory; `dataSource`, `controllers` and `isGlobal` stand beside it. */
  static forRootAsync<Data extends object = JsonObject>(
    options: PeopleModuleAsyncOptions<Data>,
  ): DynamicModule {
    const { dataSource, controllers: { http = true, messages = true } = {}, isGlobal } = options;
    const { imports = [], inject = [] } = options;
    const useFactory = checkedBy(peopleRules, 'PeopleModule.forRoot', options);
    const optionsModule: DynamicModule = {
      module: PeopleOptionsModule,
      imports,
      providers: [{ provide: PEOPLE_OPTIONS, inject, useFactory }],
      exports: [PEOPLE_OPTIONS],
    };
    autoLoadPerson(dataSource);
    const core: DynamicModule = {
      module: PeopleCoreModule,
      imports: [
        optionsModule,
        messagingModule({
          ...(dataSource && { dataSource }),
          imports: [optionsModule],
          inject: [PEOPLE_OPTIONS],
          useFactory: ({ transactions, inboxRetentionMs, pruneEveryMs }: PeopleRuntimeOptions) => ({
            ...transactions,
            ...(inboxRetentionMs !== undefined && { inboxRetentionMs }),
            ...(pruneEveryMs !== undefined && { pruneEveryMs }),
          }),
        }),
      ],
      providers: [
        { provide: PEOPLE_DATA_SOURCE, useExisting: TRANSACTIONS_DATA_SOURCE },
        {
          provide: ByteBudget,
          inject: [PEOPLE_OPTIONS],
          useFactory: ({
            memoryBudgetBytes = DEFAULT_BUDGET_BYTES,
            memoryWaitMs = DEFAULT_WAIT_MS,
          }: PeopleOptions) => new ByteBudget(memoryBudgetBytes, memoryWaitMs),
        },
        UnreadBodies,
        PeopleTable,
        PeopleService,
      ],
      exports: [PeopleService, PEOPLE_DATA_SOURCE, MessagingModule, optionsModule, ByteBudget, UnreadBodies],
    };
    const controllers = [
      ...(http ? [PeopleHttpController] : []),
      ...(messages ? [PeopleMessagesController] : []),
    ] as Type[];
    return shared.setUp(PeopleModule, { core, dataSource, isGlobal, controllers });
  }
}
