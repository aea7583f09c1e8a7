// operations/metrics/: What this process counts and shows of itself, for Prometheus.
// Promises: a scrape is answered whatever is away; the number of series is bounded; counting costs little.
// May know: messaging/ and below, for their events and figures; neither people nor who scrapes.

import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { DataSource } from 'typeorm';
import type { WatchedTransport } from '../../messaging/telemetry/transport-figures.js';
import { Histogram, type Series } from './histogram.js';
import { showTransport } from './kafka.js';
import { type DroppedLines, showLog } from './log.js';
import { countMessages } from './messages.js';
import { showPool } from './pool.js';
import { SourceUp } from './sources.js';
import { showStore } from './store.js';
import { countTransactions } from './transactions.js';

/** What is shown beside what is people's own. */
export interface MetricsSettings {
  /** Whether the process is shown as well: memory, garbage collection, the event loop. Default true. */
  ofProcess?: boolean;
  /** Whether HTTP requests are shown as well, of which somebody tells by `observeRequest`. Default false. */
  ofRequests?: boolean;
}

/** What this process counts, for Prometheus. Its own registry: two applications in one process stay apart. */
@Injectable()
export class Metrics implements OnApplicationShutdown {
  readonly registry = new Registry();
  private readonly requests: Histogram | undefined;
  /** By route, method and status: a key made of the three would be hashed for each request. */
  private readonly series = new Map<string, Map<string, Series[]>>();
  private readonly sources = new SourceUp(this.registry);
  private readonly listening: readonly (() => void)[];

  constructor(dataSource: DataSource, { ofProcess = true, ofRequests = false }: MetricsSettings = {}) {
    const { registry } = this;
    this.requests = ofRequests ? requestsOf(registry) : undefined;
    if (ofProcess) collectDefaultMetrics({ register: registry });
    showPool(registry, dataSource);
    showStore(registry, dataSource, this.sources);
    this.listening = [countTransactions(registry), countMessages(registry)];
  }

  /** Shows what a transport has as well. */
  showTransport(transport: WatchedTransport): void {
    showTransport(this.registry, transport, this.sources);
  }

  /** Shows what a log has lost as well. */
  showLog(log: DroppedLines): void {
    showLog(this.registry, log);
  }

  /** @param route the pattern, not the path: ids would make a series each */
  observeRequest(method: string, route: string, status: number, seconds: number): void {
    const { requests } = this;
    if (!requests) return;
    let ofRoute = this.series.get(route);
    if (!ofRoute) this.series.set(route, (ofRoute = new Map<string, Series[]>()));
    let ofMethod = ofRoute.get(method);
    if (!ofMethod) ofRoute.set(method, (ofMethod = []));
    const series = (ofMethod[status] ??= requests.labels({ method, route, status: String(status) }));
    series.observe(seconds);
  }

  onApplicationShutdown(): void {
    for (const end of this.listening) end();
    this.registry.clear();
  }
}

function requestsOf(registry: Registry): Histogram {
  return new Histogram({
    name: 'http_request_duration_seconds',
    help: 'Time from a request to the end of its answer, by the pattern of its route; none: no route is there.',
    registry,
  });
}
