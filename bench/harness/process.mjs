import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const ANSWER_WITHIN_MS = 90_000;
const END_WITHIN_MS = 5_000;

/**
 * Runs `file` of this folder as a process of its own, see `answerParent`; `pid` is its id.
 *
 * @param name what errors call it
 * @param interrupted ends every wait for an answer
 */
export function startProcess(file, { name = file, args = [], execArgv = [], interrupted }) {
  // Standard output is for the table alone.
  const stdio = ['ignore', process.stderr.fd, process.stderr.fd, 'ipc'];
  const env = { ...process.env, NODE_ENV: 'production' };
  const child = fork(fileURLToPath(new URL(file, import.meta.url)), args, { execArgv, env, stdio });
  const waiting = new Map();
  let asked = 0;
  const refuseAll = (reason) => {
    for (const { reject } of waiting.values()) reject(reason);
    waiting.clear();
  };
  child.on('message', ({ id, result, error }) => {
    const { resolve, reject } = waiting.get(id) ?? {};
    waiting.delete(id);
    if (error === undefined) resolve?.(result);
    else reject?.(new Error(`${name}: ${error}`));
  });
  child.on('error', refuseAll);
  child.on('exit', (code, signal) => refuseAll(new Error(`${name} ended too early (${code ?? signal}).`)));
  interrupted.addEventListener('abort', () => refuseAll(interrupted.reason));

  return {
    pid: child.pid,
    /** What the process answers to `command`. @throws Error its own, or that it ended or was too slow */
    async ask(command, argument) {
      interrupted.throwIfAborted();
      const id = ++asked;
      const late = setTimeout(() => {
        waiting.get(id)?.reject(new Error(`${name} did not answer "${command}" in time.`));
      }, ANSWER_WITHIN_MS);
      try {
        return await new Promise((resolve, reject) => {
          waiting.set(id, { resolve, reject });
          child.send({ id, command, argument }, (error) => error && reject(error));
        });
      } finally {
        clearTimeout(late);
        waiting.delete(id);
      }
    },
    /** Resolves when the process is gone, in whatever state it was. */
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      if (child.connected) child.disconnect();
      const stuck = setTimeout(() => child.kill('SIGKILL'), END_WITHIN_MS);
      await gone;
      clearTimeout(stuck);
    },
  };
}

/**
 * The other side, in the process itself: answers each command with what its function returns, until the parent lets go of
 * it or is no more.
 */
export function answerParent(commands, close = async () => undefined) {
  // It may have let go already, while this process was loading.
  if (!process.connected) process.exit();
  // A terminal's Ctrl-C reaches every process at once, but the parent decides on the end.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => undefined);
  // With a callback a parent that is gone is no error.
  const answer = (message) => process.send(message, () => undefined);
  process.on('message', async ({ id, command, argument }) => {
    try {
      answer({ id, result: await commands[command](argument) });
    } catch (error) {
      answer({ id, error: error.stack });
    }
  });
  process.on('disconnect', () => {
    setTimeout(() => process.exit(1), END_WITHIN_MS - 1000);
    close().finally(() => process.exit());
  });
}
