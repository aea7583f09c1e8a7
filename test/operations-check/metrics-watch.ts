import { setTimeout as sleep } from 'node:timers/promises';
import type { Instance } from './instances.js';

const EVERY_MS = 500;
const ANSWER_MS = 3_000;
/** Node's own, which always move, and parts of histograms, whose count says the same. */
const LEFT_OUT = /^(nodejs_|process_)|_bucket\b|_sum\b|_created\b|route="\/metrics"/;
const SAMPLE = /^([a-zA-Z_:][\w:]*(?:\{.*\})?) (\S+)/;

/** Prometheus' own, of each instance. */
const UP = 'up{job="people"}';

/** Series and their values. */
type Sample = ReadonlyMap<string, number>;

/** Scrapes the instances, from the start until `stop`, and tells which series have moved. */
export class MetricsWatch {
  /** Of each instance, without those that it has not answered. */
  private readonly samples: Sample[][];
  private isOver = false;
  private readonly watching: Promise<void>;

  constructor(private readonly instances: readonly Instance[]) {
    this.samples = instances.map(() => []);
    this.watching = this.watch();
  }

  /** @returns the series that were not always the same, or are new: of counters those that have grown */
  async stop(): Promise<Set<string>> {
    this.isOver = true;
    await this.watching;
    const moved = new Set<string>();
    for (const [first, ...others] of this.samples) {
      for (const [series, value] of others.flatMap((sample) => [...sample])) {
        const before = first!.get(series) ?? 0;
        const isCounter = /_(total|count)(\{|$)/.test(series);
        if (isCounter ? value > before : value !== before) moved.add(series);
      }
    }
    return moved;
  }

  private async watch(): Promise<void> {
    for (;;) {
      const now = await Promise.all(this.instances.map(({ url }) => scrape(url)));
      now.forEach((sample, index) => this.samples[index]!.push(sample));
      if (this.isOver) return;
      await sleep(EVERY_MS);
    }
  }
}

async function scrape(url: string | undefined): Promise<Sample> {
  const text = url === undefined ? '' : await metricsOf(url);
  const sample = new Map([[UP, text === '' ? 0 : 1]]);
  for (const line of text.split('\n')) {
    const [, series, value] = SAMPLE.exec(line) ?? [];
    if (series !== undefined && !LEFT_OUT.test(series)) sample.set(series, Number(value));
  }
  return sample;
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
