import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { brokers, KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { startKafkaWire } from '../support/kafka-wire.js';

const brokerPort = () => Number(brokers()[0]!.split(':')[1]);

// From four on the relay LISTENs on one of the connections.
describe.each([1, 2, 3, 4])('on a pool of %i', (poolSize) => {
  const PEOPLE = 40;
  let isHanging = false;
  const events = new Set<string>();

  const wire = duringTests(() => startKafkaWire(brokerPort(), () => (isHanging ? 'hold' : 'pass')));
  const peer = duringTests(() => new KafkaPeer());
  const app = duringTests(() =>
    startKafkaApp(peer, {
      DB_POOL_SIZE: String(poolSize),
      KAFKA_BROKERS: `127.0.0.1:${wire.port}`,
    }),
  );
  beforeAll(async () => {
    await peer.consume(['people.events'], ({ key, headers }) =>
      events.add(`${String(headers?.ce_type)} ${String(key)}`),
    );
  });

  const waiting = async () => (await app.database.query('SELECT FROM message_outbox')).length;
  const overHttp = async (n: number) => {
    const created = await app.send('POST', '/people', `{"name":"over HTTP ${n}"}`);
    const { id } = (await created.json()) as { id: string };
    const found = await app.request(`/people/${id}`);
    const ready = await app.request('/health/ready');
    return { statuses: [created.status, found.status, ready.status], id };
  };

  it('HTTP, messages, their replies, events and readiness go on together', async () => {
    const [requests, replies] = await Promise.all([
      (async () => {
        const done = [];
        for (let n = 0; n < PEOPLE; n++) done.push(await overHttp(n));
        return done;
      })(),
      Promise.all(
        Array.from({ length: PEOPLE }, (_, n) =>
          peer.ask('people.create', `{"name":"by message ${n}"}`, { key: String(n) }),
        ),
      ),
    ]);
    expect(requests.map(({ statuses }) => statuses)).toEqual(requests.map(() => [201, 200, 200]));
    expect(replies.filter(({ error }) => error)).toEqual([]);
    const ids = [
      ...requests.map(({ id }) => id),
      ...replies.map(({ value }) => (JSON.parse(value!) as { id: string }).id),
    ];
    await eventually(() => ids.every((id) => events.has(`person.created ${id}`)), 20_000);
    await eventually(async () => (await waiting()) === 0);
  });

  // @trap a pool with hardly a connection
  it('HTTP goes on while the broker hangs, and the events are sent once it is back', async () => {
    isHanging = true;
    const ids: string[] = [];
    for (let n = 0; n < PEOPLE; n++) {
      const { statuses, id } = await overHttp(n);
      expect(statuses.slice(0, 2)).toEqual([201, 200]);
      ids.push(id);
      expect((await app.request('/health/live')).status).toBe(200);
    }
    expect(ids.filter((id) => events.has(`person.created ${id}`))).toEqual([]);
    isHanging = false;
    wire.release();
    await eventually(() => ids.every((id) => events.has(`person.created ${id}`)), 40_000);
    await eventually(async () => (await waiting()) === 0);
  });
});
