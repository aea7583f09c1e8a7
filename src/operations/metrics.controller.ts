import { Controller, Get, Header, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { ApiOperation, ApiProduces, ApiTags } from '@nestjs/swagger';
import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { DataSource } from 'typeorm';
import type { Pool } from 'pg';
import { poolOf } from '../database/pooled-client.js';
import { Histogram, type Series } from './histogram.js';
import { TransactionMetrics } from './transaction-metrics.js';

/** What this process counts, for Prometheus. Its own registry: two applications in one process stay apart. */
@Injectable()
export class Metrics implements OnApplicationShutdown {
  readonly registry = new Registry();
  private readonly requests = new Histogram({
    name: 'http_request_duration_seconds',
    help: 'Time from a request to the end of its answer.',
    registry: this.registry,
  });
  private readonly series = new Map<string, Series>();
  private readonly transactions = new TransactionMetrics(this.registry);

  constructor(dataSource: DataSource) {
    collectDefaultMetrics({ register: this.registry });
    new Gauge({
      name: 'people_pool_connections',
      help: 'Connections of the database pool: open, idle, and callers waiting for one.',
      labelNames: ['state'],
      registers: [this.registry],
      collect() {
        const pool = poolOf(dataSource) as Pool | undefined;
        this.set({ state: 'open' }, pool?.totalCount ?? 0);
        this.set({ state: 'idle' }, pool?.idleCount ?? 0);
        this.set({ state: 'waiting' }, pool?.waitingCount ?? 0);
      },
    });
    this.transactions.watch();
  }

  /** @param route the pattern, not the path: ids would make a series each */
  observeRequest(method: string, route: string, status: number, seconds: number): void {
    const key = `${method} ${route} ${status}`;
    let series = this.series.get(key);
    if (!series)
      this.series.set(key, (series = this.requests.labels({ method, route, status: String(status) })));
    series.observe(seconds);
  }

  onApplicationShutdown(): void {
    this.transactions.unwatch();
    this.registry.clear();
  }
}

@Controller('metrics')
@ApiTags('operations')
export class MetricsController {
  constructor(private readonly metrics: Metrics) {}

  @Get()
  @Header('Content-Type', 'text/plain; version=0.0.4; charset=utf-8')
  @ApiOperation({ summary: 'Prometheus metrics' })
  @ApiProduces('text/plain')
  read(): Promise<string> {
    return this.metrics.registry.metrics();
  }
}
