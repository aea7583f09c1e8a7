import { setTimeout as sleep } from 'node:timers/promises';
import { duringTests } from '../support/during-tests.js';
import { startLossyProxy } from '../support/lossy-proxy.js';
import { startPeopleApp } from '../support/people-app.js';
import { judge, prepare, prepareAll, WRITE, WRITE_NAMES } from '../support/people-writes.js';
import { describeWithPgBouncer, startPgBouncer } from '../support/pgbouncer.js';
import { createDatabase, openDatabase } from '../support/test-database.js';

/** An outage ends when all have their answers, or after this long, for those who wait for its end. */
const OUTAGE_MS = 1500;

// Its transaction pooling hands a connection to others between transactions, and PgBouncer 1.18 knows no prepared statements there.
describeWithPgBouncer('through PgBouncer (session pooling)', () => {
  const database = duringTests(() => createDatabase());
  const behind = duringTests(() => startLossyProxy(database.url));
  const bouncer = duringTests(() => startPgBouncer({ server: behind.url }));
  const before = duringTests(() => startLossyProxy(bouncer.url));
  const through = duringTests(() => openDatabase(before.url));
  const app = duringTests(() =>
    startPeopleApp({ DB_POOL_SIZE: '20', DB_ACQUIRE_TIMEOUT_MS: '1000' }, through),
  );

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
