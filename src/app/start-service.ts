import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import path from 'node:path';
import { DataSource } from 'typeorm';
import { type EmbeddedKafka, KafkaUnavailableError, startEmbeddedKafka } from '../dev/embedded-kafka.js';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../dev/embedded-postgres.js';
import { createApp } from './create-app.js';
import type { Environment } from './environment.js';
import { migrate } from './migrate.js';
import type { ServiceSettings } from './app.module.js';
import { DATA_DIRECTORY, removeServices, type Services, writeServices } from './services-file.js';

export interface Service extends Services {
  /** Finishes what runs, then stops everything that was started. */
  stop(): Promise<void>;
}

/**
 * Brings the service up: embedded servers where none is configured, migrations, HTTP, Kafka. A start that fails stops
 * what it had started.
 *
 * @param say tells the user what takes its time
 */
export async function startService(
  environment: Environment,
  say: (message: string) => void,
): Promise<Service> {
  // Stopped in the opposite order: the servers outlive the application that uses them.
  const started: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (let undo = started.pop(); undo; undo = started.pop()) await undo();
  };
  try {
    const settings = await startServers(environment, started, say);
    const app = await createApp(settings);
    started.push(() => app.close());
    const http = await serve(app, settings);
    const services: Services = {
      http,
      databaseUrl: settings.database.url,
      kafkaBrokers: settings.kafka?.brokers ?? [],
      pid: process.pid,
    };
    writeServices(services);
    started.push(async () => removeServices());
    return { ...services, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startServers(
  environment: Environment,
  started: (() => Promise<unknown>)[],
  say: (message: string) => void,
): Promise<ServiceSettings> {
  const { database, kafka } = environment;
  const [postgres, broker] = await Promise.allSettled([
    database.url ? undefined : start(startEmbeddedPostgres, 'postgres', started, say),
    kafka && !kafka.brokers ? start(startEmbeddedKafka, 'kafka', started, say) : undefined,
  ]);
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

async function start<Server extends EmbeddedPostgres | EmbeddedKafka>(
  startServer: (options: { directory: string; onProgress: (message: string) => void }) => Promise<Server>,
  name: string,
  started: (() => Promise<unknown>)[],
  say: (message: string) => void,
): Promise<Server> {
  const server = await startServer({ directory: path.join(DATA_DIRECTORY, name), onProgress: say });
  // A process that ends without having stopped (a second signal, an uncaught error) takes its servers with it.
  const kill = () => killNow(server.pid);
  process.once('exit', kill);
  started.push(async () => {
    await server.stop();
    process.off('exit', kill);
  });
  return server;
}

function killNow(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Migrates, then opens the doors; resolves with the HTTP address. */
async function serve(
  app: NestFastifyApplication,
  { http: { host, port } }: ServiceSettings,
): Promise<string> {
  await app.init();
  await migrate(app.get(DataSource)).catch((cause: unknown) => {
    throw new Error(
      'The database could not be migrated: mend what stands in the way, or choose another database.',
      {
        cause,
      },
    );
  });
  await app.startAllMicroservices();
  await app.listen({ port, host }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EADDRINUSE') throw error;
    throw new Error(`PORT=${port}: another process listens there; stop it or choose another PORT.`, {
      cause: error,
    });
  });
  return (await app.getUrl()).replace('[::1]', 'localhost');
}
