import { type DynamicModule, Module } from '@nestjs/common';
import { ModuleRef } from '@nestjs/core';
import { TerminusModule } from '@nestjs/terminus';
import { HealthController, READINESS_SOURCES, type ReadinessSource } from './health.controller.js';
import { Metrics, MetricsController } from './metrics.controller.js';

/** `/health/live`, `/health/ready` and `/metrics`, for the people on call. */
@Module({})
export class OperationsModule {
  /** @param sources what readiness depends on beside the database and its migrations */
  static forRoot(sources: (moduleRef: ModuleRef) => readonly ReadinessSource[]): DynamicModule {
    return {
      module: OperationsModule,
      imports: [TerminusModule.forRoot({ logger: false })],
      controllers: [HealthController, MetricsController],
      providers: [Metrics, { provide: READINESS_SOURCES, inject: [ModuleRef], useFactory: sources }],
      exports: [Metrics],
    };
  }
}
