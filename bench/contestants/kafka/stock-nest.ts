import 'reflect-metadata';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { EventPattern, Payload, Transport } from '@nestjs/microservices';
import { InjectRepository, TypeOrmModule } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { Person } from '../stock-person.js';

// What one writes first for Kafka with Nest: Transport.KAFKA, an @EventPattern, a repository's save (a transaction of its own).

@Controller()
class PeopleController {
  constructor(@InjectRepository(Person) private readonly people: Repository<Person>) {}

  @EventPattern('people.create')
  async create(@Payload() { name, data }: { name: string; data?: object | null }): Promise<void> {
    await this.people.save(this.people.create({ name, data: data ?? null }));
  }
}

@Module({
  imports: [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: process.env.DATABASE_URL!,
      poolSize: Number(process.env.DB_POOL_SIZE ?? 10),
      entities: [Person],
    }),
    TypeOrmModule.forFeature([Person]),
  ],
  controllers: [PeopleController],
})
class StockModule {}

// kafkajs works on one partition at a time unless it is told otherwise.
const partitions = Number(process.env.PARTITIONS_AT_ONCE ?? 1);
const app = await NestFactory.createMicroservice(StockModule, {
  logger: ['error', 'warn'],
  transport: Transport.KAFKA,
  options: {
    client: { brokers: process.env.KAFKA_BROKERS!.split(','), logLevel: 1 },
    consumer: { groupId: process.env.KAFKA_GROUP_ID! },
    subscribe: { fromBeginning: true },
    run: partitions > 1 ? { partitionsConsumedConcurrently: partitions } : {},
  },
});
await app.listen();
