import { once } from 'node:events';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import path from 'node:path';
import pg from 'pg';
import { DataSource } from 'typeorm';
import { peopleMigrations } from '../../migrations/index.js';
import { migrate } from '../../src/app/migrating/migrate.js';
import { type EmbeddedKafka, startEmbeddedKafka } from '../../src/dev/embedded-kafka.js';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/dev/embedded-postgres.js';
import { withLogin } from '../support/kafka-listeners.js';
import { errorCode, processCommand, processesMarked } from '../../src/dev/process-table.js';

const PORT_FREE_MS = 30_000;

/** A server of the check's own that can be killed and comes back where it was. */
export interface Killable {
  readonly port: number;
  readonly isUp: boolean;
  /** Kills every process of it at once. @returns when it is up again */
  killAndRestart(): Promise<void>;
  /** Stops it in order, and starts it again after so long. @returns when it is up again */
  stopFor(ms: number): Promise<void>;
  /** Stops every process of it, with their connections open. @returns when they go on */
  hang(ms: number): Promise<void>;
  stop(): Promise<void>;
}

export interface Database extends Killable {
  readonly url: string;
  /** Asked again until the server is there. */
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>;
}

/** A broker with an authorizer: the check itself may do anything at `port`, and the services log in at `loginPort`. */
export interface Broker extends Killable {
  readonly loginPort: number;
}

export async function startBroker(directory: string): Promise<Broker> {
  const [plain, sasl, controller] = [await freePort(), await freePort(), await freePort()];
  const options = {
    directory: path.join(directory, 'kafka'),
    port: plain,
    node: { controllerPort: controller, properties: withLogin({ plain, sasl, controller }) },
  };
  const restartable = killable(await startEmbeddedKafka(options), () => startEmbeddedKafka(options));
  return Object.assign(restartable, { loginPort: sasl });
}

/** With the tables of the service, and one that lists each change of a person as it is committed. */
export async function startDatabase(directory: string): Promise<Database> {
  const options = { directory: path.join(directory, 'postgres'), port: await freePort() };
  const server = await startEmbeddedPostgres(options);
  const { url } = server;
  const dataSource = new DataSource({ type: 'postgres', url, migrations: peopleMigrations });
  await dataSource.initialize();
  await migrate(dataSource);
  await dataSource.query(AUDIT);
  await dataSource.destroy();
  const restartable = killable(server, () => startEmbeddedPostgres(options));
  return Object.assign(restartable, {
    url,
    query: async <Row extends pg.QueryResultRow>(text: string, values: unknown[] = []) =>
      untilAnswered(url, (client) => client.query<Row>(text, values)).then(({ rows }) => rows),
  });
}

// Behind the change, whose row is locked by then: the numbers are in the order of the person's changes.
const AUDIT = `
  CREATE TABLE delivery_audit (seq bigint GENERATED ALWAYS AS IDENTITY, person uuid NOT NULL, change text NOT NULL);
  CREATE FUNCTION delivery_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO delivery_audit (person, change)
      VALUES (coalesce(NEW.id, OLD.id), concat_ws(' ', replace(lower(TG_OP) || 'd', 'insertd', 'created'), NEW.name));
      RETURN NULL;
    END $$;
  CREATE TRIGGER delivery_audit AFTER INSERT OR UPDATE OR DELETE ON people
    FOR EACH ROW EXECUTE FUNCTION delivery_audit();`;

async function untilAnswered<T>(url: string, ask: (client: pg.Client) => Promise<T>): Promise<T> {
  for (;;) {
    const client = new pg.Client(url);
    client.on('error', () => undefined);
    try {
      await client.connect();
      return await ask(client);
    } catch (error) {
      // A class 08 or 57P, or none at all: it is being killed, or comes back.
      const code = errorCode(error);
      if (/^\w{5}$/.test(code) && !/^(08|57P)/.test(code)) throw error;
      await sleep(100);
    } finally {
      await client.end().catch(() => undefined);
    }
  }
}

/** None that connections are given: one of them would have it while its server is down. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    const server = createServer().listen(port, '127.0.0.1');
    try {
      await once(server, 'listening');
    } catch (error) {
      if (errorCode(error) !== 'EADDRINUSE') throw error;
      continue;
    }
    await once(server.close(), 'close');
    return port;
  }
}

/** A process that was killed has its port until it is gone altogether, which a busy machine takes its time for. */
async function onceItsPortIsFree<T>(restart: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + PORT_FREE_MS;
  for (;;) {
    try {
      return await restart();
    } catch (error) {
      const isTaken = errorCode((error as Error).cause) === 'EADDRINUSE';
      if (!isTaken || Date.now() > deadline) throw error;
      await sleep(200);
    }
  }
}

function killable<Server extends EmbeddedKafka | EmbeddedPostgres>(
  started: Server,
  restart: () => Promise<Server>,
): Killable {
  let server = started;
  let recovery: Promise<void> | undefined;
  const whileDown = (goDown: () => Promise<void>) => {
    if (recovery) throw new Error('It is down already.');
    recovery = goDown().finally(() => (recovery = undefined));
    return recovery;
  };
  return {
    port: server.port,
    get isUp() {
      return recovery === undefined;
    },
    killAndRestart: () =>
      whileDown(async () => {
        signalAll(server.pid, 'SIGKILL');
        await server.stop();
        server = await onceItsPortIsFree(restart);
      }),
    stopFor: (ms) =>
      whileDown(async () => {
        await server.stop();
        await sleep(ms);
        server = await onceItsPortIsFree(restart);
      }),
    hang: (ms) =>
      whileDown(async () => {
        signalAll(server.pid, 'SIGSTOP');
        await sleep(ms);
        signalAll(server.pid, 'SIGCONT');
      }),
    stop: async () => {
      await recovery?.catch(() => undefined);
      await server.stop();
    },
  };
}

/** Without notice to any of its processes: those that are left would write what a crash would lose. */
function signalAll(pid: number, signal: NodeJS.Signals): void {
  const [marker] = /embedded-\d+-[0-9a-f]{16}/.exec(processCommand(pid)) ?? [];
  if (!marker) throw new Error(`Process ${pid} is none of ours.`);
  for (const each of [pid, ...processesMarked(marker).map((child) => child.pid)]) {
    try {
      process.kill(each, signal);
    } catch (error) {
      if (errorCode(error) !== 'ESRCH') throw error;
    }
  }
}
