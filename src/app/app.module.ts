// app/: The service around PeopleModule: its settings, its HTTP server, how it starts, migrates and stops.
// Promises: a setting is checked before anything starts; stopping ends in time, and names what it has cut.
// May know: every other room; it alone reads settings from the environment, and starts what is in dev/.

import { type DynamicModule, Logger, Module } from '@nestjs/common';
import { APP_FILTER, APP_GUARD, HttpAdapterHost } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { peopleMigrations } from '../../migrations/index.js';
import { dataSourceOptions } from '../database/data-source-options.js';
import { markLost } from '../database/database-failure.js';
import { ProblemDetailsFilter } from '../errors/error-responses.js';
import { standingFor, ToldRarely } from '../errors/told-rarely.js';
import { KafkaTransport } from '../messaging/kafka.transport.js';
import { MessageStore } from '../messaging/message-store.js';
import { ConsoleModule } from '../operations/console/console.module.js';
import { MessageOperationsModule } from '../operations/dead-letters/dead-letters.module.js';
import type { Leveled } from '../operations/logs/level.js';
import { LogsModule } from '../operations/logs/logs.module.js';
import { OperationsModule } from '../operations/operations.module.js';
import { PeopleTable } from '../people/table/known-table.js';
import { PeopleModule } from '../people/people.module.js';
import {
  BearerTokenGuard,
  callerOfToken,
  mayReadByToken,
  operatorByToken,
} from './http/bearer-token.guard.js';
import type { Environment } from './settings.js';
import { kafkaTransport } from './kafka-client.js';
import { mayReadReasons } from './http/operations-access.js';
import { stopTimesOf } from './stop-application.js';

/** The environment once every server it needs is known. */
export type ServiceSettings = Environment & {
  database: { url: string };
  kafka: (NonNullable<Environment['kafka']> & { brokers: string[] }) | undefined;
};

/** The composition root: one DataSource, and PeopleModule behind HTTP, Kafka and DI on it. */
@Module({})
export class AppModule {
  /** @param logger whose level the people on call may change */
  static forRoot(settings: ServiceSettings, logger: Leveled): DynamicModule {
    const { database, recycling, preparedStatements, sharedStatements, statementComments, maxAttempts } =
      settings;
    const { inboxRetentionMs, auth, kafka, events } = settings;
    const times = stopTimesOf(settings);
    const pool = new Logger('Pool');
    const told = new ToldRarely();
    // Where the server is stopped all of them are.
    const tellLost = (err: Error) =>
      told.of(err.message, (more) =>
        pool.warn({ msg: 'an idle connection was lost', ...standingFor(more), err }),
      );
    return {
      module: AppModule,
      imports: [
        TypeOrmModule.forRootAsync({
          useFactory: () => ({
            ...dataSourceOptions(database, tellLost),
            autoLoadEntities: true,
            migrations: peopleMigrations,
            retryAttempts: 5,
            retryDelay: 1000,
          }),
          dataSourceFactory: connect,
        }),
        PeopleModule.forRoot({
          controllers: { http: true, messages: kafka !== undefined },
          events: events && kafka !== undefined,
          transactions: {
            ...{
              recycling,
              preparedStatements,
              statementComments,
              maxAttempts,
              drainTimeoutMs: times.drainMs,
            },
            ...(sharedStatements !== undefined && { sharedStatements }),
          },
          inboxRetentionMs,
          ...settings.people,
          memoryBudgetBytes: settings.http.memoryBudgetBytes,
          maxDataBytes: settings.maxDataBytes,
          maxNameBytes: settings.maxNameBytes,
          bodyLimitBytes: settings.http.bodyLimitBytes,
          bulkBodyLimitBytes: settings.http.bulkBodyLimitBytes,
          minBodyBytesPerSecond: settings.http.minBodyBytesPerSecond,
          bodyGraceMs: settings.http.bodyGraceMs,
          caller: callerOfToken,
          mayRead: mayReadByToken,
        }),
        OperationsModule.forRoot(
          (moduleRef) => [
            {
              name: 'people',
              unavailableReason: (query) =>
                moduleRef.get(PeopleTable, { strict: false }).unavailableReason(query),
            },
            ...(kafka
              ? [
                  {
                    name: 'kafka',
                    group: 'messages',
                    unavailableReason: () =>
                      moduleRef.get(KafkaTransport, { strict: false }).unavailableReason,
                  },
                  {
                    name: 'offsets',
                    group: null,
                    unavailableReason: () => moduleRef.get(KafkaTransport, { strict: false }).offsetsAhead,
                  },
                ]
              : []),
          ],
          mayReadReasons,
          settings.readinessGroups,
        ),
        MessageOperationsModule.forRoot({ operatorOf: operatorByToken }),
        LogsModule.forRoot(logger, operatorByToken),
        ConsoleModule,
      ],
      providers: [
        { provide: APP_FILTER, useClass: ProblemDetailsFilter },
        // A guard costs each request a little, and without tokens it has nothing to do.
        ...(auth.method === 'none'
          ? []
          : [
              {
                provide: APP_GUARD,
                inject: [HttpAdapterHost],
                useFactory: (adapterHost: HttpAdapterHost) => new BearerTokenGuard(auth, adapterHost),
              },
            ]),
        ...(kafka
          ? [
              {
                provide: KafkaTransport,
                inject: [MessageStore],
                useFactory: (store: MessageStore) => kafkaTransport(kafka, store, times),
              },
            ]
          : []),
      ],
    };
  }
}

/** Says where a failure arose, for whoever starts the service and has to tell one of the database from others. */
async function connect(options?: DataSourceOptions): Promise<DataSource> {
  try {
    return await new DataSource(options!).initialize();
  } catch (error) {
    markLost(error as Error, error);
    throw error;
  }
}
