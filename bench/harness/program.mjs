import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, openSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const LISTENS_WITHIN_MS = 120_000;
const END_WITHIN_MS = 10_000;
const TSCONFIG = path.join(import.meta.dirname, '../../tsconfig.json');

/** Starts a program that is not asked over IPC, as another language's; what it says goes to a file that is read when it fails. */
export function startProgram(bench, name, { command, args = [], env }) {
  const logs = path.join(bench.directory, 'logs');
  mkdirSync(logs, { recursive: true });
  const log = path.join(logs, `${name}.log`);
  rmSync(log, { force: true });
  const out = openSync(log, 'a');
  const { PATH, HOME, LANG, JAVA_HOME } = process.env;
  const child = spawn(command, args, {
    cwd: bench.directory,
    env: { PATH, HOME, LANG, JAVA_HOME, NODE_ENV: 'production', SWC_NODE_PROJECT: TSCONFIG, ...env },
    stdio: ['ignore', out, out],
  });
  let failure;
  child.once('error', (error) => (failure = error));
  const isGone = () => failure !== undefined || child.exitCode !== null || child.signalCode !== null;
  const stop = async (signal = 'SIGTERM') => {
    if (isGone()) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    const stuck = setTimeout(() => child.kill('SIGKILL'), END_WITHIN_MS);
    await gone;
    clearTimeout(stuck);
  };
  bench.started.push(stop);
  return {
    pid: child.pid,
    stop,
    /** @throws Error with the end of what it said, when it is gone */
    assertRuns() {
      bench.interrupted.throwIfAborted();
      if (isGone())
        throw new Error(`${name} ended: ${failure?.message ?? readFileSync(log, 'utf8').slice(-2000)}`);
    },
    said: () => readFileSync(log, 'utf8'),
  };
}

/** Resolves when something answers HTTP at `url`. */
export async function untilListens({ assertRuns, said }, url) {
  const end = performance.now() + LISTENS_WITHIN_MS;
  for (;;) {
    assertRuns();
    try {
      await (await fetch(url)).arrayBuffer();
      return;
    } catch {
      if (performance.now() > end) throw new Error(`Nobody listens at ${url}: ${said().slice(-2000)}`);
      await sleep(100);
    }
  }
}

/** A loopback port that is free now. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}
