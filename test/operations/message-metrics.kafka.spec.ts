import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import pg from 'pg';
import { DeadLetters } from '../../src/messaging/dead-letters.js';
import { Outbox } from '../../src/messaging/outbox.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { startPeopleApp } from '../support/people-app.js';
import { startTcpProxyTo } from '../support/tcp-proxy.js';
import { createDatabase } from '../support/test-database.js';
import { type Family, parseExposition, valueOf } from './exposition.js';

const scrape = async (app: { request: (path: string) => Promise<Response> }): Promise<Map<string, Family>> =>
  parseExposition(await (await app.request('/metrics')).text());

describe('with a broker', () => {
  const peer = duringTests(() => new KafkaPeer());
  const database = duringTests(() => createDatabase());
  const proxy = duringTests(() => startTcpProxyTo(database.url));
  const app = duringTests(() => {
    const environment = { KAFKA_QUARANTINE_KEYS: 'on', KAFKA_TOPIC_PARTITIONS: '1' };
    return startKafkaApp(peer, { ...environment, DATABASE_URL: proxy.through(database.url) }, database);
  });
  const read = async (name: string, labels: Record<string, string> = {}) =>
    valueOf(await scrape(app), name, labels);
  const created = { topic: 'people.create' };
  const until = (name: string, labels: Record<string, string>, value: number | undefined) =>
    eventually(async () => (await read(name, labels)) === value);

  /** Locks the table of people until the returned function is called. */
  async function lockPeople(): Promise<() => Promise<void>> {
    const outsider = new pg.Client(app.database.url);
    await outsider.connect();
    await outsider.query('BEGIN; LOCK TABLE people IN ACCESS EXCLUSIVE MODE');
    return async () => {
      await outsider.query('COMMIT');
      await outsider.end();
    };
  }

  it('tells what is connected, and whose partitions are whose', async () => {
    const families = await scrape(app);
    expect(valueOf(families, 'people_kafka_connected')).toBe(1);
    expect(valueOf(families, 'people_kafka_assigned_partitions', created)).toBe(1);
    expect(valueOf(families, 'people_metrics_source_up', { source: 'database' })).toBe(1);
    expect(valueOf(families, 'people_metrics_source_up', { source: 'kafka' })).toBe(1);
    await until('people_instances_alive', {}, 1);
  });

  it('counts what becomes of messages: applied, repeated, rejected, dead and parked', async () => {
    const headers = { 'message-id': randomUUID() };
    await peer.ask('people.create', '{"name":"Ada"}', { headers });
    await peer.ask('people.create', '{"name":"Ada"}', { headers });
    await peer.ask('people.create', '{"name":1}');
    await peer.emit('people.create', { key: 'bad', value: '{"name":2}' });
    await peer.emit('people.create', { key: 'bad', value: '{"name":"behind it"}' });
    await until('people_messages_total', { ...created, outcome: 'parked' }, 1);
    const families = await scrape(app);
    const counted = (outcome: string, code: string) =>
      valueOf(families, 'people_messages_total', { ...created, outcome, code });
    expect([counted('applied', ''), counted('repeated', '')]).toEqual([1, 1]);
    expect([counted('rejected', 'INVALID_INPUT'), counted('dead', 'INVALID_INPUT')]).toEqual([1, 1]);
    expect(valueOf(families, 'people_messages_fetched_total', created)).toBe(5);
    expect(valueOf(families, 'people_message_duration_seconds_count', created)).toBe(4);
    expect(valueOf(families, 'people_message_age_seconds_count', created)).toBe(1);
    await until('people_dead_letters', { ...created, code: 'INVALID_INPUT', state: 'dead' }, 1);
    await until('people_dead_letters', { ...created, state: 'parked' }, 1);
    await until('people_quarantined_keys', { state: 'held' }, 1);
    await until('people_outbox_relayed_total', { topic: 'people.create-dlt' }, 1);
    await app.app.get(DeadLetters, { strict: false }).discard({});
    await until('people_dead_letters', {}, undefined);
    await until('people_quarantined_keys', { state: 'held' }, 0);
  });

  it('shows a lag, and messages in flight and in memory, while the database is locked; then they are gone', async () => {
    const unlock = await lockPeople();
    try {
      const value = '{"name":"behind the lock"}';
      await peer.emitAll(
        'people.create',
        [1, 2, 3].map(() => ({ key: 'one', value })),
      );
      await until('people_kafka_lag_messages', created, 3);
      const families = await scrape(app);
      const held =
        valueOf(families, 'people_messages_in_flight', created)! +
        valueOf(families, 'people_messages_buffered', created)!;
      expect(held).toBe(3);
      expect(valueOf(families, 'people_messages_in_flight', created)).toBeGreaterThan(0);
      expect(valueOf(families, 'people_messages_buffered_bytes')).toBeGreaterThan(3 * value.length);
    } finally {
      await unlock();
    }
    await until('people_kafka_lag_messages', created, 0);
    await until('people_messages_in_flight', created, undefined);
    await until('people_messages_buffered_bytes', {}, 0);
  });

  it('counts each of the messages that are handled together, one that comes again apart', async () => {
    const counted = async (outcome: string) =>
      (await read('people_messages_total', { ...created, outcome })) ?? 0;
    const before = [await counted('applied'), await counted('repeated')] as const;
    const message = (id: string) => ({ value: '{"name":"together"}', headers: { 'message-id': id } });
    const ids = Array.from({ length: 5 }, () => randomUUID());
    await peer.emitAll('people.create', [...ids, ids[0]!].map(message));
    await eventually(async () => (await counted('repeated')) === before[1] + 1);
    expect(await counted('applied')).toBe(before[0] + 5);
  });

  it('counts an attempt that failed for a reason that passes, and the message once it is applied', async () => {
    const applied = { ...created, outcome: 'applied' };
    const before = (await read('people_messages_total', applied)) ?? 0;
    await app.database.query(`
      CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'full' USING ERRCODE = '53100'; END $$;
      CREATE TRIGGER full_disk BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION full_disk()`);
    await peer.emit('people.create', { value: '{"name":"no room"}' });
    const retried = { ...created, outcome: 'retried' };
    await eventually(async () => ((await read('people_messages_total', retried)) ?? 0) > 0);
    // Nest's filters have made something else of it by then.
    expect(await read('people_transaction_failures_total', { code: '53100' })).toBeGreaterThan(0);
    await app.database.query('DROP TRIGGER full_disk ON people');
    await until('people_messages_total', applied, before + 1);
  });

  it('counts events that the brokers refuse, and shows that they wait', async () => {
    const topic = 'no topic has this name';
    const event = { aggregateType: 'thing', aggregateId: '1', type: 'thing.made', topic };
    await app.transactions.run({}, async () => app.app.get(Outbox, { strict: false }).publish(event));
    await eventually(async () =>
      Boolean(await read('people_outbox_refused_total', { topic, reason: 'no-topic' })),
    );
    await until('people_outbox_delayed_events', {}, 1);
    await app.database.query('DELETE FROM message_outbox');
    await until('people_outbox_delayed_events', {}, 0);
  });

  it('shows that nothing is fetched while the database is away, and what waits at the broker; then it goes on', async () => {
    await proxy.refuse();
    const suspended = { ...created, reason: 'suspended' };
    try {
      await peer.emit('people.create', { value: '{"name":"waits"}' });
      await until('people_kafka_paused_partitions', suspended, 1);
      await until('people_metrics_source_up', { source: 'database' }, 0);
      await peer.emit('people.create', { value: '{"name":"waits as well"}' });
      await until('people_kafka_lag_messages', created, 2);
      expect(await read('people_outbox_events')).toBeUndefined();
    } finally {
      await proxy.accept();
    }
    await until('people_kafka_lag_messages', created, 0);
    await until('people_kafka_paused_partitions', suspended, undefined);
    await until('people_metrics_source_up', { source: 'database' }, 1);
  });

  it('has the metrics, types and labels of docs/operations/metrics.md, and no other', async () => {
    const page = readFileSync('docs/operations/metrics.md', 'utf8');
    const documented = [...page.matchAll(/^\| `(\w+)` \| (\w+) \| (.*?) ?\| .+ \|$/gm)].map(
      ([, name, type, labels]) => ({
        ...{ name: name!, type: type! },
        labels: [...labels!.matchAll(/`(\w+)`/g)].map(([, label]) => label!).sort(),
      }),
    );
    const own = [...(await scrape(app)).values()].filter(({ name }) => !/^(nodejs|process)_/.test(name));
    const shown = (all: { name: string; type: string }[]) =>
      all.map(({ name, type }) => `${name} ${type}`).sort();
    expect(shown(documented)).toEqual(shown(own));
    for (const { name, samples } of own) {
      const labels = documented.find((each) => each.name === name)!.labels;
      for (const sample of samples) {
        const { le: _, ...its } = sample.labels;
        expect([name, Object.keys(its).sort()]).toEqual([name, labels]);
      }
    }
  });
});

describe('without a broker', () => {
  const app = duringTests(() => startPeopleApp({ KAFKA_BROKERS: '127.0.0.1:1' }));

  it('metrics tell that none is connected, how many events wait for it, and since when', async () => {
    for (const name of ['one', 'two', 'three']) await app.people.create({ name });
    await eventually(async () => valueOf(await scrape(app), 'people_outbox_events') === 3);
    const families = await scrape(app);
    expect(valueOf(families, 'people_outbox_oldest_age_seconds')).toBeGreaterThan(0);
    expect(valueOf(families, 'people_kafka_connected')).toBe(0);
    expect(valueOf(families, 'people_metrics_source_up', { source: 'kafka' })).toBe(0);
    expect(valueOf(families, 'people_metrics_source_up', { source: 'database' })).toBe(1);
    expect(valueOf(families, 'people_kafka_lag_messages')).toBeUndefined();
  });
});
