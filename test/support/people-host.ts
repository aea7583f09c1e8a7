import 'reflect-metadata';
import { type INestApplication, Module } from '@nestjs/common';
import { APP_FILTER, NestFactory } from '@nestjs/core';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { TypeOrmModule } from '@nestjs/typeorm';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { peopleMigrations } from '../../migrations/index.js';
import { ProblemDetailsFilter } from '../../src/errors/error-responses.js';
import { PeopleModule, type PeopleRuntimeOptions } from '../../src/people/people.module.js';
import { PeopleService } from '../../src/people/people.service.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';

export interface PeopleHostOptions {
  /** Over a pool of 5 whose waits end after 5 s. */
  dataSource?: Partial<Extract<DataSourceOptions, { type: 'postgres' }>>;
  people?: PeopleRuntimeOptions;
}

/** Somebody else's Nest application with PeopleModule in it, behind HTTP and DI. */
export interface PeopleHost {
  app: INestApplication;
  url: string;
  people: PeopleService;
  transactions: TransactionRunner;
  dataSource: DataSource;
  request(path: string, init?: RequestInit): Promise<Response>;
  /** Sends JSON text. */
  send(method: string, path: string, json: string): Promise<Response>;
  close(): Promise<void>;
}

@Module({})
class HostModule {}

export async function startPeopleHost(
  databaseUrl: string,
  { dataSource = {}, people = {} }: PeopleHostOptions = {},
): Promise<PeopleHost> {
  const module = {
    module: HostModule,
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url: databaseUrl,
        autoLoadEntities: true,
        installExtensions: false,
        migrations: peopleMigrations,
        poolSize: 5,
        connectTimeoutMS: 5000,
        poolErrorHandler: () => undefined,
        ...dataSource,
      }),
      PeopleModule.forRoot({ controllers: { http: true, messages: false }, ...people }),
    ],
    providers: [{ provide: APP_FILTER, useClass: ProblemDetailsFilter }],
  };
  const app = await NestFactory.create(module, new FastifyAdapter(), {
    logger: false,
    rawBody: true,
    abortOnError: false,
  });
  await app.listen(0, '127.0.0.1');
  const url = await app.getUrl();
  const request = (path: string, init?: RequestInit) => fetch(`${url}${path}`, init);
  return {
    app,
    url,
    people: app.get(PeopleService),
    transactions: app.get(TransactionRunner, { strict: false }),
    dataSource: app.get(DataSource),
    request,
    send: (method, path, json) =>
      request(path, { method, body: json, headers: { 'content-type': 'application/json' } }),
    close: () => app.close(),
  };
}
