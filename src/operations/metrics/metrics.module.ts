import { type DynamicModule, Module } from '@nestjs/common';
import { getDataSourceToken } from '@nestjs/typeorm';
import type { DataSource } from 'typeorm';
import { MetricsController } from '../metrics.controller.js';
import { Metrics, type MetricsSettings } from './metrics.js';

/** Options of `MetricsModule.forRoot`. */
export interface MetricsOptions extends MetricsSettings {
  /** Name of the TypeORM DataSource whose pool and tables are shown; left out, the application's default one. */
  dataSource?: string;
  /** False: there is no route `/metrics`. */
  route?: boolean;
}

/** `/metrics`. */
@Module({})
export class MetricsModule {
  static forRoot({ dataSource, route = true, ...settings }: MetricsOptions = {}): DynamicModule {
    return {
      module: MetricsModule,
      controllers: route ? [MetricsController] : [],
      providers: [
        {
          provide: Metrics,
          inject: [getDataSourceToken(dataSource)],
          useFactory: (source: DataSource) => new Metrics(source, settings),
        },
      ],
      exports: [Metrics],
    };
  }
}
