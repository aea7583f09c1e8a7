import 'reflect-metadata';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { DataSource } from 'typeorm';
import type { ServiceSettings } from '../../src/app/app.module.js';
import { createApp } from '../../src/app/create-app.js';
import { readEnvironment } from '../../src/app/environment.js';
import { PeopleService } from '../../src/people/people.service.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import { eventually } from './barrier.js';
import { createDatabase, type TestDatabase } from './test-database.js';

/** The service as `npm start` runs it, in this process and on a database of its own. */
export interface PeopleApp {
  app: NestFastifyApplication;
  /** Where HTTP listens. */
  url: string;
  database: TestDatabase;
  people: PeopleService;
  transactions: TransactionRunner;
  dataSource: DataSource;
  /** fetch with a path. */
  request(path: string, init?: RequestInit): Promise<Response>;
  /** Sends JSON text, as it is. */
  send(method: string, path: string, json: string, headers?: Record<string, string>): Promise<Response>;
  close(): Promise<void>;
}

/**
 * @param environment variables, as `npm start` would find them; `KAFKA_BROKERS` opens the Kafka door
 * @param given a database to use in place of a fresh one; it is not dropped then
 */
export async function startPeopleApp(
  environment: Record<string, string> = {},
  given?: TestDatabase,
): Promise<PeopleApp> {
  const database = given ?? (await createDatabase());
  const kafka = environment.KAFKA_BROKERS ? 'on' : 'off';
  const settings = readEnvironment({
    LOG_LEVEL: 'silent',
    PORT: '0',
    KAFKA: kafka,
    DATABASE_URL: database.url,
    ...environment,
  });
  const app = await createApp(settings as ServiceSettings);
  await app.startAllMicroservices();
  await app.listen({ port: settings.http.port, host: settings.http.host });
  const url = await app.getUrl();
  const request = (path: string, init?: RequestInit) => fetch(`${url}${path}`, init);
  const dataSource = app.get(DataSource);
  return {
    app,
    url,
    database,
    people: app.get(PeopleService),
    transactions: app.get(TransactionRunner),
    dataSource,
    request,
    send: (method, path, json, headers = {}) =>
      request(path, { method, body: json, headers: { 'content-type': 'application/json', ...headers } }),
    close: async () => {
      // A connection that never comes back is a leak of the product, so it fails the test file. One that a request has whose
      // client is gone comes back in a moment.
      // The relay has one while it waits for notifications.
      const kept = settings.kafka ? 1 : 0;
      const leak = await eventually(() => poolOf(dataSource).borrowed <= kept).catch((error: Error) => error);
      await app.close();
      if (!given) await database.drop();
      if (leak instanceof Error)
        throw new Error('Connections were not given back to the pool', { cause: leak });
    },
  };
}

/** The pool's own numbers. */
export function poolOf(dataSource: DataSource) {
  const pool = (
    dataSource.driver as unknown as {
      master: { totalCount: number; idleCount: number; waitingCount: number };
    }
  ).master;
  return { open: pool.totalCount, borrowed: pool.totalCount - pool.idleCount, waiting: pool.waitingCount };
}
