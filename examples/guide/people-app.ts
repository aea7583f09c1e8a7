import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import {
  type JsonObject,
  PeopleModule,
  peopleMigrations,
  type PeopleRuntimeOptions,
  PeopleService,
  TransactionRunner,
} from 'nestjs-people';

/** A Nest application without HTTP, with PeopleModule in it: what is asked of it is asked by dependency injection. */
export async function openPeople<Data extends object = JsonObject>(
  options: PeopleRuntimeOptions<Data> = {},
  url = process.env.DATABASE_URL,
) {
  class AppModule {}
  const app = await NestFactory.createApplicationContext(
    {
      module: AppModule,
      imports: [
        TypeOrmModule.forRoot({
          type: 'postgres',
          url,
          autoLoadEntities: true,
          installExtensions: false, // gen_random_uuid() is built in
          migrations: peopleMigrations,
          migrationsRun: true,
          migrationsTransactionMode: 'each',
          poolSize: 10,
          connectTimeoutMS: 2000,
        }),
        PeopleModule.forRoot(options),
      ],
    },
    { logger: ['error'] },
  );
  return {
    people: app.get<PeopleService<Data>>(PeopleService),
    transactions: app.get(TransactionRunner, { strict: false }),
    close: () => app.close(),
  };
}
