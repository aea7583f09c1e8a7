import { Controller, Get, Header, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { ApiOperation, ApiProduces, ApiTags } from '@nestjs/swagger';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { DataSource } from 'typeorm';
import type { KafkaTransport } from '../messaging/kafka.transport.js';
import { Histogram, type Series } from './metrics/histogram.js';
import { showTransport } from './metrics/kafka.js';
import { countMessages } from './metrics/messages.js';
import { showPool } from './metrics/pool.js';
import { SourceUp } from './metrics/sources.js';
import { showStore } from './metrics/store.js';
import { countTransactions } from './metrics/transactions.js';

/** What this process counts, for Prometheus. Its own registry: two applications in one process stay apart. */
@Injectable()
export class Metrics implements OnApplicationShutdown {
  readonly registry = new Registry();
  private readonly requests = new Histogram({
    name: 'http_request_duration_seconds',
    help: 'Time from a request to the end of its answer, by the pattern of its route; none: no route is there.',
    registry: this.registry,
  });
  private readonly series = new Map<string, Series>();
  private readonly sources = new SourceUp(this.registry);
  private readonly listening: readonly (() => void)[];

  constructor(dataSource: DataSource) {
    const { registry } = this;
    collectDefaultMetrics({ register: registry });
    showPool(registry, dataSource);
    showStore(registry, dataSource, this.sources);
    this.listening = [countTransactions(registry), countMessages(registry)];
  }

  /** Shows what a transport has as well. */
  showTransport(transport: KafkaTransport): void {
    showTransport(this.registry, transport, this.sources);
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
    for (const end of this.listening) end();
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
