import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { fatalError, type HeldAnswer, startLossyProxy } from '../support/lossy-proxy.js';
import { startPeopleApp } from '../support/people-app.js';
import { judge, prepare, prepareAll, WRITE, WRITE_NAMES } from '../support/people-writes.js';
import { createDatabase, openDatabase } from '../support/test-database.js';

const database = duringTests(() => createDatabase());
const proxy = duringTests(() => startLossyProxy(database.url));
const behind = duringTests(() => openDatabase(proxy.url));
const settings = { DB_POOL_SIZE: '20', DB_ACQUIRE_TIMEOUT_MS: '1000' };
const app = duringTests(() => startPeopleApp(settings, behind));
/** Each write by itself, so that they can be counted. */
const apart = duringTests(() => startPeopleApp({ ...settings, DB_SHARED_STATEMENTS: 'off' }, behind));

afterEach(() => proxy.recover());

/** An outage ends when all have their answers, or after this long, for those who wait for its end. */
const OUTAGE_MS = 1500;

const duringOutage = async (answers: Promise<unknown>) => {
  await Promise.race([answers, sleep(OUTAGE_MS)]);
  await proxy.recover();
};

describe.each(WRITE_NAMES)('%s whose change is made and whose answer is lost', (name) => {
  const losses: Record<string, (answer: HeldAnswer, answers: Promise<unknown>) => unknown> = {
    'with its connection': (answer) => answer.cut(),
    'with its connection, behind which the server is away for a while': async (_, answers) => {
      await proxy.refuse();
      await duringOutage(answers);
    },
  };
  const words: [code: string, text: string][] = [
    // PgBouncer, for whatever becomes of its connection to the server.
    ['08P01', 'server conn crashed?'],
    ['08P01', 'query timeout'],
    // Odyssey and pgcat.
    ['08006', 'odyssey: remote server read/write error'],
    ['58000', 'error reading from server'],
    ['XX000', 'server closed the connection'],
    // The server itself, told to stop.
    ['57P01', 'terminating connection due to administrator command'],
    ['57P05', 'terminating connection due to idle-session timeout'],
  ];
  for (const [code, text] of words)
    losses[`while a pooler says FATAL ${code} "${text}"`] = (answer) => answer.tell(fatalError(code, text));

  it.each(Object.keys(losses))('%s is told as done or as unknown, and is done once', async (loss) => {
    const write = await prepare(app, name);
    const held = proxy.holdAnswers(WRITE);
    const response = write.send();
    const [answer] = await held;
    await losses[loss]!(answer!, response);
    expect(await judge(write, await response, database)).toEqual([]);
  });
});

describe('every kind of write at once, each made and none answered', () => {
  it.each(['refuse', 'hang'] as const)(
    'when the server goes away (connections: %s), is told as done or as unknown',
    async (outage) => {
      const writes = await prepareAll(apart);
      const held = proxy.holdAnswers(WRITE, WRITE_NAMES.length);
      const responses = writes.send();
      await held;
      await proxy[outage]();
      await duringOutage(responses);
      expect(await writes.judge(await responses, database)).toEqual([]);
    },
  );
});

describe('every kind of write at once, each waiting for a lock when its connection is lost', () => {
  it.each(['cut', 'refuse', 'hang'] as const)(
    'and made by the server later (connections: %s), is never told as not made',
    async (loss) => {
      const writes = await prepareAll(apart);
      const locker = new pg.Client(database.url);
      await locker.connect();
      await locker.query('BEGIN');
      // Who only reads is not kept waiting.
      await locker.query('LOCK TABLE people IN SHARE ROW EXCLUSIVE MODE');
      const responses = writes.send();
      await eventually(async () => (await waiting()) >= WRITE_NAMES.length);
      await proxy[loss]();
      await duringOutage(responses);
      await locker.query('ROLLBACK');
      await locker.end();
      const answers = await responses;
      await eventually(async () => (await waiting()) === 0);
      expect(await writes.judge(answers, database)).toEqual([]);
    },
  );

  async function waiting(): Promise<number> {
    const [row] = await database.query<{ n: number }>(
      `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database()
       AND pid <> pg_backend_pid() AND state = 'active' AND query ILIKE '%people%'`,
    );
    return row!.n;
  }
});
