import {
  type INestApplication,
  Module,
  type ModuleMetadata,
  type NestApplicationOptions,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { TypeOrmModule } from '@nestjs/typeorm';
import type { DataSourceOptions } from 'typeorm';
import type { Platform } from './transactions-host.js';

type PostgresOptions = Extract<DataSourceOptions, { type: 'postgres' }>;

/** What a team writes that has never heard of this package's defaults. */
export const typeOrm = (url: string, options: Partial<PostgresOptions> & { name?: string } = {}) =>
  TypeOrmModule.forRoot({
    ...{ type: 'postgres', url, autoLoadEntities: true, retryAttempts: 0 },
    // A test drops its database beneath the pool.
    poolErrorHandler: () => undefined,
    ...options,
  });

export interface AnyHostOptions extends ModuleMetadata {
  platform?: Platform;
  nest?: NestApplicationOptions;
  /** What `main.ts` does before the application listens. */
  prepare?: (app: INestApplication) => unknown;
}

/** Somebody else's application, with whatever house rules it has. */
export interface AnyHost {
  app: INestApplication;
  /** What was logged at level warn and error while it started, and since. */
  told: string[];
  request(path: string, init?: RequestInit): Promise<Response>;
  /** Sends JSON text. */
  send(method: string, path: string, json: string, type?: string): Promise<Response>;
  close(): Promise<void>;
}

/** @throws what keeps it from starting */
export async function startAnyHost({
  platform = 'express',
  nest = {},
  prepare,
  ...metadata
}: AnyHostOptions): Promise<AnyHost> {
  @Module(metadata)
  class HostModule {}
  const told: string[] = [];
  const tell = (message: unknown) =>
    void told.push(typeof message === 'string' ? message : JSON.stringify(message));
  const logger = { log: () => undefined, warn: tell, error: tell };
  const adapter = platform === 'express' ? new ExpressAdapter() : new FastifyAdapter();
  const app = await NestFactory.create(HostModule, adapter as ExpressAdapter, {
    ...{ logger, abortOnError: false, rawBody: true },
    ...nest,
  });
  try {
    await prepare?.(app);
    await app.listen(0, '127.0.0.1');
  } catch (error) {
    await app.close();
    throw error;
  }
  const url = await app.getUrl();
  const request = (path: string, init?: RequestInit) => fetch(`${url}${path}`, init);
  return {
    app,
    told,
    request,
    send: (method, path, json, type = 'application/json') =>
      request(path, { method, body: json, headers: { 'content-type': type } }),
    close: () => app.close(),
  };
}
