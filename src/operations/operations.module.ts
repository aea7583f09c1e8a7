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
  READINESS_SOURCES,
  type ReadinessSource,
} from './health.controller.js';
import { Metrics } from './metrics/metrics.js';
import { MetricsController } from './metrics.controller.js';

/** `/health/live`, `/health/ready` and `/metrics`, for the people on call. */
@Module({})
export class OperationsModule {
  /**
   * @param sources what readiness depends on beside the database and its migrations
   * @param mayReadReasons whether the sender of a request is told why something is not ready, and what there is; default: everybody
   */
  static forRoot(
    sources: (moduleRef: ModuleRef) => readonly ReadinessSource[],
    mayReadReasons: MayReadReasons = () => true,
  ): DynamicModule {
    return {
      module: OperationsModule,
      imports: [TerminusModule.forRoot({ logger: false })],
      controllers: [HealthController, MetricsController],
      providers: [
        Metrics,
        { provide: READINESS_SOURCES, inject: [ModuleRef], useFactory: sources },
        { provide: MAY_READ_REASONS, useValue: mayReadReasons },
      ],
      exports: [Metrics],
    };
  }
}
