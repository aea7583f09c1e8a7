import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { once } from 'node:events';
import path from 'node:path';
import { EmbeddedServerError, stopProcesses, type EmbeddedServer } from './embedded-process.js';
import { errorCode, processesMarked, type RunningProcess } from './process-table.js';

/** The directory of one server. */
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
 * Stops what a killed run left in a server's directory, and starts the server. When `start` fails, no process is left. Of two
 * that start at the same moment, one fails: PostgreSQL and Kafka lock their data.
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
    return await startOwned(options, start);
  } catch (cause) {
    if (!['EACCES', 'EPERM', 'EROFS'].includes(errorCode(cause))) throw cause;
    throw new EmbeddedServerError(
      `${name} may not use ${directory}: ${(cause as Error).message}. It may be another user's, as after a run as ` +
        'root: give it to this user, or remove it with its data.',
      { cause },
    );
  }
}

async function startOwned<T extends { readonly pid: number }>(
  { name, stopSignal, onProgress, ...options }: HomeOptions,
  start: (home: ServerHome) => Promise<T>,
): Promise<T & EmbeddedServer> {
  mkdirSync(options.directory, { recursive: true });
  const directory = realpathSync(options.directory);
  const id = createHash('sha256').update(directory).digest('hex').slice(0, 16);
  const marker = markerOf(process.pid, id);
  const left = processesOf(id);
  // Whatever outlives the process that started it is given another parent by the system.
  const owned = left.find(({ owner, parent }) => owner === parent);
  if (owned) {
    const owner = owned.owner === process.pid ? 'this process' : `process ${owned.owner}`;
    throw new EmbeddedServerError(
      `${name} is already running in ${directory}, started by ${owner} (pid ${owned.owner}). ` +
        'Stop that one first, or use another directory.',
    );
  }
  if (left[0]) onProgress?.(`stopping ${name} that a killed run left behind (pid ${left[0].pid}) …`);
  for (const { owner } of left) await stopProcesses(markerOf(owner, id), stopSignal);
  let server: T;
  try {
    server = await start({ directory, marker });
  } catch (error) {
    await stopProcesses(marker, stopSignal).catch((cause: unknown) => {
      throw new EmbeddedServerError(
        `${name} did not start, and what it left could not be stopped: end it yourself.`,
        { cause: new AggregateError([error, cause]) },
      );
    });
    throw error;
  }
  let stopped: Promise<void> | undefined;
  return { ...server, stop: () => (stopped ??= stopProcesses(marker, stopSignal)) };
}

const markerOf = (owner: number | string, id: string) => `embedded-${owner}-${id}`;

/** The processes of the servers of a directory, each with the process that started it. */
function processesOf(id: string): (RunningProcess & { readonly owner: number })[] {
  const marker = new RegExp(markerOf('(\\d+)', id));
  return processesMarked(id).flatMap((found) => {
    const [, owner] = marker.exec(found.command) ?? [];
    return owner === undefined ? [] : [{ ...found, owner: Number(owner) }];
  });
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
