import {
  Body,
  Controller,
  type INestApplication,
  Module,
  type NestApplicationOptions,
  Param,
  Post,
  type Provider,
  Req,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { MessagePattern, Payload } from '@nestjs/microservices';
import { TypeOrmModule } from '@nestjs/typeorm';
import { PeopleModule, type PeopleModuleOptions } from '../../src/people/people.module.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { TransactionOutcomeUnknownError } from '../../src/transactions/transaction-errors.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import type { Platform } from '../support/transactions-host.js';

/** Somebody else's application behind HTTP that was told nothing but `imports: [PeopleModule]`. */
export interface HttpHost {
  app: INestApplication;
  request: (path: string, init?: RequestInit) => Promise<Response>;
  /** Sends text as JSON, or as what it is said to be. */
  send: (method: string, path: string, body: string, type?: string) => Promise<Response>;
  close(): Promise<void>;
}

export interface HttpHostOptions {
  nest?: NestApplicationOptions;
  people?: PeopleModuleOptions;
  providers?: Provider[];
  /** What main.ts does before it listens. */
  prepare?: (app: INestApplication) => void;
}

/** What the server answers each attempt with. */
const REFUSALS: Record<string, string> = { conflict: '40001', lock: '55P03', full: '53100' };

@Controller('host')
class HostController {
  @Post('fails/:how')
  @Transactional({ maxAttempts: 2, backoff: { baseMs: 1, capMs: 1 } })
  async fails(@Param('how') how: string): Promise<void> {
    if (how === 'unknown')
      throw new TransactionOutcomeUnknownError({
        transactionId: 't',
        attempts: 1,
        cause: new Error('SECRET'),
      });
    const text = `DO $$ BEGIN RAISE SQLSTATE '${REFUSALS[how]}' USING MESSAGE = 'SECRET'; END $$`;
    await currentTransaction()!.query({ text });
  }

  @MessagePattern('host.fails')
  @Transactional()
  failsByMessage(@Payload() how: string): Promise<void> {
    return this.fails(how);
  }

  @Post('echo')
  echo(@Body() body: unknown, @Req() { rawBody }: { rawBody?: Buffer }): unknown {
    return { body: body ?? null, raw: rawBody?.toString() ?? null };
  }
}

@Module({})
class HostModule {}

/** @param databaseUrl with the migrations applied */
export async function startHttpHost(
  platform: Platform,
  databaseUrl: string,
  { nest = {}, people = {}, providers = [], prepare }: HttpHostOptions = {},
): Promise<HttpHost> {
  const module = {
    module: HostModule,
    imports: [
      TypeOrmModule.forRoot({ type: 'postgres', url: databaseUrl, autoLoadEntities: true, poolSize: 3 }),
      PeopleModule.forRoot({ controllers: { messages: false }, ...people }),
    ],
    controllers: [HostController],
    providers,
  };
  const adapter = platform === 'express' ? new ExpressAdapter() : new FastifyAdapter();
  const options = { logger: false, abortOnError: false, ...nest } as const;
  const app = await NestFactory.create(module, adapter as ExpressAdapter, options);
  prepare?.(app);
  await app.listen(0, '127.0.0.1');
  const url = await app.getUrl();
  const request = (path: string, init?: RequestInit) => fetch(`${url}${path}`, init);
  return {
    app,
    request,
    send: (method, path, body, type = 'application/json') =>
      request(path, { method, body, headers: { 'content-type': type } }),
    close: () => app.close(),
  };
}
