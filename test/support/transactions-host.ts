import 'reflect-metadata';
import type { INestApplication, ModuleMetadata, Type } from '@nestjs/common';
import { HttpAdapterHost, NestFactory } from '@nestjs/core';
import { Module } from '@nestjs/common';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { TypeOrmModule } from '@nestjs/typeorm';
import { DataSource } from 'typeorm';
import { ProblemDetailsFilter } from '../../src/errors/error-responses.js';
import { Person } from '../../src/people/person.entity.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import {
  TransactionsModule,
  type TransactionsModuleOptions,
} from '../../src/transactions/transactions.module.js';
import { poolOf } from './people-app.js';
import type { TestDatabase } from './test-database.js';

export const ADAPTERS = ['express', 'fastify'] as const;
export type Adapter = (typeof ADAPTERS)[number];

/** An application that has TransactionsModule and things of its own, and nothing of people's service. */
export interface Host {
  app: INestApplication;
  get<T>(type: Type<T>): T;
  request(path: string, init?: RequestInit): Promise<Response>;
  transactions: TransactionRunner;
  dataSource: DataSource;
  borrowed(): number;
  close(): Promise<void>;
}

export interface HostOptions extends Pick<ModuleMetadata, 'controllers' | 'providers'> {
  database: TestDatabase;
  adapter?: Adapter;
  transactions?: TransactionsModuleOptions;
  /** Of pg's pool. */
  extra?: Record<string, unknown>;
  poolSize?: number;
  /** Called before the application listens. */
  prepare?: (app: INestApplication) => unknown;
}

export async function startHost(options: HostOptions): Promise<Host> {
  const { database, adapter = 'express', controllers = [], providers = [], poolSize = 4 } = options;
  @Module({
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url: database.url,
        entities: [Person],
        poolSize,
        connectTimeoutMS: 5000,
        extra: options.extra,
        poolErrorHandler: () => undefined,
      }),
      TransactionsModule.forRoot({ backoff: () => 1, ...options.transactions }),
    ],
    controllers,
    providers,
  })
  class HostModule {}
  const app = await NestFactory.create(
    HostModule,
    adapter === 'express' ? new ExpressAdapter() : new FastifyAdapter(),
    { logger: false, abortOnError: false },
  );
  app.useGlobalFilters(new ProblemDetailsFilter(app.get(HttpAdapterHost)));
  await options.prepare?.(app);
  await app.listen(0, '127.0.0.1');
  const url = await app.getUrl();
  const dataSource = app.get(DataSource);
  return {
    app,
    get: (type) => app.get(type),
    request: (path, init) => fetch(`${url}${path}`, init),
    transactions: app.get(TransactionRunner, { strict: false }),
    dataSource,
    borrowed: () => poolOf(dataSource).borrowed,
    close: () => app.close(),
  };
}
