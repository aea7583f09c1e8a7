import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Kafka, logLevel } from 'kafkajs';
import pg from 'pg';
import { startEmbeddedKafka } from '../../src/dev/embedded-kafka.js';
import { startEmbeddedPostgres } from '../../src/dev/embedded-postgres.js';
import { EmbeddedServerError, type EmbeddedServer } from '../../src/dev/embedded-process.js';
import { processCommand, processesMarked } from '../../src/dev/process-table.js';

const checkout = fileURLToPath(new URL('../../', import.meta.url));
// Starting Kafka's JVM a few times, and Maven's first download, take longer than other tests.
const MINUTES = 300_000;

interface StartOptions {
  directory: string;
  port?: number;
}
interface Started extends EmbeddedServer {
  readonly port: number;
}
interface Kind {
  readonly name: string;
  readonly module: string;
  readonly start: (options: StartOptions) => Promise<Started>;
  /** Stores a value and resolves to the pids of every process of the server. */
  readonly write: (port: number, value: string) => Promise<number[]>;
  readonly read: (port: number) => Promise<string>;
}

const kinds: Kind[] = [
  {
    name: 'PostgreSQL',
    module: 'embedded-postgres.js',
    start: (options) => startEmbeddedPostgres(options),
    write: (port, value) =>
      withPostgres(port, async (client) => {
        await client.query('DROP TABLE IF EXISTS kept; CREATE TABLE kept (value text)');
        await client.query('INSERT INTO kept VALUES ($1)', [value]);
        const { rows } = await client.query<{ pid: number }>('SELECT pid FROM pg_stat_activity');
        return rows.map(({ pid }) => pid);
      }),
    read: (port) =>
      withPostgres(port, async (client) => {
        const { rows } = await client.query<{ value: string }>('SELECT value FROM kept');
        return rows.map(({ value }) => value).join();
      }),
  },
  {
    name: 'Apache Kafka',
    module: 'embedded-kafka.js',
    start: (options) => startEmbeddedKafka(options),
    write: async (port, value) => {
      const producer = kafka(port).producer();
      await producer.connect();
      await producer.send({ topic: 'kept', messages: [{ value }] });
      await producer.disconnect();
      return [];
    },
    read: async (port) => {
      const consumer = kafka(port).consumer({ groupId: `reader-${Date.now()}` });
      await consumer.connect();
      await consumer.subscribe({ topic: 'kept', fromBeginning: true });
      const value = await new Promise<string>((resolve, reject) => {
        consumer
          .run({ eachMessage: async ({ message }) => resolve(String(message.value)) })
          .catch((error: Error) => reject(error));
      });
      await consumer.disconnect();
      return value;
    },
  },
];

const kafka = (port: number): Kafka =>
  new Kafka({ brokers: [`127.0.0.1:${port}`], logLevel: logLevel.NOTHING });

