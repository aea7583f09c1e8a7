import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { PeopleModule, PeopleService } from '../../dist/src/index.js';

/** This library, as a host application calls it by dependency injection. */
export async function open({ databaseUrl, poolSize }) {
  class HostModule {}
  const host = {
    module: HostModule,
    imports: [
      TypeOrmModule.forRoot({ type: 'postgres', url: databaseUrl, poolSize, autoLoadEntities: true }),
      PeopleModule.forRoot({ controllers: { http: false, messages: false } }),
    ],
  };
  const context = await NestFactory.createApplicationContext(host, { logger: false });
  const people = context.get(PeopleService);
  return {
    takesBigint: true,
    get: (id) => people.get(id),
    create: (person) => people.create(person),
    update: (id, name) => people.update(id, { name }),
    remove: (id) => people.remove(id),
    close: () => context.close(),
  };
}
