import type { Metric, Registry } from 'prom-client';

/** prom-client's own: seconds, for what clients wait for. */
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

export interface HistogramOptions {
  name: string;
  help: string;
  /** Upper bounds, ascending. Default: prom-client's. */
  buckets?: readonly number[];
  registry: Registry;
}

/**
 * A histogram in prom-client's registry whose series are counted into directly: prom-client's own finds the series of each
 * observation by its labels, which takes longer than all else that is done to count a request.
 */
export class Histogram {
  private readonly series: Series[] = [];

  constructor(private readonly options: HistogramOptions) {
    options.registry.registerMetric(this as unknown as Metric);
  }

  get name(): string {
    return this.options.name;
  }

  /** A new series: keep it. */
  labels(labels: Readonly<Record<string, string>> = {}): Series {
    const series = new Series(labels, this.options.buckets ?? BUCKETS);
    this.series.push(series);
    return series;
  }

  /** For the registry. */
  get() {
    const { name, help } = this.options;
    const values = this.series.flatMap((series) => series.values(name));
    return Promise.resolve({ name, help, type: 'histogram', values, aggregator: 'sum' });
  }

  /** For the registry. */
  reset(): void {
    for (const series of this.series) series.reset();
  }
}

/** The observations with certain labels. */
export class Series {
  /** Those of each bucket alone; the last is for what is larger than all bounds. */
  private counts: number[];
  private sum = 0;

  constructor(
    private readonly labels: Readonly<Record<string, string>>,
    private readonly bounds: readonly number[],
  ) {
    this.counts = this.none();
  }

  observe(value: number): void {
    let bucket = 0;
    while (bucket < this.bounds.length && value > this.bounds[bucket]!) bucket++;
    this.counts[bucket]!++;
    this.sum += value;
  }

  reset(): void {
    this.counts = this.none();
    this.sum = 0;
  }

  /** As Prometheus has them: each bucket with those below it. */
  values(name: string) {
    const { labels, bounds, sum } = this;
    let count = 0;
    const buckets = this.counts.map((one, bucket) => ({
      metricName: `${name}_bucket`,
      labels: { le: bounds[bucket] ?? '+Inf', ...labels },
      value: (count += one),
    }));
    return [
      ...buckets,
      { metricName: `${name}_sum`, labels, value: sum },
      { metricName: `${name}_count`, labels, value: count },
    ];
  }

  private none(): number[] {
    return new Array<number>(this.bounds.length + 1).fill(0);
  }
}
