// people/: The feature: people, what may be done with them, and the module that a host imports.
// Promises: each operation is one unit of work, refused alike at every door; no digit of `data` changes.
// May know: messaging/ and everything below it.

import {
  type DynamicModule,
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
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import type { TransactionRunnerSettings } from '../transactions/transaction-options.js';
import type { MessagingSettings } from '../messaging/messaging-settings.js';
import { MessagingModule } from '../messaging/messaging.module.js';
import type { JsonObject } from '../json/lossless.js';
import { continueTrace } from '../tracing/continue-trace.js';
import { ByteBudget, DEFAULT_BUDGET_BYTES, DEFAULT_WAIT_MS } from './byte-budget.js';
import { NDJSON } from '../json/ndjson.js';
import { PeopleHttpController } from './http/controller.js';
import { PeopleMessagesController } from './messages/controller.js';
import { PEOPLE_DATA_SOURCE, PEOPLE_OPTIONS, type PeopleOptions } from './people.options.js';
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

@Module({})
class PeopleOptionsModule {}

/** The module behind `PeopleModule`; apart from it so that `imports: [PeopleModule]` alone works, with every default. */
@Module({})
export class PeopleCoreModule implements NestModule, OnModuleInit {
  constructor(private readonly adapterHost: HttpAdapterHost) {}

  static forRootAsync<Data extends object>(options: PeopleModuleAsyncOptions<Data>): DynamicModule {
    const { dataSource, controllers = {}, isGlobal = false, imports = [], inject = [], useFactory } = options;
    const { http = true, messages = true } = controllers;
    const optionsModule: DynamicModule = {
      module: PeopleOptionsModule,
      imports,
      providers: [{ provide: PEOPLE_OPTIONS, inject, useFactory }],
      exports: [PEOPLE_OPTIONS],
    };
    return {
      module: PeopleCoreModule,
      global: isGlobal,
      imports: [
        optionsModule,
        TypeOrmModule.forFeature([Person], dataSource),
        MessagingModule.forRootAsync({
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
      controllers: [
        ...(http ? [PeopleHttpController] : []),
        ...(messages ? [PeopleMessagesController] : []),
      ] as Type[],
      providers: [
        { provide: PEOPLE_DATA_SOURCE, useExisting: getDataSourceToken(dataSource) },
        {
          provide: ByteBudget,
          inject: [PEOPLE_OPTIONS],
          useFactory: ({
            memoryBudgetBytes = DEFAULT_BUDGET_BYTES,
            memoryWaitMs = DEFAULT_WAIT_MS,
          }: PeopleOptions) => new ByteBudget(memoryBudgetBytes, memoryWaitMs),
        },
        PeopleTable,
        PeopleService,
      ],
      exports: [PeopleService, PEOPLE_DATA_SOURCE, MessagingModule],
    };
  }

  /** The routes of people continue the trace of their requests; of Fastify by a hook, as its middleware costs each request more. */
  configure(consumer: MiddlewareConsumer): void {
    if (this.platform() === 'fastify') return;
    consumer.apply(continueTrace).forRoutes(PeopleHttpController);
  }

  private platform(): string | undefined {
    return (this.adapterHost.httpAdapter as typeof this.adapterHost.httpAdapter | undefined)?.getType();
  }

  /** Fastify refuses media types it has no parser for; the ones of our routes are left to be read behind the guards. */
  onModuleInit(): void {
    if (this.platform() !== 'fastify') return;
    const fastify = this.adapterHost.httpAdapter.getInstance<FastifyParsers>();
    fastify.addHook('onRequest', continueTrace);
    for (const type of [NDJSON, 'application/merge-patch+json'])
      if (!fastify.hasContentTypeParser(type))
        fastify.addContentTypeParser(type, {}, (_request, body, done) => done(null, body));
  }
}

interface FastifyParsers {
  addHook(name: 'onRequest', hook: typeof continueTrace): void;
  hasContentTypeParser(type: string): boolean;
  addContentTypeParser(
    type: string,
    options: object,
    parser: (request: unknown, body: unknown, done: (error: null, body: unknown) => void) => void,
  ): void;
}

/**
 * People in a Nest application: HTTP routes `/people`, message patterns `people.*`, and `PeopleService` and
 * `TransactionRunner` for injection, all on one of the application's DataSources. Needs `TypeOrmModule.forRoot` with
 * `autoLoadEntities: true` (or `Person` among its entities), the migrations `peopleMigrations`, and, for the HTTP routes,
 * an application created with `rawBody: true`.
 *
 * `imports: [PeopleModule]` takes every default.
 */
@Module({
  imports: [PeopleCoreModule.forRootAsync({ useFactory: () => ({}) })],
  exports: [PeopleCoreModule],
})
export class PeopleModule {
  /** The module with these options; `{}` takes every default. */
  static forRoot<Data extends object = JsonObject>(options: PeopleModuleOptions<Data> = {}): DynamicModule {
    const { dataSource, controllers, isGlobal, ...runtime } = options;
    return PeopleCoreModule.forRootAsync<Data>({
      ...(dataSource && { dataSource }),
      ...(controllers && { controllers }),
      ...(isGlobal && { isGlobal }),
      useFactory: () => runtime,
    });
  }

  /** The options from a factory; `dataSource`, `controllers` and `isGlobal` stand beside it. */
  static forRootAsync<Data extends object = JsonObject>(
    options: PeopleModuleAsyncOptions<Data>,
  ): DynamicModule {
    return PeopleCoreModule.forRootAsync(options);
  }
}
