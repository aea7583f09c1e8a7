import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import type { Services } from '../../src/app/services-file.js';
import { eventually } from './barrier.js';

/** A first start makes a database and asks Maven for Kafka; other work of this machine makes it slower. */
const START_MS = 120_000;

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A Node process of its own, in the directory of a `ServiceHome`. */
export class ServiceProcess {
  stdout = '';
  stderr = '';
  /** Resolves when it has ended and its output is whole. */
  readonly ended: Promise<Ended>;

  constructor(
    private readonly directory: string,
    private readonly child: ChildProcess,
  ) {
    child.stdout!.on('data', (data: Buffer) => (this.stdout += data.toString()));
    child.stderr!.on('data', (data: Buffer) => (this.stderr += data.toString()));
    this.ended = once(child, 'close').then(([code]) => ({
      code: code as number | null,
      stdout: this.stdout,
      stderr: this.stderr,
    }));
  }

  get pid(): number {
    return this.child.pid!;
  }

  get hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Waits until it has told the user `text`. */
  async says(text: string): Promise<void> {
    await eventually(() => this.hasEnded || this.stderr.includes(text), START_MS);
    if (!this.stderr.includes(text)) throw new Error(`It ended without a word of "${text}":\n${this.stderr}`);
  }

  /** Where everything is, once the service serves. */
  async services(): Promise<Services> {
    await this.says('People is running');
    return JSON.parse(readFileSync(path.join(this.directory, '.data/services.json'), 'utf8')) as Services;
  }

  /** Reads nothing more of its standard output, as a log reader that hangs, until `readOn`. */
  stopReading(): void {
    this.child.stdout!.pause();
  }

  readOn(): void {
    this.child.stdout!.resume();
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }
}

/** A directory for services to start in: their `.data` is made there. */
export class ServiceHome {
  readonly directory: string;
  readonly servicesFile: string;
  private readonly processes: ServiceProcess[] = [];

  constructor() {
    mkdirSync('.data', { recursive: true });
    this.directory = mkdtempSync(path.resolve('.data/test-start-'));
    this.servicesFile = path.join(this.directory, '.data/services.json');
    // The banner's commands are for the checkout's root.
    symlinkSync(path.resolve('examples'), path.join(this.directory, 'examples'));
  }

  /** Starts the built service, in an environment that has nothing of this process's but what programs need. */
  start(environment: Record<string, string> = {}): ServiceProcess {
    return this.run([process.execPath, path.resolve('dist/src/main.js')], { PORT: '0', ...environment });
  }

  run([command = '', ...args]: string[], environment: Record<string, string> = {}): ServiceProcess {
    const { PATH, HOME, TMPDIR } = process.env;
    // kafkajs sets timers that are due already, of which Node 24 and newer warn.
    const env = {
      PATH,
      HOME,
      TMPDIR,
      NODE_OPTIONS: '--disable-warning=TimeoutNegativeWarning',
      ...environment,
    };
    const child = spawn(command, args, { cwd: this.directory, env, stdio: ['ignore', 'pipe', 'pipe'] });
    const started = new ServiceProcess(this.directory, child);
    this.processes.push(started);
    return started;
  }

  /** The ids of every process that works in the directory: services, embedded servers, and the tools of both. */
  pids(): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && workingDirectory(name).startsWith(this.directory))
      .map(Number);
  }

  get hasData(): boolean {
    return existsSync(path.join(this.directory, '.data'));
  }

  /** Ends what a failed test left, and removes the directory. */
  async remove(): Promise<void> {
    await eventually(() => {
      for (const pid of this.pids()) killIfThere(pid);
      return this.pids().length === 0;
    });
    await Promise.all(this.processes.map(({ ended }) => ended));
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Empty for a process that has ended, zombies included. */
function workingDirectory(pid: string): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return '';
  }
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** A loopback port that somebody listens on until `close`. None that connections are given, which would have it meanwhile. */
export async function takePort(): Promise<{ port: number; close: () => Promise<void> }> {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    const server = createServer().listen(port, '127.0.0.1');
    const isTaken = await once(server, 'listening').then(
      () => false,
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'EADDRINUSE') return true;
        throw error;
      },
    );
    if (!isTaken) return { port, close: () => new Promise((resolve) => server.close(() => resolve())) };
  }
}

/** A loopback port that nobody listens on. */
export async function closedPort(): Promise<number> {
  const { port, close } = await takePort();
  await close();
  return port;
}
