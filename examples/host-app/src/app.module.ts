import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { PeopleModule, peopleMigrations } from 'nestjs-people';
import { CreateContracts1700000000001 } from '../migrations/1700000000001-CreateContracts.js';
import { ContractsModule } from './contracts/contracts.module.js';
import { PeopleData } from './people-data.js';

@Module({
  imports: [
    TypeOrmModule.forRootAsync({
      useFactory: () => ({
        type: 'postgres',
        url: process.env.DATABASE_URL,
        autoLoadEntities: true,
        migrations: [...peopleMigrations, CreateContracts1700000000001],
        migrationsRun: true,
        migrationsTransactionMode: 'each',
      }),
    }),
    PeopleModule.forRoot({ dataType: PeopleData, controllers: { messages: false }, isGlobal: true }),
    ContractsModule,
  ],
})
export class AppModule {}
