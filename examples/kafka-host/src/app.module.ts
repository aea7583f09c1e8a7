import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import {
  KafkaTransport,
  MessageOperationsModule,
  MessageStore,
  PeopleModule,
  peopleMigrations,
} from 'nestjs-people';
import { CreateOrders1700000000010 } from '../migrations/1700000000010-CreateOrders.js';
import { OrdersModule } from './orders/orders.module.js';

@Module({
  imports: [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: process.env.DATABASE_URL,
      autoLoadEntities: true,
      poolSize: 8,
      connectTimeoutMS: 5000,
      migrations: [...peopleMigrations, CreateOrders1700000000010],
      migrationsRun: true,
      migrationsTransactionMode: 'each',
      installExtensions: false,
    }),
    // People for injection alone: this application has doors of its own.
    PeopleModule.forRoot({ controllers: { http: false, messages: false }, isGlobal: true }),
    // GET and POST /messages/dead-letters. An application of yours has a guard that knows who asks; here they say so themselves.
    MessageOperationsModule.forRoot({
      operatorOf: (request: { headers: Record<string, string | undefined> }) => request.headers['x-operator'],
    }),
    OrdersModule,
  ],
  providers: [
    {
      // Provided rather than made in main.ts, so that it is stopped before HTTP is.
      provide: KafkaTransport,
      inject: [MessageStore],
      useFactory: (store: MessageStore) =>
        new KafkaTransport({
          client: { brokers: process.env.KAFKA_BROKERS!.split(','), clientId: 'orders' },
          groupId: 'orders',
          concurrency: 5, // below the size of the pool: the rest is HTTP's, and one is the relay's
          topics: { partitions: 4, replication: undefined },
          eventTopics: ['orders.events'],
          store, // the inbox, the outbox and dead letters
        }),
    },
  ],
})
export class AppModule {}
