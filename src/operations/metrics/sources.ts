import { Gauge, type Registry } from 'prom-client';
import { AskedFigures } from './asked-figures.js';

/** Says of each source of figures outside this process whether it answers. */
export class SourceUp {
  private readonly sources = new Map<string, AskedFigures<unknown>>();

  constructor(registry: Registry) {
    const { sources } = this;
    new Gauge({
      name: 'people_metrics_source_up',
      help: '1 where the figures of the source (database, kafka) are known; 0 where they are left out, as it does not answer.',
      labelNames: ['source'],
      registers: [registry],
      async collect() {
        for (const [source, figures] of sources)
          this.set({ source }, (await figures.known()) === undefined ? 0 : 1);
      },
    });
  }

  /** @param ask see `AskedFigures` */
  source<Figures>(name: string, ask: (signal: AbortSignal) => Promise<Figures>): AskedFigures<Figures> {
    const figures = new AskedFigures(name, ask);
    this.sources.set(name, figures);
    return figures;
  }
}
