import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import path from 'node:path';
import { DataSource } from 'typeorm';
import { failureOf } from '../database/database-failure.js';
import { type EmbeddedKafka, KafkaUnavailableError, startEmbeddedKafka } from '../dev/embedded-kafka.js';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../dev/embedded-postgres.js';
import { KafkaTransport } from '../messaging/kafka.transport.js';
import { TransactionRunner } from '../transactions/transaction-runner.js';
import type { ServiceSettings } from './app.module.js';
import { signalDescendants } from './child-processes.js';
import { createApp } from './create-app.js';
import type { Environment } from './environment.js';
import { migrate } from './migrate.js';
import { DATA_DIRECTORY, removeServices, type Services, writeServices } from './services-file.js';

export interface Service extends Services {
  /** Finishes what runs, then stops everything that was started. */
  stop(): Promise<void>;
}

/** What a start works with: whom to tell, when to give up, and what to undo, last first. */
interface Start {
  say: (message: string) => void;
  aborted: AbortSignal;
  started: (() => unknown)[];
}

/** What takes longer is announced. */
const SLOW_MS = 2000;

/**
 * Brings the service up: embedded servers where none is configured, migrations, HTTP, Kafka.
 *
 * @param say tells the user what takes its time
 * @param aborted gives up the start
 * @throws what went wrong, or the reason of `aborted`; what had been started is stopped by then
 */
export async function startService(
  environment: Environment,
  say: (message: string) => void,
  aborted: AbortSignal = new AbortController().signal,
): Promise<Service> {
  const start: Start = { say, aborted, started: [] };
  try {
    const settings = await startServers(environment, start);
    const app = await connect(settings, start);
    const http = await serve(app, settings, start);
    const brokers = settings.kafka?.brokers ?? [];
    const services = { http, databaseUrl: settings.database.url, kafkaBrokers: brokers, pid: process.pid };
    writeServices(services);
    start.started.push(removeServices);
    return { ...services, stop: () => undo(start.started) };
  } catch (error) {
    try {
      await undo(start.started);
    } catch (left) {
      throw new AggregateError([error, left], 'Not all of what was started could be stopped.', {
        cause: left,
      });
    }
    aborted.throwIfAborted();
    throw error;
  }
}

/** In the opposite order: servers outlive the application that uses them. One that fails does not keep the others up. */
async function undo(started: (() => unknown)[]): Promise<void> {
  const failures: unknown[] = [];
  for (let step = started.pop(); step; step = started.pop()) {
    try {
      await step();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, 'The service did not stop cleanly.');
}

async function startServers(environment: Environment, start: Start): Promise<ServiceSettings> {
  const { database, kafka, embeddedPorts } = environment;
  const { aborted, say } = start;
  // Told by no other way that they are not wanted any more; initdb and Maven may take long.
  const end = () => signalDescendants('SIGTERM');
  aborted.addEventListener('abort', end);
  const [postgres, broker] = await Promise.allSettled([
    database.url ? undefined : startServer(startEmbeddedPostgres, 'postgres', embeddedPorts.postgres, start),
    kafka && !kafka.brokers
      ? startServer(startEmbeddedKafka, 'kafka', embeddedPorts.kafka, start)
      : undefined,
  ]);
  aborted.removeEventListener('abort', end);
  aborted.throwIfAborted();
  if (postgres.status === 'rejected') throw postgres.reason;
  const url = database.url ?? postgres.value?.url;
  if (!url) throw new Error('No database: neither configured nor embedded.');
  let brokers = kafka?.brokers;
  if (broker.status === 'fulfilled') brokers ??= broker.value?.brokers;
  else if (broker.reason instanceof KafkaUnavailableError)
    say(`Serving HTTP alone. ${broker.reason.message}`);
  else throw broker.reason;
  return {
    ...environment,
    database: { ...database, url },
    kafka: kafka && brokers ? { ...kafka, brokers } : undefined,
  };
}

async function startServer<Server extends EmbeddedPostgres | EmbeddedKafka>(
  startOne: (options: {
    directory: string;
    port: number | undefined;
    onProgress: (message: string) => void;
  }) => Promise<Server>,
  name: string,
  port: number | undefined,
  { started, say }: Start,
): Promise<Server> {
  const server = await startOne({ directory: path.join(DATA_DIRECTORY, name), port, onProgress: say });
  started.push(() => server.stop());
  return server;
}

async function connect(settings: ServiceSettings, { started, say }: Start): Promise<NestFastifyApplication> {
  const { host, pathname } = new URL(settings.database.url);
  const where = `${host}${pathname}`;
  try {
    const app = await whenSlow(`connecting to the database ${where} …`, say, createApp(settings));
    started.push(() => close(app, settings));
    return app;
  } catch (cause) {
    if (!failureOf(cause)) throw cause;
    throw new Error(
      `The database ${where} cannot be used. See that it runs and that DATABASE_URL, or the DB_* variables, are right; ` +
        'without them an embedded one is started.',
      { cause },
    );
  }
}

/** @throws what was left at the deadline of stopping; everything is closed by then */
async function close(app: NestFastifyApplication, { kafka }: ServiceSettings): Promise<void> {
  await app.close();
  const messages = kafka ? app.get(KafkaTransport).unfinished : 0;
  const units = app.get(TransactionRunner, { strict: false }).unfinished;
  if (messages + units > 0)
    throw new Error(
      `Not all that ran ended in time. Units of work that were cut: ${units}; messages that come again: ${messages}.`,
    );
}

/** Migrates, then opens the doors; resolves with the HTTP address. */
async function serve(
  app: NestFastifyApplication,
  { http: { host, port } }: ServiceSettings,
  { aborted, say }: Start,
): Promise<string> {
  aborted.throwIfAborted();
  await app.init();
  await whenSlow('migrating the database …', say, migrate(app.get(DataSource))).catch((cause: unknown) => {
    throw new Error(
      'The database could not be migrated. Mend in it what the cause says, or use another one (DATABASE_URL).',
      { cause },
    );
  });
  aborted.throwIfAborted();
  // HTTP first: when its port is taken, no message has been touched yet.
  await app.listen({ port, host }).catch((cause: NodeJS.ErrnoException) => {
    throw portError(cause, host, port);
  });
  await app.startAllMicroservices();
  aborted.throwIfAborted();
  return (await app.getUrl()).replace('[::1]', 'localhost');
}

function portError(cause: NodeJS.ErrnoException, host: string, port: number): Error {
  const advice: Record<string, string> = {
    EADDRINUSE: `PORT=${port}: another process listens there; stop it or choose another PORT.`,
    EACCES: `PORT=${port}: this user may not listen there; choose a PORT above 1023.`,
    EADDRNOTAVAIL: `HOST=${host}: not an address of this machine; choose another HOST.`,
    ENOTFOUND: `HOST=${host}: no such host; choose another HOST.`,
  };
  const message = advice[cause.code ?? ''];
  return message ? new Error(message, { cause }) : cause;
}

async function whenSlow<T>(message: string, say: (message: string) => void, work: Promise<T>): Promise<T> {
  const timer = setTimeout(() => say(message), SLOW_MS);
  try {
    return await work;
  } finally {
    clearTimeout(timer);
  }
}
