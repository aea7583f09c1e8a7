import 'reflect-metadata';
import {
  type DynamicModule,
  type INestApplication,
  type LoggerService,
  Module,
  type Provider,
  type Type,
} from '@nestjs/common';
import { APP_FILTER, NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { TypeOrmModule } from '@nestjs/typeorm';
import { Column, DataSource, type DataSourceOptions, Entity, PrimaryColumn } from 'typeorm';
import { dataSourceOptions } from '../../src/database/data-source-options.js';
import { ProblemDetailsFilter } from '../../src/errors/error-responses.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import type { TransactionRunnerSettings } from '../../src/transactions/transaction-options.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import { TransactionsModule } from '../../src/transactions/transactions.module.js';
import { eventually } from './barrier.js';
import { poolOf } from './people-app.js';
import { createDatabase, type TestDatabase } from './test-database.js';

@Entity('counters')
export class Counter {
  @PrimaryColumn('text')
  name!: string;

  @Column('int')
  value!: number;
}

@Module({})
class HostModule {}

export const PLATFORMS = ['express', 'fastify'] as const;
export type Platform = (typeof PLATFORMS)[number];

export interface HostOptions {
  platform?: Platform;
  controllers?: Type[];
  providers?: Provider[];
  /** Over REPEATABLE READ and hardly a wait between attempts. */
  settings?: TransactionRunnerSettings;
  poolSize?: number;
  /** More of the DataSource: entities beside `Counter`, subscribers. */
  dataSource?: Partial<Extract<DataSourceOptions, { type: 'postgres' }>> & { entities?: Type[] };
  /** Called before the application listens. */
  prepare?: (app: INestApplication) => void;
}

/** Somebody else's Nest application that uses the transactions, and nothing else, of the package. */
export interface TransactionsHost {
  app: INestApplication;
  /** Where HTTP listens. */
  url: string;
  database: TestDatabase;
  dataSource: DataSource;
  transactions: TransactionRunner;
  /** What was logged as a warning. */
  warnings: string[];
  /** fetch with a path. */
  request(path: string, init?: RequestInit): Promise<Response>;
  post(path: string, body?: unknown): Promise<Response>;
  /** Makes the unit of work that calls it meet a conflict in each of its first `attempts` attempts. */
  conflict(attempts: number): Promise<void>;
  /** Adds one to a counter, in the unit of work that calls it. */
  count(name: string): Promise<void>;
  /** A committed counter, undefined where there is none. */
  committed(name: string): Promise<number | undefined>;
  close(): Promise<void>;
}

export async function startTransactionsHost({
  platform = 'express',
  controllers = [],
  providers = [],
  settings = {},
  poolSize = 5,
  dataSource: { entities = [], ...more } = {},
  prepare,
}: HostOptions = {}): Promise<TransactionsHost> {
  const database = await createDatabase('template0');
  await database.query('CREATE TABLE counters (name text PRIMARY KEY, value int NOT NULL)');
  await database.query(`INSERT INTO counters VALUES ('hot', 0)`);
  const warnings: string[] = [];
  const module: DynamicModule = {
    module: HostModule,
    imports: [
      TypeOrmModule.forRoot({
        ...dataSourceOptions(
          {
            url: database.url,
            poolSize,
            acquireTimeoutMs: 10_000,
            statementTimeoutMs: 30_000,
            ssl: 'off',
          },
          () => undefined,
        ),
        ...more,
        entities: [Counter, ...entities],
      }),
      TypeOrmModule.forFeature([Counter, ...entities]),
      TransactionsModule.forRoot({
        isolationLevel: 'REPEATABLE READ',
        backoff: { baseMs: 1, capMs: 1 },
        ...settings,
      }),
    ],
    controllers,
    providers: [{ provide: APP_FILTER, useClass: ProblemDetailsFilter }, ...providers],
  };
  const adapter = platform === 'express' ? new ExpressAdapter() : new FastifyAdapter();
  const logger = loggerInto(warnings);
  const app = await NestFactory.create(module, adapter as ExpressAdapter, { logger, abortOnError: false });
  prepare?.(app);
  await app.startAllMicroservices();
  await app.listen(0, '127.0.0.1');
  const url = await app.getUrl();
  const request = (path: string, init?: RequestInit) => fetch(`${url}${path}`, init);
  const dataSource = app.get(DataSource);
  return {
    app,
    url,
    database,
    dataSource,
    transactions: app.get(TransactionRunner),
    warnings,
    request,
    post: (path, body = {}) =>
      request(path, {
        method: 'POST',
        body: JSON.stringify(body),
        headers: { 'content-type': 'application/json' },
      }),
    conflict: async (attempts) => {
      const transaction = currentTransaction()!;
      if (transaction.attempt > attempts) return;
      await transaction.query({ text: `SELECT FROM counters WHERE name = 'hot'` });
      await database.query(`UPDATE counters SET value = value + 1 WHERE name = 'hot'`);
      await transaction.query({ text: `UPDATE counters SET value = value + 1 WHERE name = 'hot'` });
    },
    count: async (name) => {
      const text =
        'INSERT INTO counters VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET value = counters.value + 1';
      await currentTransaction()!.query({ text, values: [name] });
    },
    committed: async (name) => {
      const text = 'SELECT value FROM counters WHERE name = $1';
      return (await database.query<{ value: number }>(text, [name]))[0]?.value;
    },
    close: async () => {
      // A connection that never comes back is a leak of the product, so it fails the test file.
      const leak = await eventually(() => poolOf(dataSource).borrowed === 0).catch((error: Error) => error);
      await app.close();
      await database.drop();
      if (leak instanceof Error)
        throw new Error('Connections were not given back to the pool', { cause: leak });
    },
  };
}

function loggerInto(warnings: string[]): LoggerService {
  const nothing = () => undefined;
  return { log: nothing, error: nothing, warn: (message: unknown) => void warnings.push(String(message)) };
}
