import pg from 'pg';
import { relayStatements } from '../../src/messaging/outbox/statements.js';
import type { OutboxRelay } from '../../src/messaging/outbox-relay.js';
import { eventually } from '../support/barrier.js';
import { type PeopleApp, poolOf, startPeopleApp } from '../support/people-app.js';
import {
  Broker,
  collectLogs,
  idsOfOneShard,
  publish,
  relayOf,
  transactionsOf,
} from '../support/relay-host.js';

let app: PeopleApp;
let relays: OutboxRelay[];
const start = async (environment: Record<string, string> = {}) => {
  app = await startPeopleApp(environment);
  relays = [];
};
const relay = (broker: Broker, of = app) => {
  const one = relayOf(of, broker);
  relays.push(one);
  one.start();
  return one;
};
afterEach(async () => {
  for (const one of relays) await one.stop();
  await app.close();
});

const waiting = async () =>
  (await app.database.query<{ n: number }>('SELECT count(*)::int AS n FROM message_outbox'))[0]!.n;
const held = () => {
  let release!: () => void;
  return { held: new Promise<void>((resolve) => (release = resolve)), release: () => release() };
};

describe('while a broker hangs', () => {
  // @trap the relay holds a connection while the broker hangs
  it('the relay holds no connection and no transaction: on a pool of one HTTP reads, writes and is ready', async () => {
    await start({ DB_POOL_SIZE: '1', DB_ACQUIRE_TIMEOUT_MS: '2000' });
    const broker = new Broker();
    const hanging = held();
    broker.held = hanging.held;
    const { id } = await app.people.create({ name: 'Ada' });
    await publish(app, 'one', ['first']);
    relay(broker);
    await eventually(() => broker.sends === 1);
    await eventually(() => poolOf(app.dataSource).borrowed === 0);
    for (let n = 0; n < 5; n++) {
      expect((await app.request(`/people/${id}`)).status).toBe(200);
      expect((await app.send('POST', '/people', '{"name":"Grace"}')).status).toBe(201);
      expect((await app.request('/health/ready')).status).toBe(200);
    }
    const open = await app.database.query(`SELECT FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'`); // prettier-ignore
    expect(open).toEqual([]);
    hanging.release();
    await eventually(async () => (await waiting()) === 0);
    expect(broker.of('one')).toEqual(['first']);
  });

  // @trap the relay that hangs comes back
  it('another instance takes over, nothing is lost, and each first occurrence is in order', async () => {
    await start();
    const other = await startPeopleApp({}, app.database);
    const [stuck, working] = [new Broker(), new Broker()];
    const hanging = held();
    stuck.held = hanging.held;
    await publish(app, 'one', ['1', '2']);
    relay(stuck);
    await eventually(() => stuck.sends === 1);
    const second = relay(working, other);
    await eventually(() => working.of('one').length === 2, 20_000);
    await publish(other, 'one', ['3']);
    await eventually(() => working.of('one').length === 3, 20_000);
    // What hung arrives after all.
    hanging.release();
    await eventually(() => stuck.of('one').length === 2);
    await eventually(async () => (await waiting()) === 0);
    expect(working.of('one')).toEqual(['1', '2', '3']);
    expect(stuck.of('one')).toEqual(['1', '2']);
    await second.stop();
    await other.close();
  });

  it('stopping does not wait for it', async () => {
    await start();
    const broker = new Broker();
    broker.held = new Promise(() => undefined);
    await publish(app, 'one', ['first']);
    const hung = relay(broker);
    await eventually(() => broker.sends === 1);
    await hung.stop();
    expect(await waiting()).toBe(1);
  });
});

