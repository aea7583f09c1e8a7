import 'reflect-metadata';
import { Controller } from '@nestjs/common';
import { Payload } from '@nestjs/microservices';
import { BATCHABLE } from '../../src/messaging/kafka.transport.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { count, OnEvent, ParsedValue, startMessagesHost } from '../support/messages-host.js';
import type { TestDatabase } from '../support/test-database.js';

/** A process of its own that some messages kill; says on its standard output what it begins. */
const { DATABASE_URL, GROUP_ID, TOPIC = '', HELD } = process.env;

@Controller()
class MortalController {
  @((OnEvent as (pattern: string, extras: object) => MethodDecorator)(TOPIC, BATCHABLE))
  @Transactional()
  async apply(@Payload(ParsedValue) { name }: { name: string }) {
    process.stdout.write(`begun ${name}\n`);
    if (name === 'killer') process.abort();
    if (name === HELD) await new Promise(() => undefined);
    await count(name);
  }
}

const { app } = await startMessagesHost({ url: DATABASE_URL } as TestDatabase, {
  controllers: [MortalController],
  transport: { groupId: GROUP_ID!, sessionTimeoutMs: 6000 },
});
process.once('SIGTERM', () => void app.close());