async function withPostgres<T>(port: number, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(`postgres://postgres:postgres@127.0.0.1:${port}/people`);
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

/** A Node process of its own that starts a server, says so or why not in one line of JSON, and stays. */
const OWNER = `
  const [url, directory] = process.argv.slice(1);
  const start = Object.entries(await import(url)).find(([name]) => name.startsWith('startEmbedded'))[1];
  try {
    const { pid, port } = await start({ directory });
    console.log(JSON.stringify({ pid, port }));
    setInterval(() => {}, 60_000);
  } catch ({ name, message, cause }) {
    console.log(JSON.stringify({ name, message, cause: String(cause) }));
  }`;

interface OwnerSays {
  pid: number;
  port: number;
  name: string;
  message: string;
  cause: string;
}

const owners: { owner: ChildProcess; says: OwnerSays }[] = [];
async function runOwner(
  module: string,
  directory: string,
  environment: NodeJS.ProcessEnv = {},
): Promise<{ owner: ChildProcess; says: OwnerSays }> {
  const url = new URL(`../../dist/src/dev/${module}`, import.meta.url).href;
  const owner = spawn(process.execPath, ['--input-type=module', '-e', OWNER, url, directory], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  for await (const line of createInterface(owner.stdout)) {
    const started = { owner, says: JSON.parse(line) as OwnerSays };
    owners.push(started);
    return started;
  }
  throw new Error('The owner said nothing');
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

async function endOf(pid: number): Promise<void> {
  while (processCommand(pid) !== '') await new Promise((resolve) => setTimeout(resolve, 20));
}

let root: string;
beforeAll(() => {
  mkdirSync(path.join(checkout, '.data'), { recursive: true });
  root = mkdtempSync(path.join(checkout, '.data/test-embedded-'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

// The set-up of the run sets it, but with KAFKA=off.
const withKafka = process.env.TEST_KAFKA_BROKERS !== undefined;

describe.each(withKafka ? kinds : kinds.filter(({ name }) => name === 'PostgreSQL'))(
  'embedded $name',
  ({ name, module, start, write, read }) => {
    let directory: string;
    let server: Started | undefined;
    const startHere = async (port?: number): Promise<Started> =>
      (server = await start({ directory, ...(port === undefined ? {} : { port }) }));

    beforeAll(() => {
      directory = path.join(root, module);
    });

    afterEach(async () => {
      const left = owners.splice(0);
      await Promise.all(left.map(({ owner }) => kill(owner)));
      await server?.stop();
      server = undefined;
      // Only a test that failed leaves one.
      for (const { pid } of left.map(({ says }) => says)) {
        if (processCommand(pid) === '') continue;
        process.kill(pid, 'SIGINT');
        await endOf(pid);
      }
    });

    it(
      'keeps its data, and its port until told another, over stop and start',
      async () => {
        const first = await startHere();
        const pids = [first.pid, ...(await write(first.port, 'a value'))];
        expect(processCommand(first.pid)).not.toBe('');

        await Promise.all([first.stop(), first.stop()]);
        expect(pids.map((pid) => processCommand(pid)).join('')).toBe('');

        const second = await startHere();
        expect(second.port).toBe(first.port);
        expect(await read(second.port)).toBe('a value');
        await second.stop();

        const free = createServer().listen(0, '127.0.0.1');
        await once(free, 'listening');
        const { port } = free.address() as AddressInfo;
        await expect(startHere(port)).rejects.toThrow(`Port ${port} of 127.0.0.1 is not free`);
        await once(free.close(), 'close');

        const third = await startHere(port);
        expect(third.port).toBe(port);
        expect(await read(port)).toBe('a value');
      },
      MINUTES,
    );

    it(
      'recovers after its server was killed',
      async () => {
        const killed = await startHere();
        await write(killed.port, 'a value');
        process.kill(killed.pid, 'SIGKILL');
        await endOf(killed.pid);
        await killed.stop();

        const { port } = await startHere();
        expect(await read(port)).toBe('a value');
      },
      MINUTES,
    );

    it(
      'stops the server that a killed process left behind, and starts its own',
      async () => {
        const { owner, says } = await runOwner(module, directory);
        await write(says.port, 'a value');
        await kill(owner);
        expect(processCommand(says.pid)).not.toBe('');

        const { pid, port } = await startHere();
        expect(pid).not.toBe(says.pid);
        expect(processCommand(says.pid)).toBe('');
        expect(await read(port)).toBe('a value');
      },
      MINUTES,
    );

    it(
      'leaves alone the server of a live process',
      async () => {
        const { owner, says } = await runOwner(module, directory);
        await write(says.port, 'a value');

        const refused = expect(startHere()).rejects;
        await refused.toThrow(EmbeddedServerError);
        await expect(startHere()).rejects.toThrow(
          `${name} is already running in ${directory}, started by process ${owner.pid} (pid ${owner.pid})`,
        );
        expect(await read(says.port)).toBe('a value');

        await kill(owner);
        await startHere();
        await expect(start({ directory })).rejects.toThrow('already running');
      },
      MINUTES,
    );
  },
);

describe('embedded Apache Kafka without its tools', () => {
  const fakes = (programs: Record<string, string>): NodeJS.ProcessEnv => {
    const bin = mkdtempSync(path.join(root, 'bin-'));
    for (const [program, script] of Object.entries(programs)) {
      writeFileSync(path.join(bin, program), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    }
    return { PATH: bin, JAVA_HOME: '' };
  };
  const java17 = `echo 'openjdk version "17.0.1" 2021-10-19' >&2`;

  it.each([
    ['no Java', {}, /Java 17 or newer, and java does not run/, /ENOENT/],
    [
      'an old Java',
      { java: `echo 'java version "1.8.0_292"' >&2` },
      /Java 17 or newer, and java is older/,
      /1\.8/,
    ],
    ['no Maven', { java: java17 }, /could not be fetched with Maven/, /ENOENT/],
    ['a failing Maven', { java: java17, mvn: 'echo no such jar; exit 1' }, /with Maven/, /no such jar/],
  ])('says so with %s', async (_case, programs, message, cause) => {
    const directory = mkdtempSync(path.join(root, 'kafka-'));
    const { owner, says } = await runOwner('embedded-kafka.js', directory, fakes(programs));
    expect(says.name).toBe('KafkaUnavailableError');
    expect(says.message).toMatch(message);
    expect(says.message).toMatch(/^[^\n]*KAFKA_BROKERS=host:9092.*KAFKA=off[^\n]*$/);
    expect(says.cause).toMatch(cause);
    if (owner.exitCode === null) await once(owner, 'exit');
    expect(owner.exitCode).toBe(0);
    expect(processesMarked(directory)).toEqual([]);
  });
});

it(
  'a PostgreSQL with a password of its own keeps it, and one that was made without goes on with its old one',
  async () => {
    const parent = mkdtempSync(path.join(checkout, '.data/test-password-'));
    const passwords: string[][] = [];
    try {
      for (const ownPassword of [true, false]) {
        const directory = path.join(parent, String(ownPassword));
        const seen: string[] = [];
        // What is asked for later changes nothing of a database that is there.
        for (const asked of [ownPassword, true]) {
          const server = await startEmbeddedPostgres({ directory, ownPassword: asked });
          const client = new pg.Client(server.url);
          await client.connect();
          await client.end();
          await server.stop();
          seen.push(new URL(server.url).password);
        }
        passwords.push(seen);
      }
      const [[first, again], common] = passwords as [[string, string], string[]];
      expect(first).toMatch(/^[\w-]{32}$/);
      expect(again).toBe(first);
      expect(common).toEqual(['postgres', 'postgres']);
      expect(statSync(path.join(parent, 'true/password')).mode & 0o777).toBe(0o600);
      expect(statSync(path.join(parent, 'true/postgres.log')).mode & 0o777).toBe(0o600);
    } finally {
      rmSync(parent, { recursive: true, force: true });
    }
  },
  MINUTES,
);
