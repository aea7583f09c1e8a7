import { type DynamicModule, Module } from '@nestjs/common';
import { ModuleRef } from '@nestjs/core';
import { TerminusModule } from '@nestjs/terminus';
import { getDataSourceToken } from '@nestjs/typeorm';
import type { DataSource } from 'typeorm';
import { HealthController, MAY_READ_REASONS, type MayReadReasons, READINESS_GROUPS } from './controller.js';
import { DatabaseProbe } from './database-probe.js';
import { HTTP_GROUP, Readiness, READINESS_SOURCES, type ReadinessSource } from './readiness.js';
import { Stopping } from './stopping.js';

/** Options of `HealthModule.forRoot`. */
export interface HealthOptions {
  /** Name of the TypeORM DataSource that readiness depends on; left out, the application's default one. */
  dataSource?: string;
  /** What readiness depends on beside the database and its migrations. */
  sources: (moduleRef: ModuleRef) => readonly ReadinessSource[];
  /** Whether the sender of a request is told why something is not ready, and what there is. */
  mayReadReasons: MayReadReasons;
  /** What `/health/ready` is about where no group is asked for; default: what HTTP needs. */
  groups?: readonly string[];
}

/** `/health/live` and `/health/ready`. */
@Module({})
export class HealthModule {
  static forRoot({
    dataSource,
    sources,
    mayReadReasons,
    groups = [HTTP_GROUP],
  }: HealthOptions): DynamicModule {
    return {
      module: HealthModule,
      imports: [TerminusModule.forRoot({ logger: false })],
      controllers: [HealthController],
      providers: [
        Stopping,
        Readiness,
        {
          provide: DatabaseProbe,
          inject: [getDataSourceToken(dataSource)],
          useFactory: (source: DataSource) => new DatabaseProbe(source),
        },
        { provide: READINESS_SOURCES, inject: [ModuleRef], useFactory: sources },
        { provide: MAY_READ_REASONS, useValue: mayReadReasons },
        { provide: READINESS_GROUPS, useValue: groups },
      ],
      exports: [Readiness, Stopping],
    };
  }
}
