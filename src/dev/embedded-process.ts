import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { errorCode, processesMarked } from './process-table.js';

/** A server that this process runs for itself. */
export interface EmbeddedServer {
  /** Process id of the server. */
  readonly pid: number;
  /** Stops the server. Idempotent; resolves when every process of it is gone. */
  stop(): Promise<void>;
}

/** An embedded server could not be had or stopped; the message says what happened and what to do. */
export class EmbeddedServerError extends Error {
  override name = 'EmbeddedServerError';
}

/**
 * Stops every process marked `marker`: `signal` to those not started by another of them, SIGKILL to all that
 * are left after ten seconds. Resolves when none is left.
 *
 * @throws EmbeddedServerError when a process belongs to another user or outlives SIGKILL.
 */
export async function stopProcesses(marker: string, signal: NodeJS.Signals): Promise<void> {
  const signalled = new Set<number>();
  const killAt = Date.now() + 10_000;
  for (;;) {
    const left = processesMarked(marker);
    if (left.length === 0) return;
    const pids = left.map(({ pid }) => pid);
    if (Date.now() > killAt + 5_000) {
      throw new EmbeddedServerError(`The processes ${pids.join(', ')} do not end. End them, then try again.`);
    }
    if (Date.now() > killAt) {
      pids.forEach((pid) => signalProcess(pid, 'SIGKILL'));
    } else {
      const roots = left.filter(({ pid, parent }) => !signalled.has(pid) && !pids.includes(parent));
      for (const { pid } of roots) signalProcess(pid, signal);
      roots.forEach(({ pid }) => signalled.add(pid));
    }
    await sleep(25);
  }
}

function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (cause) {
    if (errorCode(cause) === 'ESRCH') return;
    throw new EmbeddedServerError(`Process ${pid} cannot be stopped by this user. Stop it, then try again.`, {
      cause,
    });
  }
}

/** How a server is started. */
export interface ServerCommand {
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
  /** Takes standard output and error; emptied first. */
  readonly logFile: string;
  readonly uid?: number;
  readonly gid?: number;
}

/**
 * Starts a server in a process group of its own, so that a terminal's Ctrl-C reaches this process only, which
 * then stops the server when it no longer needs it.
 *
 * @throws the system's error when the command cannot be started.
 */
export async function spawnServer(start: ServerCommand): Promise<ChildProcess & { readonly pid: number }> {
  const { command, args, logFile, ...options } = start;
  const log = openSync(logFile, 'w', 0o600);
  try {
    const child = spawn(command, args, { ...options, detached: true, stdio: ['ignore', log, log] });
    await once(child, 'spawn');
    child.unref();
    return child as ChildProcess & { readonly pid: number };
  } finally {
    closeSync(log);
  }
}

/**
 * Waits until `probe` resolves; tried again and again while the server runs.
 *
 * @throws EmbeddedServerError when the server ends first or two minutes have passed; `cause` has its last lines.
 */
export async function untilReady(
  child: ChildProcess,
  { name, logFile }: { name: string; logFile: string },
  probe: () => Promise<void>,
): Promise<void> {
  const giveUpAt = Date.now() + 120_000;
  for (;;) {
    const ended = child.exitCode ?? child.signalCode;
    if (ended !== null) {
      throw new EmbeddedServerError(
        `${name} ended while it started (${ended}). The reason is in ${logFile}.`,
        {
          cause: new Error(lastLines(readFileSync(logFile, 'utf8'))),
        },
      );
    }
    try {
      return await probe();
    } catch (cause) {
      if (Date.now() > giveUpAt) {
        throw new EmbeddedServerError(`${name} was not ready in time. Look into ${logFile}.`, { cause });
      }
    }
    await sleep(50);
  }
}

/** The JVM's statistics for jstat would be files in the system's temporary directory, outside of any directory of ours. */
export const NO_PERF_DATA = '-XX:-UsePerfData';

/**
 * Runs a program to its end, in this process's group, so that Ctrl-C ends it too; resolves to its output.
 *
 * @throws Error whose message has the last lines of the output and whose `cause` is the error of `execFile`.
 */
export async function runTool(
  command: string,
  args: readonly string[],
  options: {
    cwd?: string;
    uid?: number;
    gid?: number;
    timeout?: number;
    env?: NodeJS.ProcessEnv;
  } = {},
): Promise<string> {
  try {
    const { stdout, stderr } = await promisify(execFile)(command, args, { maxBuffer: 2 ** 26, ...options });
    return stdout + stderr;
  } catch (cause) {
    const {
      stdout = '',
      stderr = '',
      message,
    } = cause as { stdout?: string; stderr?: string; message: string };
    throw new Error(lastLines(stdout + stderr) || message, { cause });
  }
}

function lastLines(output: string): string {
  const plain = output.replaceAll(/\u001B\[[\d;]*m/g, '').trimEnd();
  return plain.split('\n').slice(-30).join('\n');
}
