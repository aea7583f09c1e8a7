import { eventually } from '../support/barrier.js';
import { deadIn, messagesOf, PEOPLE, storedOf } from '../support/created-by-messages.js';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';

describe('while the database is changed under the messages', () => {
  const peer = duringTests(() => new KafkaPeer());
  const app = duringTests(() => startKafkaApp(peer, { DB_POOL_SIZE: '6' }));
  beforeAll(async () => {
    await peer.emitAll('people.create', messagesOf('before'));
    await eventually(async () => (await storedOf(app.database, 'before')) === PEOPLE, 30_000);
  });

  it.each([
    [
      'a column gets another type',
      () => app.database.query('ALTER TABLE people ALTER name TYPE varchar(200)'),
    ],
    [
      'the columns of the inbox get other types',
      () =>
        app.database.query(
          'ALTER TABLE message_inbox ALTER consumer TYPE varchar(500), ALTER message_id TYPE varchar(500)',
        ),
    ],
    [
      'the columns of the outbox get other types',
      () =>
        app.database.query(
          'ALTER TABLE message_outbox ALTER type TYPE varchar(200), ALTER topic TYPE varchar(200)',
        ),
    ],
    ['host code discards everything on each connection', discardAll],
  ])('(%s) none is refused, none a dead letter, and all are applied', async (what, cause) => {
    const replies = Promise.all(
      messagesOf(`${what} during`).map(({ key, value }) => peer.ask('people.create', value, { key })),
    );
    await cause();
    await peer.emitAll('people.create', messagesOf(`${what} after`));
    expect((await replies).filter(({ error }) => error)).toEqual([]);
    await eventually(async () => (await storedOf(app.database, `${what} after`)) === PEOPLE, 30_000);
    expect(await storedOf(app.database, `${what} during`)).toBe(PEOPLE);
    await eventually(
      async () => (await app.database.query('SELECT FROM message_outbox')).length === 0,
      30_000,
    );
    expect(await deadIn(app.database)).toEqual([]);
  });

  it('(it takes no writes for a while) they wait, and are applied when it does', async () => {
    const [role] = await app.database.query<{ name: string }>('SELECT current_database() AS name');
    await app.database.query(`ALTER DATABASE "${role!.name}" SET default_transaction_read_only = on`);
    await app.database.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'nestjs-people' AND datname = current_database()`); // prettier-ignore
    await peer.emitAll('people.create', messagesOf('kept'));
    await eventually(async () => (await app.send('POST', '/people', '{"name":"refused"}')).status === 503);
    await app.database.query(`ALTER DATABASE "${role!.name}" RESET default_transaction_read_only`);
    await eventually(async () => (await storedOf(app.database, 'kept')) === PEOPLE, 30_000);
    expect((await app.send('POST', '/people', '{"name":"taken"}')).status).toBe(201);
    expect(await deadIn(app.database)).toEqual([]);
  });

  async function discardAll(): Promise<void> {
    const runners = Array.from({ length: 3 }, () => app.dataSource.createQueryRunner());
    for (const runner of runners) {
      await runner.query('DISCARD ALL');
      await runner.release();
    }
  }
});
