import { Controller } from '@nestjs/common';
import { Payload } from '@nestjs/microservices';
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { MessagingModule } from '../../src/messaging/messaging.module.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { KafkaPeer } from '../support/kafka.js';
import {
  count,
  counters,
  createCountersDatabase,
  ParsedValue,
  startMessagesHost,
  OnEvent,
} from '../support/messages-host.js';

const run = randomUUID();
const COUNT = `count-${run}`;

@Controller()
class CountersController {
  @OnEvent(COUNT)
  @Transactional()
  async count(@Payload(ParsedValue) { name }: { name: string }) {
    await count(name);
  }
}

// @trap stopping takes longer than its deadline, in a host
it('a message that does not end before the deadline of stopping is rolled back, not committed, and handled by the next instance', async () => {
  const peer = new KafkaPeer();
  await peer.connect();
  const database = await createCountersDatabase();
  await database.query(`INSERT INTO counters VALUES ('stuck', 0)`);
  const holder = new pg.Client(database.url);
  await holder.connect();
  await holder.query('BEGIN');
  await holder.query('SELECT FROM counters FOR UPDATE');

  const groupId = `group-${run}`;
  const start = () =>
    startMessagesHost(database, {
      controllers: [CountersController],
      // A unit of work that is not cut would wait for the lock for longer than the test.
      imports: [MessagingModule.forRoot({ drainTimeoutMs: 100, timeoutMs: 600_000 })],
      transport: { groupId, drainTimeoutMs: 100 },
    });
  const committed = async () =>
    Number((await peer.admin.fetchOffsets({ groupId, topics: [COUNT] }))[0]!.partitions[0]!.offset);
  const first = await start();
  await eventually(() => first.transport.unavailableReason === undefined);
  await peer.emit(COUNT, { key: 'before', value: '{"name":"before"}' });
  await eventually(async () => (await committed()) === 1);
  await peer.emit(COUNT, { key: 'a', value: '{"name":"stuck"}' });
  await peer.emit(COUNT, { key: 'b', value: '{"name":"beside"}' });
  await eventually(async () => (await counters(database)).beside === 1);
  await eventually(
    async () => (await database.query(`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)).length === 1, // prettier-ignore
  );
  await first.app.close();
  expect(first.store.transactions.unfinished).toBe(1);
  await holder.query('ROLLBACK');
  await holder.end();
  // The one beside it is done, and above it.
  expect(await committed()).toBe(1);
  expect(await counters(database)).toEqual({ before: 1, stuck: 0, beside: 1 });

  const next = await start();
  await eventually(async () => (await committed()) === 3);
  expect(await counters(database)).toEqual({ before: 1, stuck: 1, beside: 1 });
  await next.app.close();
  await peer.close();
  await database.drop();
});
