import { type INestApplicationContext, Logger } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { MessagingModule, type MessagingModuleOptions } from '../../src/messaging/messaging.module.js';
import { PeopleModule } from '../../src/people/people.module.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { messagesModule } from '../support/messages-host.js';
import { startPeopleApp } from '../support/people-app.js';
import { createDatabase, openDatabase } from '../support/test-database.js';

const OFTEN = { pruneEveryMs: 20 };
const HOUR = 60 * 60 * 1000;

const database = duringTests(() => createDatabase());
const hosts: INestApplicationContext[] = [];
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.close();
  await database.query('TRUNCATE message_inbox, message_dead_letter');
});

/** An application without Kafka. */
async function start(
  options: MessagingModuleOptions = OFTEN,
  imports = [MessagingModule.forRoot(options)],
): Promise<INestApplicationContext> {
  const module = messagesModule(database, [], imports);
  const host = await NestFactory.createApplicationContext(module, { logger: false, abortOnError: false });
  hosts.push(host);
  return host;
}

/** What was handled so long ago; without a topic it is no Kafka message. */
const handled = (id: string, ago: string, topic: string | null = null, consumer = 'http POST /people') =>
  database.query(
    `INSERT INTO message_inbox (consumer, message_id, digest, topic, partition, "offset", handled_at)
     VALUES ($1, $2, '', $3, 0, 1, now() - $4::interval)`,
    [consumer, id, topic, ago],
  );
const deadLetter = (id: string, state: string, settledAgo: string | null) =>
  database.query(
    `INSERT INTO message_dead_letter (consumer, message_id, topic, partition, "offset", "timestamp", headers, code, message, attempts, state, settled_at)
     VALUES ('group', $1, 'topic', 0, 1, '1', '[]', 'CODE', '', 1, $2, now() - $3::interval)`,
    [id, state, settledAgo],
  );
const left = async (where = database) => {
  const text = 'SELECT message_id FROM message_inbox UNION ALL SELECT message_id FROM message_dead_letter ORDER BY 1'; // prettier-ignore
  return (await where.query<{ message_id: string }>(text)).map(({ message_id }) => message_id);
};

it('without Kafka what is old and no Kafka message is forgotten, whatever its consumer; Kafka messages and what is new are not', async () => {
  await handled('old', '8 days');
  await handled('old of somebody who is gone', '1 year', null, 'http POST /elsewhere');
  await handled('new', '6 days');
  await handled('old message, perhaps not committed', '1 year', 'topic', 'group');
  await deadLetter('replayed long ago', 'replayed', '8 days');
  await deadLetter('discarded now', 'discarded', '1 day');
  await deadLetter('waits', 'dead', null);
  await start();
  const kept = ['discarded now', 'new', 'old message, perhaps not committed', 'waits'];
  await eventually(async () => (await left()).length === kept.length);
  expect(await left()).toEqual(kept);
});

it.each([
  ['MessagingModule', () => MessagingModule.forRoot({ ...OFTEN, inboxRetentionMs: HOUR })],
  ['PeopleModule', () => PeopleModule.forRoot({ ...OFTEN, inboxRetentionMs: HOUR })],
  [
    'PeopleModule, by a factory',
    () => PeopleModule.forRootAsync({ useFactory: () => ({ ...OFTEN, inboxRetentionMs: HOUR }) }),
  ],
])('inboxRetentionMs of %s says how long it is remembered', async (_, module) => {
  await handled('old', '2 hours');
  await handled('new', '30 minutes');
  await start({}, [module()]);
  await eventually(async () => (await left()).length === 1);
  expect(await left()).toEqual(['new']);
});

it('INBOX_RETENTION_MS says it to the service, with KAFKA=off too', async () => {
  const own = await createDatabase();
  for (const ago of ['2 hours', '30 minutes'])
    await own.query(
      `INSERT INTO message_inbox (consumer, message_id, digest, handled_at) VALUES ('http POST /people', '${ago}', '', now() - interval '${ago}')`,
    );
  const app = await startPeopleApp({ INBOX_RETENTION_MS: String(HOUR) }, own);
  try {
    await eventually(async () => (await left(own)).length === 1, 20_000);
    expect(await left(own)).toEqual(['30 minutes']);
  } finally {
    await app.close();
    await own.drop();
  }
});

it('a time that is none is refused when the application is made', async () => {
  await expect(start({ inboxRetentionMs: NaN })).rejects.toThrow('inboxRetentionMs: NaN');
});

it('what could not be removed is told and removed later', async () => {
  const warnings: unknown[] = [];
  await database.query('ALTER TABLE message_inbox RENAME TO message_inbox_away');
  await start();
  Logger.overrideLogger({ log: () => undefined, error: () => undefined, warn: (line: unknown) => warnings.push(line) }); // prettier-ignore
  await eventually(() => warnings.length > 1);
  Logger.overrideLogger(false);
  await database.query('ALTER TABLE message_inbox_away RENAME TO message_inbox');
  await handled('old', '8 days');
  await eventually(async () => (await left()).length === 0);
  expect(warnings[0]).toMatchObject({ msg: 'what is old could not be removed; it is tried again' });
});

it('instances do not wait for each other, nor for whoever holds a row', async () => {
  for (const id of ['a', 'held', 'z']) await handled(id, '8 days');
  const holder = await openDatabase(database.url);
  await holder.query('BEGIN');
  await holder.query(`SELECT FROM message_inbox WHERE message_id = 'held' FOR UPDATE`);
  await Promise.all([start(), start()]);
  await eventually(async () => (await left()).length === 1);
  expect(await left()).toEqual(['held']);
  await holder.query('ROLLBACK');
  await holder.drop();
  await eventually(async () => (await left()).length === 0);
});

it('more than one statement removes is removed by several', async () => {
  await database.query(
    `INSERT INTO message_inbox (consumer, message_id, digest, handled_at)
     SELECT 'http POST /people', n::text, '', now() - interval '8 days' FROM generate_series(1, 20500) n`,
  );
  await start();
  await eventually(async () => (await left()).length === 0);
});

it('ends when the application stops', async () => {
  const host = await start();
  await handled('old', '8 days');
  await eventually(async () => (await left()).length === 0);
  await host.close();
  await handled('later', '8 days');
  await start({ pruneEveryMs: HOUR });
  expect(await left()).toEqual(['later']);
});
