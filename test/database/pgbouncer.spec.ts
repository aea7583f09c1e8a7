import { setTimeout as sleep } from 'node:timers/promises';
import { type LossyProxy, startLossyProxy } from '../support/lossy-proxy.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';
import { judge, prepare, prepareAll, WRITE, WRITE_NAMES } from '../support/people-writes.js';
import { describeWithPgBouncer, type PgBouncer, startPgBouncer } from '../support/pgbouncer.js';
import { createDatabase, openDatabase, type TestDatabase } from '../support/test-database.js';

/** An outage ends when all have their answers, or after this long, for those who wait for its end. */
const OUTAGE_MS = 1500;

// Its transaction pooling hands a connection to others between transactions, and PgBouncer 1.18 knows no prepared statements there.
describeWithPgBouncer('through PgBouncer (session pooling)', () => {
  let database: TestDatabase;
  let behind: LossyProxy;
  let bouncer: PgBouncer;
  let before: LossyProxy;
  let app: PeopleApp;

  beforeAll(async () => {
    database = await createDatabase();
    behind = await startLossyProxy(database.url);
    bouncer = await startPgBouncer({ server: behind.url });
    before = await startLossyProxy(bouncer.url);
    const environment = { DB_POOL_SIZE: '20', DB_ACQUIRE_TIMEOUT_MS: '1000' };
    app = await startPeopleApp(environment, await openDatabase(before.url));
  });
  afterAll(async () => {
    await app.close();
    await app.database.drop();
    await before.close();
    await bouncer.stop();
    await behind.close();
    await database.drop();
  });

  afterEach(() => Promise.all([before.recover(), behind.recover()]));

  it('every kind of write is done', async () => {
    const writes = await prepareAll(app);
    const responses = await writes.send();
    expect(responses.map(({ ok }) => ok)).not.toContain(false);
    expect(await writes.judge(responses, database)).toEqual([]);
  });

  it.each(WRITE_NAMES)(
    '%s whose server connection is lost once it is made is told as done or as unknown',
    async (name) => {
      const write = await prepare(app, name);
      const held = behind.holdAnswers(WRITE);
      const response = write.send();
      const [answer] = await held;
      answer!.cut();
      expect(await judge(write, await response, database)).toEqual([]);
    },
  );

  it.each(WRITE_NAMES)(
    '%s whose connection to PgBouncer is lost once it is made is told as done or as unknown',
    async (name) => {
      const write = await prepare(app, name);
      const held = before.holdAnswers(WRITE);
      const response = write.send();
      const [answer] = await held;
      answer!.cut();
      expect(await judge(write, await response, database)).toEqual([]);
    },
  );

  it.each(['refuse', 'hang'] as const)(
    'every kind of write at once, made when the server goes away (connections: %s), is told as done or as unknown',
    async (outage) => {
      const writes = await prepareAll(app);
      const held = behind.holdAnswers(WRITE, WRITE_NAMES.length);
      const responses = writes.send();
      await held;
      await behind[outage]();
      await Promise.race([responses, sleep(OUTAGE_MS)]);
      await behind.recover();
      expect(await writes.judge(await responses, database)).toEqual([]);
    },
  );

  it('connections that it lost while nobody used them are replaced, and nobody hears of them', async () => {
    const { id } = await app.people.create({ name: 'there' });
    behind.cut();
    const responses = await Promise.all(Array.from({ length: 20 }, () => app.request(`/people/${id}`)));
    expect(responses.map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 200));
  });
});
