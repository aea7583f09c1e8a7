import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { Services } from '../../src/app/services-file.js';
import { eventually } from './barrier.js';

const MAIN = path.resolve('dist/src/main.js');
/** A first start unpacks Kafka's class path and makes a database. */
const START_MS = 90_000;

/** The built service in a process of its own, in a directory of its own. */
export class ServiceProcess {
  output = '';
  readonly exited: Promise<number | null>;
  private readonly child: ChildProcess;

  constructor(
    readonly directory: string,
    environment: Record<string, string> = {},
  ) {
    this.child = spawn(process.execPath, [MAIN], {
      cwd: directory,
      env: { PATH: process.env.PATH, HOME: process.env.HOME, PORT: '0', ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const take = (data: Buffer) => (this.output += data.toString());
    this.child.stdout!.on('data', take);
    this.child.stderr!.on('data', take);
    this.exited = new Promise((resolve) => this.child.once('exit', (code) => resolve(code)));
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** Where everything is, once the service serves. */
  async services(): Promise<Services> {
    await eventually(() => this.output.includes('Ctrl-C stops all of it') || this.ended(), START_MS);
    if (this.ended()) throw new Error(`The service ended:\n${this.output}`);
    return JSON.parse(readFileSync(path.join(this.directory, '.data/services.json'), 'utf8')) as Services;
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** For the end of a test, whatever became of it. */
  async end(): Promise<void> {
    if (this.ended()) return;
    this.signal('SIGTERM');
    await this.exited;
  }

  private ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }
}

/** A directory to start in; `remove` takes it away. */
export function startDirectory(): { directory: string; remove: () => void } {
  mkdirSync('.data', { recursive: true });
  const directory = mkdtempSync(path.resolve('.data', 'start-'));
  return { directory, remove: () => rmSync(directory, { recursive: true, force: true }) };
}

/** Processes that were started for `directory` and are still there. */
export function processesOf(directory: string): string[] {
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid) && Number(pid) !== process.pid)
    .map((pid) => {
      const file = `/proc/${pid}/cmdline`;
      try {
        return existsSync(file) ? readFileSync(file, 'utf8').replaceAll('\0', ' ') : '';
      } catch (error) {
        // It ended between the two.
        if (['ESRCH', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) return '';
        throw error;
      }
    })
    .filter((command) => command.includes(directory));
}
