import { Controller } from '@nestjs/common';
import { Payload } from '@nestjs/microservices';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { BATCHABLE } from '../../src/messaging/kafka.transport.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { KafkaPeer } from '../support/kafka.js';
import { type MessagesHost, OnEvent, ParsedValue, startMessagesHost } from '../support/messages-host.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

const topic = `moved-${randomUUID()}`;
const OnMoved = OnEvent as (pattern: string, extras: object) => MethodDecorator;
/** For what must not come; what comes, comes at once. */
const A_MOMENT_MS = 500;

let calls: string[] = [];
let open!: () => void;
let move!: () => void;
const opened = new Promise<void>((resolve) => (open = resolve));
const moved = new Promise<void>((resolve) => (move = resolve));
const times = (name: string) => calls.filter((call) => call === name).length;

@Controller()
class MovedController {
  @OnMoved(topic, BATCHABLE)
  @Transactional()
  async apply(@Payload(ParsedValue) { name }: { name: string }) {
    calls.push(name);
    if (name === 'opener') await opened;
    if (name === 'first') await this.failTwice();
    await currentTransaction()!.query({ text: 'INSERT INTO applied (name) VALUES ($1)', values: [name] });
  }

  /** In the batch, and alone, which ends when the message is somebody else's by then. */
  private async failTwice(): Promise<void> {
    const time = times('first');
    if (time === 2) await moved;
    if (time <= 2) throw new Error('of another origin');
    // Whoever has it now gives the one that had it the time to go on.
    const since = times('second');
    const end = Date.now() + A_MOMENT_MS;
    while (times('second') === since && Date.now() < end) await sleep(10);
  }
}

it('what stands behind a message that fails once its partition has moved away is not applied before it', async () => {
  const database: TestDatabase = await createDatabase();
  await database.query('CREATE TABLE applied (seq bigserial, name text NOT NULL)');
  const peer = new KafkaPeer();
  await peer.connect();
  const hosts: MessagesHost[] = [];
  const groupId = `group-${randomUUID()}`;
  const start = async () => {
    const host = await startMessagesHost(database, {
      controllers: [MovedController],
      transport: { groupId },
    });
    hosts.push(host);
    await eventually(() => host.transport.unavailableReason === undefined, 20_000);
  };
  try {
    calls = [];
    await start();
    const send = (...names: string[]) =>
      peer.emitAll(
        topic,
        names.map((name) => ({ key: 'same', value: JSON.stringify({ name }) })),
      );
    await send('opener');
    await eventually(() => times('opener') === 1);
    await send('first', 'second');
    // They are fetched together, and wait for the one before them.
    await sleep(A_MOMENT_MS);
    open();
    await eventually(() => times('first') === 2);
    // Whoever joins makes the group share out anew, and who had a partition has it no more, or again from where it stood.
    await start();
    move();
    const names = async () =>
      (await database.query<{ name: string }>('SELECT name FROM applied ORDER BY seq')).map(
        ({ name }) => name,
      );
    await eventually(async () => (await names()).length === 3, 30_000);
    expect(await names()).toEqual(['opener', 'first', 'second']);
  } finally {
    open();
    move();
    await Promise.all(hosts.map(({ app }) => app.close()));
    await peer.close();
    await database.drop();
  }
});
