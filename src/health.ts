// What `nestjs-people/health` exports: readiness for a host. Apart, as it needs @nestjs/terminus.

import { type DynamicModule, Module } from '@nestjs/common';
import type { ModuleRef } from '@nestjs/core';
import { MessageStore } from './messaging/message-store.js';
import type { WatchedTransport } from './messaging/telemetry/transport-figures.js';
import type { MayReadReasons } from './operations/health/controller.js';
import { HealthModule } from './operations/health/health.module.js';
import type { ReadinessSource } from './operations/health/readiness.js';
import { PeopleTable } from './people/table/known-table.js';

export { type MayReadReasons } from './operations/health/controller.js';
export { type ReadinessSource } from './operations/health/readiness.js';

/** Options of `PeopleHealthModule.forRoot`. */
export interface PeopleHealthOptions {
  /** Name of the TypeORM DataSource that people works on; left out, the application's default one. */
  dataSource?: string;
  /** What readiness depends on in this application beside people, its database and Kafka. */
  sources?: readonly ReadinessSource[];
  /**
   * Whether the sender of a request is told why something is not ready, and what there is: `(request) => request.user !== undefined`.
   * Default: nobody is, and an answer is its status alone.
   */
  mayReadReasons?: MayReadReasons;
}

/**
 * `/health/live` and `/health/ready` for an application with people in it, in terminus' shape: `/health/ready` covers the database,
 * its migrations and the table of people, `/health/ready?group=messages` also Kafka, where a `KafkaTransport` with `store` listens.
 * Looks are made on a connection beside the pool and within a second, once for all who ask at once. Needs `PeopleModule` and
 * `@nestjs/terminus`.
 */
@Module({})
export class PeopleHealthModule {
  static forRoot({ dataSource, sources = [], mayReadReasons }: PeopleHealthOptions = {}): DynamicModule {
    return {
      module: PeopleHealthModule,
      imports: [
        HealthModule.forRoot({
          ...(dataSource && { dataSource }),
          sources: (moduleRef) => [...sourcesOf(moduleRef), ...sources],
          mayReadReasons: mayReadReasons ?? (() => false),
        }),
      ],
    };
  }
}

function sourcesOf(moduleRef: ModuleRef): ReadinessSource[] {
  const transports = () => moduleRef.get(MessageStore, { strict: false }).transports;
  const isThere = () => transports().length > 0;
  const first = (reasonOf: (transport: WatchedTransport) => string | undefined) =>
    transports()
      .map(reasonOf)
      .find((reason) => reason !== undefined);
  return [
    {
      name: 'people',
      unavailableReason: (query) => moduleRef.get(PeopleTable, { strict: false }).unavailableReason(query),
    },
    {
      name: 'kafka',
      group: 'messages',
      isThere,
      unavailableReason: () => first(({ unavailableReason }) => unavailableReason),
    },
    {
      name: 'offsets',
      group: null,
      isThere,
      unavailableReason: () => first(({ offsetsAhead }) => offsetsAhead),
    },
  ];
}
