import 'reflect-metadata';
import { randomUUID } from 'node:crypto';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { Inbox, PeopleModule, PeopleService, TransactionRunner } from '../../dist/src/index.js';

/**
 * This library with one of its guarantees, or without.
 *
 * @param shares whether single operations share statements
 * @param events whether each change writes its event
 * @param unit options of a unit of work around each operation
 * @param isOnce whether each operation is claimed by an inbox row, as one with an `Idempotency-Key` is
 */
export async function open({ databaseUrl, poolSize, shares = true, events = false, unit, isOnce = false }) {
  class HostModule {}
  const host = {
    module: HostModule,
    imports: [
      TypeOrmModule.forRoot({ type: 'postgres', url: databaseUrl, poolSize, autoLoadEntities: true }),
      PeopleModule.forRoot({
        controllers: { http: false, messages: false },
        transactions: { sharedStatements: shares },
        events,
      }),
    ],
  };
  const context = await NestFactory.createApplicationContext(host, { logger: false });
  const [people, transactions, inbox] = [PeopleService, TransactionRunner, Inbox].map((each) =>
    context.get(each, { strict: false }),
  );
  const once = async (act) => {
    const identity = { consumer: 'bench', messageId: randomUUID(), digest: 'bench' };
    let result;
    await inbox.once(identity, {}, async () => {
      result = await act();
      return { id: result?.id };
    });
    return result;
  };
  const around = isOnce ? once : unit ? (act) => transactions.run(unit, act) : (act) => act();
  return {
    takesBigint: true,
    get: (id) => around(() => people.get(id)),
    create: (person) => around(() => people.create(person)),
    update: (id, name) => around(() => people.update(id, { name })),
    close: () => context.close(),
  };
}
