// operations/: Health, metrics and logs, for the people on call.
// Promises: works for any feature; a log line and an answer are bounded, whatever is in them.
// May know: messaging/ and below; nothing of people.

import { type DynamicModule, Module } from '@nestjs/common';
import type { ModuleRef } from '@nestjs/core';
import type { MayReadReasons } from './health/controller.js';
import { HealthModule } from './health/health.module.js';
import type { ReadinessSource } from './health/readiness.js';
import { MetricsModule } from './metrics/metrics.module.js';

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
    groups?: readonly string[],
  ): DynamicModule {
    const health = HealthModule.forRoot({ sources, mayReadReasons, ...(groups && { groups }) });
    return { module: OperationsModule, imports: [health, MetricsModule.forRoot({ ofRequests: true })] };
  }
}
