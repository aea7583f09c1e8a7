import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DataSource } from 'typeorm';
import { failureOf } from '../database/database-failure.js';
import { placeOf } from '../database/database-url.js';
import { type EmbeddedKafka, KafkaUnavailableError, startEmbeddedKafka } from '../dev/embedded-kafka.js';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../dev/embedded-postgres.js';
import { Outbox } from '../messaging/outbox.js';
import { Stopping } from '../operations/health/stopping.js';
import { JsonLogger } from '../operations/json-logger.js';
import { standardOutput } from '../operations/logs/bounded-output.js';
import { levelBySignal } from '../operations/logs/level.js';
import { PeopleTable } from '../people/table/known-table.js';
import type { ServiceSettings } from './app.module.js';
import { signalDescendants } from './child-processes.js';
import { createApp } from './create-app.js';
import type { Environment } from './settings.js';
import { migrate } from './migrating/migrate.js';
import { managementUrlOf } from './http/operations-access.js';
import { portError } from './http/port-error.js';
import { type Progress, stopAll, type Started, stopperOf, stopTimesOf } from './stop-application.js';
import {
  DATA_DIRECTORY,
  makeDataDirectory,
  removeServices,
  type Services,
  writeServices,
} from './services-file.js';

export interface Service extends Services {
  /** Finishes what runs, then stops everything that was started. */
  stop(): Promise<void>;
}

/** What a start works with: whom to tell, when to give up, and what to undo, last first. */
interface Start {
  say: (message: string) => void;
  aborted: AbortSignal;
  started: Started[];
  progress: Progress;
}

/** What takes longer is announced. */
const SLOW_MS = 2000;

/**
 * Brings the service up: embedded servers where none is configured, migrations, HTTP, Kafka.
 *
 * @param say tells the user what takes its time
 * @param aborted gives up the start
 * @param progress is told what is done at the moment
 * @throws what went wrong, or the reason of `aborted`; what had been started is stopped by then
 */
export async function startService(
  environment: Environment,
  say: (message: string) => void,
  aborted: AbortSignal = new AbortController().signal,
  progress: Progress = { step: '' },
): Promise<Service> {
  const start: Start = { say, aborted, started: [], progress };
  try {
    progress.step = 'starting the embedded servers';
    const settings = await startServers(environment, start);
    progress.step = 'connecting to the database';
    const app = await connect(settings, start);
    progress.step = 'migrating the database and opening the doors';
    const http = await serve(app, settings, start);
    const management = managementUrlOf(app.getHttpAdapter().getInstance());
    const services = {
      http,
      ...(management && { management }),
      databaseUrl: settings.database.url,
      kafkaBrokers: settings.kafka?.brokers ?? [],
      pid: process.pid,
    };
    // Tools of a checkout look there; in production the working directory may be read only.
    if (!environment.isProduction) {
      writeServices(services);
      start.started.push({ name: 'the file services.json', stop: removeServices });
    }
    return { ...services, stop: () => stopAfterDelay(app, start, environment) };
  } catch (error) {
    try {
      await stopAll(start, stopTimesOf(environment).allMs);
    } catch (left) {
      throw new AggregateError([error, left], 'Not all of what was started could be stopped.', {
        cause: left,
      });
    }
    aborted.throwIfAborted();
    throw error;
  }
}

/** Balancers take their time to see that this instance is to get no more requests, and send it some until then. */
async function stopAfterDelay(
  app: NestFastifyApplication,
  start: Start,
  environment: Environment,
): Promise<void> {
  start.progress.step = 'serving on until balancers have seen it';
  app.get(Stopping, { strict: false }).begin();
  await sleep(environment.shutdownDelayMs);
  await stopAll(start, stopTimesOf(environment).allMs);
}

async function startServers(environment: Environment, start: Start): Promise<ServiceSettings> {
  const { database, kafka, embeddedPorts } = environment;
  const { aborted, say } = start;
  if (!database.url || (kafka && !kafka.brokers)) makeDataDirectory();
  // initdb and Maven may take long, and nothing else tells them that they are not wanted any more.
  const end = () => signalDescendants('SIGTERM');
  aborted.addEventListener('abort', end);
  const [postgres, broker] = await Promise.allSettled([
    database.url
      ? undefined
      : startServer(
          (options) => startEmbeddedPostgres({ ...options, ownPassword: true }),
          'postgres',
          embeddedPorts.postgres,
          start,
        ),
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
  started.push({ name: `the embedded server (${name})`, stop: () => server.stop(), isServer: true });
  return server;
}

async function connect(settings: ServiceSettings, { started, say }: Start): Promise<NestFastifyApplication> {
  const where = placeOf(settings.database.url);
  try {
    const logger = new JsonLogger(settings.logLevel, standardOutput(settings.logBufferBytes));
    const app = await whenSlow(`connecting to the database ${where} …`, say, createApp(settings, logger));
    started.push({ name: 'listening to SIGUSR2', stop: levelBySignal(logger) });
    const times = stopTimesOf(settings);
    started.push({ name: 'the application', stop: stopperOf(app, settings.kafka !== undefined, times) });
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

/** Migrates, then opens the doors; resolves with the HTTP address. */
async function serve(
  app: NestFastifyApplication,
  { http: { host, port, management } }: ServiceSettings,
  { aborted, say }: Start,
): Promise<string> {
  aborted.throwIfAborted();
  await app.init();
  await whenSlow('migrating the database …', say, migrateAndFit(app));
  aborted.throwIfAborted();
  // HTTP first: when its port is taken, no message has been touched yet.
  await app.listen({ port, host }).catch((cause: NodeJS.ErrnoException & { port?: number }) => {
    const isManagement = management !== undefined && cause.port === management.port && cause.port !== port;
    throw isManagement
      ? portError(cause, management.host, management.port, 'MANAGEMENT_')
      : portError(cause, host, port);
  });
  await app.startAllMicroservices();
  aborted.throwIfAborted();
  return (await app.getUrl()).replace('[::1]', 'localhost');
}

/** @throws where the migrations can't be applied, and where the table of people is not what the module needs */
async function migrateAndFit(app: NestFastifyApplication): Promise<void> {
  const table = app.get(PeopleTable, { strict: false });
  try {
    await migrate(app.get(DataSource));
    await app.get(Outbox, { strict: false }).look();
  } catch (cause) {
    // A migration names only the first thing of a table that it does not get on with.
    const misfit = await table.misfit({ mayBeAbsent: true }).catch(() => undefined);
    if (misfit) throw misfit;
    throw new Error(
      'The database could not be migrated. Mend in it what the cause says, or use another one (DATABASE_URL).',
      { cause },
    );
  }
  const misfit = await table.misfit();
  if (misfit) throw misfit;
}

async function whenSlow<T>(message: string, say: (message: string) => void, work: Promise<T>): Promise<T> {
  const timer = setTimeout(() => say(message), SLOW_MS);
  try {
    return await work;
  } finally {
    clearTimeout(timer);
  }
}