describe('events behind a refused one', () => {
  const BEHIND = 20_000;

  // @trap thousands of events behind a refused one are read again and again
  it('wait for hardly a transaction, unread, and are sent in their order once it is taken', async () => {
    await start({ DB_POOL_SIZE: '2' });
    const broker = new Broker();
    broker.refused.add('one');
    await publish(app, 'one', ['first']);
    relay(broker);
    await eventually(() => broker.sends === 1);
    await publish(
      app,
      'one',
      Array.from({ length: BEHIND }, (_, n) => `${n}`),
    );
    const ready = async () =>
      (await app.database.query('SELECT FROM message_outbox WHERE next_attempt_at IS NULL LIMIT 1')).length;
    await eventually(async () => (await ready()) === 0, 30_000);
    // From one attempt to the next; they are seconds apart, and there is a look each second.
    const attempts = broker.sends;
    const before = await transactionsOf(app);
    await eventually(() => broker.sends > attempts, 20_000);
    const between = (await transactionsOf(app)) - before;
    expect(between).toBeLessThan(30);

    // As autovacuum does it.
    await app.database.query('VACUUM message_outbox');
    const { pending, take } = relayStatements(app.dataSource);
    const holder = '00000000-0000-4000-8000-000000000000';
    for (const { text } of [pending(), take(holder, [])]) {
      const [row] = await app.database.query<{ 'QUERY PLAN': [{ Plan: Record<string, number> }] }>(
        `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ${text.replaceAll('$1', `'${holder}'::uuid`).replaceAll('$2', `'{}'`)}`,
      );
      expect(row!['QUERY PLAN'][0].Plan['Shared Hit Blocks']).toBeLessThan(200);
    }

    broker.refused.clear();
    await eventually(async () => (await waiting()) === 0, 40_000);
    expect(broker.of('one')).toEqual(['first', ...Array.from({ length: BEHIND }, (_, n) => `${n}`)]);
  });

  it('keep back no other aggregate of their shard', async () => {
    await start();
    const broker = new Broker();
    const [refused, beside] = (await idsOfOneShard(app, 2)) as [string, string];
    broker.refused.add(refused);
    await publish(app, refused, ['first', 'second']);
    relay(broker);
    await eventually(() => broker.sends > 0);
    for (let n = 1; n <= 5; n++) {
      await publish(app, refused, [`behind ${n}`]);
      await publish(app, beside, [`${n}`]);
      await eventually(() => broker.of(beside).length === n);
    }
    broker.refused.clear();
    await eventually(async () => (await waiting()) === 0, 20_000);
    expect(broker.of(refused)).toEqual(['first', 'second', ...[1, 2, 3, 4, 5].map((n) => `behind ${n}`)]);
    // One that is tried again has those that were sent with it not sent again.
    expect(broker.of(beside)).toEqual(['1', '2', '3', '4', '5']);
  });

  // @trap a refused event is removed by hand
  it('go on when somebody removes it', async () => {
    await start();
    const broker = new Broker();
    broker.refused.add('one');
    await publish(app, 'one', ['first', 'second', 'third']);
    relay(broker);
    await eventually(
      async () => (await app.database.query(`SELECT FROM message_outbox WHERE next_attempt_at = 'infinity'`)).length === 2, // prettier-ignore
    );
    broker.refused.clear();
    await app.database.query(`DELETE FROM message_outbox WHERE type = 'first'`);
    await eventually(async () => (await waiting()) === 0, 30_000);
    expect(broker.of('one')).toEqual(['second', 'third']);
  });
});

describe('a stranger who holds what the relay needs', () => {
  let stranger: pg.Client;
  let collected: ReturnType<typeof collectLogs>;
  beforeEach(async () => {
    await start({ DB_POOL_SIZE: '1', DB_ACQUIRE_TIMEOUT_MS: '2000' });
    stranger = new pg.Client({ connectionString: app.database.url, application_name: 'a stranger' });
    await stranger.connect();
    await stranger.query('BEGIN');
    collected = collectLogs();
  });
  afterEach(async () => {
    collected.giveBack();
    await stranger.end();
  });
  const told = () => collected.logs.filter((entry) => entry.includes('a stranger'));

  // @trap somebody else locks the outbox
  it.each([
    ['the outbox', 'LOCK TABLE message_outbox'],
    ['the outbox against changes', 'LOCK TABLE message_outbox IN SHARE MODE'],
    ['the leases', 'LOCK TABLE message_outbox_lease'],
    ['the rows', 'SELECT FROM message_outbox FOR UPDATE'],
    ['the rows of the leases', 'SELECT FROM message_outbox_lease FOR UPDATE'],
  ])('%s: is named once, HTTP goes on, and what was sent is not sent again', async (_, lock) => {
    const broker = new Broker();
    const { id } = await app.people.create({ name: 'Ada' });
    await publish(app, 'one', ['first', 'second']);
    await stranger.query(lock);
    relay(broker);
    await eventually(() => told().length > 0, 20_000);
    const [entry] = told();
    expect(entry).toContain(`"pid":${(stranger as unknown as { processID: number }).processID}`);
    expect(entry).toContain('idle in transaction');
    for (let n = 0; n < 20; n++) expect((await app.request(`/people/${id}`)).status).toBe(200);
    await stranger.query('ROLLBACK');
    await eventually(async () => (await waiting()) === 0, 20_000);
    await eventually(() => collected.logs.some((one) => one.startsWith('nobody locks')));
    expect(told()).toHaveLength(1);
    expect(broker.of('one')).toEqual(['first', 'second']);
  });
});
