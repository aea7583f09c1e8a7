// operations/: Health, metrics and logs, for the people on call.
// Promises: works for any feature; a log line and an answer are bounded, whatever is in them.
// May know: messaging/ and below; nothing of people.

import { type DynamicModule, Module } from '@nestjs/common';
import { ModuleRef } from '@nestjs/core';
import { TerminusModule } from '@nestjs/terminus';
import {
  HealthController,
  MAY_READ_REASONS,
  type MayReadReasons,
  READINESS_GROUPS,
} from './health/controller.js';
import { DatabaseProbe } from './health/database-probe.js';
import { HTTP_GROUP, Readiness, READINESS_SOURCES, type ReadinessSource } from './health/readiness.js';
import { Stopping } from './health/stopping.js';
import { Metrics } from './metrics/metrics.js';
import { MetricsController } from './metrics.controller.js';

/** `/health/live`, `/health/ready` and `/metrics`, for the people on call. */
@Module({})
export class OperationsModule {
  /**
   * @param sources what readiness depends on beside the database and its migrations
   * @param mayReadReasons whether the sender of a request is told why something is not ready, and what there is; default: everybody
   * @param groups what `/health/ready` is about where no group is asked for; default: what HTTP needs
   */
  static forRoot(
    sources: (moduleRef: ModuleRef) => readonly ReadinessSource[],
    mayReadReasons: MayReadReasons = () => true,
    groups: readonly string[] = [HTTP_GROUP],
  ): DynamicModule {
    return {
      module: OperationsModule,
      imports: [TerminusModule.forRoot({ logger: false })],
      controllers: [HealthController, MetricsController],
      providers: [
        Metrics,
        Stopping,
        DatabaseProbe,
        Readiness,
        { provide: READINESS_SOURCES, inject: [ModuleRef], useFactory: sources },
        { provide: MAY_READ_REASONS, useValue: mayReadReasons },
        { provide: READINESS_GROUPS, useValue: groups },
      ],
      exports: [Metrics, Stopping],
    };
  }
}
