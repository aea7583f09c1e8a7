import { createHash } from 'node:crypto';
import { linkSync, mkdirSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { once } from 'node:events';
import path from 'node:path';
import { EmbeddedServerError, stopProcesses, type EmbeddedServer } from './embedded-process.js';
import { errorCode, processesMarked, processStart } from './process-table.js';

/** The directory of one server, held by this process. */
export interface ServerHome {
  /** Absolute, symbolic links resolved. */
  readonly directory: string;
  /** Must appear in the command line of every process of the server: it is how a later run finds them. */
  readonly marker: string;
}

/** What differs from server to server. */
export interface HomeOptions {
  /** As in messages: 'PostgreSQL'. */
  readonly name: string;
  readonly directory: string;
  /** Asks the server for a quick, clean stop. */
  readonly stopSignal: NodeJS.Signals;
  readonly onProgress?: ((message: string) => void) | undefined;
}

/**
 * Takes hold of a server's directory, stops what a killed run left there, and starts the server. When `start`
 * fails, no process and no lock is left.
 *
 * @throws EmbeddedServerError when another live process runs its server in the directory, or when this user may
 *   not use it.
 * @throws whatever `start` throws.
 */
export async function startInDirectory<T extends { readonly pid: number }>(
  options: HomeOptions,
  start: (home: ServerHome) => Promise<T>,
): Promise<T & EmbeddedServer> {
  const { name, directory } = options;
  if (process.platform === 'win32') {
    throw new EmbeddedServerError(
      `${name} is started here on Linux and macOS only: use WSL or a server of your own.`,
    );
  }
  try {
    return await startHeld(options, start);
  } catch (cause) {
    if (!['EACCES', 'EPERM', 'EROFS'].includes(errorCode(cause))) throw cause;
    throw new EmbeddedServerError(
      `${name} may not use ${directory}: ${(cause as Error).message}. It may be another user's, as after a run as ` +
        'root: give it to this user, or remove it with its data.',
      { cause },
    );
  }
}

async function startHeld<T extends { readonly pid: number }>(
  { name, stopSignal, onProgress, ...options }: HomeOptions,
  start: (home: ServerHome) => Promise<T>,
): Promise<T & EmbeddedServer> {
  mkdirSync(options.directory, { recursive: true });
  const directory = realpathSync(options.directory);
  const marker = `embedded-${createHash('sha256').update(directory).digest('hex').slice(0, 16)}`;
  const unlock = lock(directory, name);
  const stop = async (): Promise<void> => {
    await stopProcesses(marker, stopSignal);
    unlock();
  };
  let server: T;
  try {
    const [orphan] = processesMarked(marker);
    if (orphan) {
      onProgress?.(`stopping ${name} that a killed run left behind (pid ${orphan.pid}) …`);
      await stopProcesses(marker, stopSignal);
    }
    server = await start({ directory, marker });
  } catch (error) {
    await stop().catch((cause: unknown) => {
      throw new EmbeddedServerError(
        `${name} did not start, and what it left could not be stopped: end it yourself.`,
        {
          cause: new AggregateError([error, cause]),
        },
      );
    });
    throw error;
  }
  let stopped: Promise<void> | undefined;
  return { ...server, stop: () => (stopped ??= stop()) };
}

/** Names this process as the owner of the directory, unless a live one is; returns what gives it up. */
function lock(directory: string, name: string): () => void {
  const file = path.join(directory, 'owner.lock');
  const draft = `${file}.${process.pid}`;
  const mine = `${process.pid}\n${processStart(process.pid)}\n`;
  writeFileSync(draft, mine);
  try {
    while (!link(draft, file)) {
      const theirs = readIfThere(file);
      if (theirs === undefined) continue;
      const [pid, start] = theirs.split('\n');
      if (start !== undefined && processStart(Number(pid)) === start) {
        const owner = Number(pid) === process.pid ? 'this process' : `process ${pid}`;
        throw new EmbeddedServerError(
          `${name} is already running in ${directory}, started by ${owner} (pid ${pid}). ` +
            'Stop that one first, or use another directory.',
        );
      }
      removeStale(file, theirs);
    }
  } finally {
    rmSync(draft);
  }
  return () => {
    if (readIfThere(file) === mine) rmSync(file);
  };
}

/** Linking is atomic and shows the file with its content or not at all, which `open` with 'wx' does not. */
function link(draft: string, file: string): boolean {
  try {
    linkSync(draft, file);
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw error;
  }
}

/** Two starts may find the same stale lock: what the slower one moved away can be the faster one's new lock. */
function removeStale(file: string, stale: string): void {
  const aside = `${file}.stale.${process.pid}`;
  try {
    renameSync(file, aside);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return;
    throw error;
  }
  if (readFileSync(aside, 'utf8') !== stale) link(aside, file);
  rmSync(aside);
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/**
 * `count` free loopback ports. The first is `told`, else the one of the directory's last run when it is free,
 * so that what a user typed then still connects; it is remembered for the next run.
 *
 * @throws EmbeddedServerError when the port told is taken.
 */
export async function choosePorts(
  directory: string,
  told: number | undefined,
  count: number,
): Promise<number[]> {
  const file = path.join(directory, 'port');
  const held: Server[] = [];
  try {
    const first = told ?? Number(readIfThere(file) ?? 0);
    held.push(
      await listen(first).catch((cause: unknown) => {
        // Any port does then: the last run's is a courtesy.
        if (told === undefined) return listen(0);
        throw new EmbeddedServerError(
          `Port ${told} of 127.0.0.1 is not free (${errorCode(cause)}). Stop what listens there, or choose another port.`,
          { cause },
        );
      }),
    );
    while (held.length < count) held.push(await listen(0));
    const ports = held.map((server) => (server.address() as AddressInfo).port);
    writeFileSync(file, String(ports[0]));
    return ports;
  } finally {
    await Promise.all(held.map((server) => once(server.close(), 'close')));
  }
}

async function listen(port: number): Promise<Server> {
  const server = createServer().listen(port, '127.0.0.1');
  await once(server, 'listening');
  return server;
}
