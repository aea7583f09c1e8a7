import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { eventually } from '../support/barrier.js';
import { onServer } from '../support/test-database.js';

const peer = duringTests(() => new KafkaPeer());
const app = duringTests(() => startKafkaApp(peer, { DB_POOL_SIZE: '2', KAFKA_CONCURRENCY: '8' }));

// @trap HTTP and messages on one pool
it('HTTP and Kafka under load together never open more than DB_POOL_SIZE backends, and nothing is lost', async () => {
  const PEOPLE = 200;
  let most = 0;
  let loading = true;
  const watching = (async () => {
    while (loading) {
      const rows = await app.database.query(`SELECT FROM pg_stat_activity WHERE application_name = 'nestjs-people' AND datname = current_database()`); // prettier-ignore
      most = Math.max(most, rows.length);
    }
  })();
  const overHttp = async (n: number): Promise<number> => {
    const response = await app.send('POST', '/people', `{"name":"http ${n}"}`);
    // The only failure there may be; nothing was stored, so it is sent again.
    if (response.status === 503) return overHttp(n);
    return response.status;
  };
  const [statuses, replies] = await Promise.all([
    Promise.all(Array.from({ length: PEOPLE }, (_, n) => overHttp(n))),
    Promise.all(
      Array.from({ length: PEOPLE }, (_, n) =>
        peer.ask('people.create', `{"name":"kafka ${n}"}`, { key: String(n) }),
      ),
    ),
  ]);
  loading = false;
  await watching;
  expect(new Set(statuses)).toEqual(new Set([201]));
  expect(replies.filter(({ error }) => error)).toEqual([]);
  expect(most).toBe(2);
  const [stored] = await app.database.query(
    `SELECT count(*)::int AS people, count(DISTINCT name)::int AS names FROM people WHERE name ~ '^(http|kafka) '`,
  );
  expect(stored).toEqual({ people: 2 * PEOPLE, names: 2 * PEOPLE });
});

describe('while the database refuses connections', () => {
  /** Told to the server from another database: a database can't close itself. */
  const setConnections = (allowed: boolean) => {
    const name = new URL(app.database.url).pathname.slice(1);
    return onServer(async (query) => {
      await query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS ${allowed}`);
      const ours = `datname = '${name}' AND application_name = 'nestjs-people'`;
      if (!allowed) await query(`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE ${ours}`);
    });
  };

  it('a message that asks for no reply is kept and applied afterwards, without a dead letter', async () => {
    const dead: unknown[] = [];
    const deadLetters = await peer.consume(['people.create-dlt'], (message) => dead.push(message));
    await setConnections(false);
    await peer.emit('people.create', { value: '{"name":"kept"}', key: 'kept' });
    // Some operation of the service has met the refusal, so the message can't have slipped in before it.
    await eventually(async () => (await app.request('/people?name=kept')).status === 503);
    await setConnections(true);
    const people = await eventually(async () => {
      const { items } = await app.people.findByName('kept').catch(() => ({ items: [] }));
      return items.length > 0 && items;
    });
    expect(people).toHaveLength(1);
    expect(dead).toEqual([]);
    await deadLetters.stop();
  });

  it('a message that asks for a reply is told that it may be sent again', async () => {
    await setConnections(false);
    const reply = await peer.ask('people.create', '{"name":"told"}');
    await setConnections(true);
    expect(reply.error).toEqual({
      code: 'DATABASE_UNAVAILABLE',
      message: 'The database cannot be reached; nothing was changed, try again.',
      retryable: true,
    });
  });
});

it('missing topics and their dead letter topics were created, with the partitions asked for', async () => {
  const { topics } = await peer.admin.fetchTopicMetadata({
    topics: ['people.create', 'people.delete', 'people.update-dlt'],
  });
  expect(topics.map(({ partitions }) => partitions.length)).toEqual([4, 4, 4]);
});

// @trap headers that look like JSON, a reply topic that can’t be
it('a reply topic that does not exist does not stop the partition', async () => {
  const headers = { kafka_correlationId: '{"a":1}', kafka_replyTopic: 'not-there' };
  await peer.emit('people.create', { key: 'same', value: '{"name":"nobody listens"}', headers });
  const reply = await peer.ask('people.create', '{"name":"next"}', { key: 'same' });
  expect(reply.error).toBeUndefined();
  expect((await app.people.findByName('nobody listens')).items).toHaveLength(1);
});

it('a client that has taken its reply topic away gets it back from nobody, and others are answered', async () => {
  const replyTopics = async () =>
    (await peer.admin.listTopics()).filter((topic) => topic.startsWith('replies-'));
  const before = await replyTopics();
  for (const name of ['comes', 'comes too']) {
    const other = new KafkaPeer();
    await other.connect();
    expect((await other.ask('people.create', `{"name":"${name}"}`)).error).toBeUndefined();
    await other.close();
  }
  expect((await peer.ask('people.create', '{"name":"stays"}')).error).toBeUndefined();
  expect(await replyTopics()).toEqual(before);
});
