import { setTimeout as sleep } from 'node:timers/promises';
import type { Instance } from './instances.js';

const EVERY_MS = 500;
const ANSWER_MS = 3_000;
/** Node's own, which always move, and parts of histograms, whose count says the same. */
const LEFT_OUT = /^(nodejs_|process_)|_bucket\b|_sum\b|_created\b/;
const SAMPLE = /^([a-zA-Z_:][\w:]*(?:\{.*\})?) (\S+)/;

/** Series and their values, summed up over instances. */
type Sample = ReadonlyMap<string, number>;

/** Scrapes the instances, from the start until `stop`, and tells which series have moved. */
export class MetricsWatch {
  private readonly samples: Sample[] = [];
  private isOver = false;
  private readonly watching: Promise<void>;

  constructor(private readonly instances: readonly Instance[]) {
    this.watching = this.watch();
  }

  /** @returns the series that were not always the same, or are new: of counters those that have grown */
  async stop(): Promise<Set<string>> {
    this.isOver = true;
    await this.watching;
    const [first, ...others] = this.samples;
    const moved = new Set<string>();
    for (const sample of others) {
      for (const [series, value] of sample) {
        const before = first!.get(series) ?? 0;
        const isCounter = /_(total|count)(\{|$)/.test(series);
        if (isCounter ? value > before : value !== before) moved.add(series);
      }
    }
    return moved;
  }

  private async watch(): Promise<void> {
    this.samples.push(await this.scrape());
    while (!this.isOver) {
      await sleep(EVERY_MS);
      this.samples.push(await this.scrape());
    }
  }

  private async scrape(): Promise<Sample> {
    const sample = new Map<string, number>();
    const texts = await Promise.all(this.instances.map(({ url }) => (url ? metricsOf(url) : '')));
    for (const line of texts.flatMap((text) => text.split('\n'))) {
      const [, series, value] = SAMPLE.exec(line) ?? [];
      if (series === undefined || LEFT_OUT.test(series)) continue;
      sample.set(series, (sample.get(series) ?? 0) + Number(value));
    }
    return sample;
  }
}

/** Empty where it does not answer: a scraper then has nothing, too. */
async function metricsOf(url: string): Promise<string> {
  try {
    const answer = await fetch(`${url}/metrics`, { signal: AbortSignal.timeout(ANSWER_MS) });
    return answer.ok ? await answer.text() : '';
  } catch {
    return '';
  }
}
