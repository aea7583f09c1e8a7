// What `nestjs-people/metrics` exports: metrics for a host. Apart, as it needs prom-client.

import { type DynamicModule, Module, type OnModuleInit } from '@nestjs/common';
import { ModuleRef } from '@nestjs/core';
import { MessageStore } from './messaging/message-store.js';
import { Metrics } from './operations/metrics/metrics.js';
import { MetricsModule, type MetricsOptions } from './operations/metrics/metrics.module.js';

export { Metrics as PeopleMetrics } from './operations/metrics/metrics.js';

/** Options of `PeopleMetricsModule.forRoot`. */
export type PeopleMetricsOptions = Omit<MetricsOptions, 'ofRequests'>;

/**
 * `/metrics` for Prometheus in an application with people in it: units of work, messages, the pool, and what waits in the database;
 * of Kafka as soon as a `KafkaTransport` with `store` listens. An application that has metrics of its own takes them into these:
 * `forRoot({ route: false, ofProcess: false })`, and `Registry.merge([register, app.get(PeopleMetrics).registry])`. Needs
 * `PeopleModule` and prom-client. The route is guarded by whatever guards the application's routes.
 */
@Module({})
export class PeopleMetricsModule implements OnModuleInit {
  constructor(
    private readonly metrics: Metrics,
    private readonly moduleRef: ModuleRef,
  ) {}

  static forRoot(options: PeopleMetricsOptions = {}): DynamicModule {
    const metrics = MetricsModule.forRoot(options);
    return { module: PeopleMetricsModule, imports: [metrics], exports: [metrics] };
  }

  onModuleInit(): void {
    let isShown = false;
    this.moduleRef.get(MessageStore, { strict: false }).watchTransports((transport) => {
      // A second one would have the same names.
      if (!isShown) this.metrics.showTransport(transport);
      isShown = true;
    });
  }
}
