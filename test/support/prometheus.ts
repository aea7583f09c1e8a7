import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { eventually } from './barrier.js';
import { programPath } from './program-path.js';
import { closedPort } from './service-process.js';

/** Debian's Prometheus; undefined where it is not installed. */
export const PROMETHEUS = programPath('prometheus');

/** A rule, as Prometheus tells of it. */
export interface Rule {
  name: string;
  /** `ok` once it could be evaluated. */
  health: string;
  lastError?: string;
  /** Of an alert: inactive, pending or firing. */
  state: string;
}

/** A series of the answer to a query. */
export interface Series {
  metric: Record<string, string>;
  value: [time: number, value: string];
}

/** A Prometheus of its own, with the configuration and the alerts of `docs/operations/`, which asks one instance each second. */
export class Prometheus {
  private constructor(
    private readonly child: ChildProcess,
    private readonly directory: string,
    private readonly url: string,
  ) {}

  /** @param target where the metrics are: `127.0.0.1:3000` */
  static async start(target: string): Promise<Prometheus> {
    const directory = mkdtempSync(path.join(tmpdir(), 'prometheus-'));
    const config = readFileSync('docs/operations/prometheus.yml', 'utf8')
      .replaceAll(/(_interval): 15s/g, '$1: 1s')
      .replace(`['people:3000']`, `['${target}']`);
    writeFileSync(path.join(directory, 'prometheus.yml'), config);
    copyFileSync('docs/operations/alerts.yml', path.join(directory, 'alerts.yml'));
    const address = `127.0.0.1:${await closedPort()}`;
    const child = spawn(
      PROMETHEUS!,
      [
        `--config.file=${directory}/prometheus.yml`,
        `--storage.tsdb.path=${directory}/data`,
        `--web.listen-address=${address}`,
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    let log = '';
    child.stderr.on('data', (data: Buffer) => (log += data.toString()));
    const prometheus = new Prometheus(child, directory, `http://${address}`);
    await eventually(async () => {
      if (child.exitCode !== null) throw new Error(`Prometheus has ended:\n${log}`);
      return (await fetch(`${prometheus.url}/-/ready`).catch(() => undefined))?.ok;
    }, 60_000);
    return prometheus;
  }

  /** @throws Error what Prometheus says of the query */
  async query(query: string): Promise<Series[]> {
    const { result } = await this.ask<{ result: Series[] }>(
      `query?${new URLSearchParams({ query }).toString()}`,
    );
    return result;
  }

  async rules(): Promise<Rule[]> {
    const { groups } = await this.ask<{ groups: { rules: Rule[] }[] }>('rules');
    return groups.flatMap(({ rules }) => rules);
  }

  async close(): Promise<void> {
    const ended = once(this.child, 'exit');
    this.child.kill();
    await ended;
    rmSync(this.directory, { recursive: true });
  }

  private async ask<Data>(what: string): Promise<Data> {
    const answer = await fetch(`${this.url}/api/v1/${what}`);
    const told = (await answer.json()) as { status: string; error?: string; data: Data };
    if (told.status !== 'success') throw new Error(`${what}: ${told.error ?? told.status}`);
    return told.data;
  }
}
