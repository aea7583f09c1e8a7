import { Counter, type Registry } from 'prom-client';

export interface CountsOptions<Label extends string> {
  name: string;
  help: string;
  labelNames: readonly Label[];
  registry: Registry;
}

/** What a label says whose value came when there were too many series already. */
export const OTHER = 'other';
const SERIES_AT_MOST = 500;

/**
 * A counter of a bounded number of series: a host chooses the names of topics, and whoever writes a trigger its SQLSTATEs. Counts
 * for prom-client's, which finds the series of each increment by its labels and takes longer for it than all else that is done to
 * count a message.
 */
export class Counts<Label extends string> {
  private readonly series = new Map<string, { labels: Partial<Record<Label, string>>; value: number }>();

  constructor(private readonly options: CountsOptions<Label>) {
    const { name, help, labelNames, registry } = options;
    const { series } = this;
    new Counter({
      ...{ name, help, labelNames, registers: [registry] },
      collect() {
        this.reset();
        for (const { labels, value } of series.values()) this.inc(labels, value);
      },
    });
  }

  /** @param values of the labels, in the order of their names */
  add(by: number, ...values: string[]): void {
    const key = values.length === 1 ? values[0]! : values.join('\n');
    const known = this.series.get(key);
    if (known) known.value += by;
    else if (this.series.size >= SERIES_AT_MOST && values[0] !== OTHER)
      this.add(by, ...values.map(() => OTHER));
    else {
      const labels = Object.fromEntries(this.options.labelNames.map((name, at) => [name, values[at]]));
      this.series.set(key, { labels: labels as Partial<Record<Label, string>>, value: by });
    }
  }
}
