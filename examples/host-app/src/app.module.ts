import { Module, ValidationPipe } from '@nestjs/common';
import { APP_FILTER, APP_PIPE } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { PeopleModule, peopleMigrations, ProblemDetailsFilter } from 'nestjs-people';
import { CreateContracts1700000000001 } from '../migrations/1700000000001-CreateContracts.js';
import { ContractsModule } from './contracts/contracts.module.js';
import { VeryComplicatedData } from './very-complicated-data.js';

@Module({
  imports: [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: process.env.DATABASE_URL,
      autoLoadEntities: true,
      migrations: [...peopleMigrations, CreateContracts1700000000001],
      migrationsRun: true,
      // The index of people is built without locking out writers, which can't be done within a transaction of all migrations.
      migrationsTransactionMode: 'each',
      // uuids come from gen_random_uuid(), which PostgreSQL has without any extension.
      uuidExtension: 'pgcrypto',
      installExtensions: false,
    }),
    PeopleModule.forRoot({
      dataType: VeryComplicatedData,
      controllers: { http: true, messages: false },
      // Modules of features inject PeopleService and TransactionRunner, and import nothing for it.
      isGlobal: true,
    }),
    ContractsModule,
  ],
  providers: [
    // Here rather than on the controllers: Nest's and Express' own errors become problems as well.
    { provide: APP_FILTER, useClass: ProblemDetailsFilter },
    {
      provide: APP_PIPE,
      // Custom decorators too, for @LosslessBody().
      useValue: new ValidationPipe({
        whitelist: true,
        forbidNonWhitelisted: true,
        validateCustomDecorators: true,
      }),
    },
  ],
})
export class AppModule {}
