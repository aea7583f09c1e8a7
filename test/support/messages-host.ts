import {
  type DynamicModule,
  type INestApplication,
  Module,
  type PipeTransform,
  type Type,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { EventPattern } from '@nestjs/microservices';
import { ExpressAdapter } from '@nestjs/platform-express';
import { TypeOrmModule } from '@nestjs/typeorm';
import { randomUUID } from 'node:crypto';
import { dataSourceOptions } from '../../src/database/data-source-options.js';
import { KafkaTransport } from '../../src/messaging/kafka.transport.js';
import type { KafkaTransportOptions } from '../../src/messaging/kafka/transport-options.js';
import { MessageStore } from '../../src/messaging/message-store.js';
import { MessagingModule } from '../../src/messaging/messaging.module.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { eventually } from './barrier.js';
import { createDatabase, type TestDatabase } from './test-database.js';

/** Somebody else's application whose handlers take messages through `KafkaTransport`. */
export interface MessagesHost {
  app: INestApplication;
  transport: KafkaTransport;
  store: MessageStore;
  close(): Promise<void>;
}

export interface MessagesHostOptions {
  controllers?: Type[];
  /** What brings MessageStore along. */
  imports?: DynamicModule[];
  /** In place of the defaults: a group of its own, topics of one partition, three messages at once. */
  transport?: Partial<KafkaTransportOptions>;
}

@Module({})
class HostModule {}

/** Such an application on `database`, without a transport. */
export function messagesModule(
  database: TestDatabase,
  controllers: Type[],
  imports: DynamicModule[] = [MessagingModule.forRoot()],
): DynamicModule {
  const settings = { url: database.url, poolSize: 6, acquireTimeoutMs: 5000, statementTimeoutMs: 30_000, ssl: 'off' } as const; // prettier-ignore
  return {
    module: HostModule,
    imports: [
      TypeOrmModule.forRoot({ ...dataSourceOptions(settings, () => undefined), autoLoadEntities: true }),
      ...imports,
    ],
    controllers,
  };
}

/** @param database with the migrations applied; several hosts on one are instances of one service */
export async function startMessagesHost(
  database: TestDatabase,
  { controllers = [], imports, transport: options = {} }: MessagesHostOptions = {},
): Promise<MessagesHost> {
  const module = messagesModule(database, controllers, imports);
  const app = await NestFactory.create(module, new ExpressAdapter(), { logger: false, abortOnError: false });
  const store = app.get(MessageStore, { strict: false });
  const transport = new KafkaTransport({
    client: { brokers: process.env.TEST_KAFKA_BROKERS!.split(','), clientId: 'host' },
    groupId: `host-${randomUUID()}`,
    concurrency: 3,
    topics: { partitions: 1, replication: undefined },
    store,
    ...options,
  });
  app.connectMicroservice({ strategy: transport });
  await app.startAllMicroservices();
  await app.init();
  return { app, transport, store, close: () => app.close() };
}

/** Such a host once it consumes. */
export async function startConsumingHost(
  database: TestDatabase,
  options: MessagesHostOptions,
): Promise<MessagesHost> {
  const host = await startMessagesHost(database, options);
  await eventually(() => host.transport.unavailableReason === undefined, 30_000);
  return host;
}

/** With Nest's types a handler would have to take whatever comes. */
export const OnEvent = EventPattern as (pattern: string | RegExp) => MethodDecorator;

/** For `@Payload`: our transport hands over what Nest's parser has made of the value, or bytes. */
export class ParsedValue implements PipeTransform {
  transform(value: unknown): unknown {
    return Buffer.isBuffer(value) ? JSON.parse(value.toString()) : value;
  }
}

/** With the migrations applied, and counters. */
export async function createCountersDatabase(): Promise<TestDatabase> {
  const database = await createDatabase();
  await createCounters(database);
  return database;
}

export const createCounters = (database: TestDatabase) =>
  database.query('CREATE TABLE counters (name text PRIMARY KEY, value int NOT NULL)');

/** Adds one, in the unit of work that calls it. */
export const count = (name: string) =>
  currentTransaction()!.query({
    text: 'INSERT INTO counters VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET value = counters.value + 1',
    values: [name],
  });

/** Why the message of this key is a dead letter; undefined where it is none. */
export async function codeOfLetter(database: TestDatabase, key: string): Promise<string | undefined> {
  const text = 'SELECT code FROM message_dead_letter WHERE key = $1';
  return (await database.query<{ code: string }>(text, [Buffer.from(key)]))[0]?.code;
}

/** Every counter that is committed. */
export async function counters(database: TestDatabase): Promise<Record<string, number>> {
  const rows = await database.query<{ name: string; value: number }>('SELECT name, value FROM counters');
  return Object.fromEntries(rows.map(({ name, value }) => [name, value]));
}
