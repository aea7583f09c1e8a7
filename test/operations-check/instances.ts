import { appendFileSync } from 'node:fs';
import { eventually } from '../support/barrier.js';
import { ServiceHome, type ServiceProcess } from '../support/service-process.js';

/** A line of the service's log. */
export interface LogLine {
  level: string;
  time: string;
  msg: string;
}

const START_MS = 120_000;
const WORTH_TELLING = ['warn', 'error', 'fatal'];

/** An instance of the service in a process of its own, as an orchestrator keeps it. */
export class Instance {
  /** Where it listens; undefined while it does not. */
  url: string | undefined;
  private readonly home = new ServiceHome();
  private readonly outputs: ServiceProcess[] = [];
  private isWanted = false;
  private keeping: Promise<void> = Promise.resolve();

  constructor(
    readonly name: string,
    private readonly environment: () => Record<string, string>,
    /** Takes what it says. */
    private readonly logFile: string,
    private readonly onViolation: (violation: string) => void,
  ) {}

  /** @returns once it serves */
  async start(): Promise<void> {
    this.isWanted = true;
    this.keeping = this.keepUp();
    await eventually(() => this.url !== undefined, START_MS);
  }

  /** By SIGTERM. @returns once it has ended */
  async stop(): Promise<void> {
    this.isWanted = false;
    this.outputs.at(-1)?.signal('SIGTERM');
    await this.keeping;
  }

  /** What it has said since then that is worth somebody's attention. */
  linesSince(time: number): LogLine[] {
    return this.outputs
      .flatMap(({ stdout }) => stdout.split('\n'))
      .filter((text) => text.startsWith('{') && text.endsWith('}'))
      .map((text) => JSON.parse(text) as LogLine)
      .filter((line) => WORTH_TELLING.includes(line.level) && Date.parse(line.time) >= time);
  }

  async close(): Promise<void> {
    this.isWanted = false;
    this.outputs.at(-1)?.signal('SIGKILL');
    await this.keeping;
    await this.home.remove();
  }

  private async keepUp(): Promise<void> {
    while (this.isWanted) {
      const service = this.home.start(this.environment());
      this.outputs.push(service);
      void service.services().then(
        ({ http }) => (this.url = service.hasEnded ? undefined : http),
        // It has ended before, which is told below.
        () => undefined,
      );
      const { code, stdout, stderr } = await service.ended;
      appendFileSync(this.logFile, `${stderr}${stdout}--- ended: ${code}\n`);
      const wasUp = this.url !== undefined;
      this.url = undefined;
      // One that is started while the database is away may end, and is started once more.
      if (this.isWanted ? wasUp : code !== 0 && code !== null)
        this.onViolation(`${this.name} ended with ${code}: ${stderr.slice(-1000)}`);
    }
  }
}
