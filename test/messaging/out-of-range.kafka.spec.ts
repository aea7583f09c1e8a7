import { randomUUID } from 'node:crypto';
import { KafkaTransport } from '../../src/messaging/kafka.transport.js';
import { eventually } from '../support/barrier.js';
import { brokers, KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';

const CREATE = 'people.create';
const peer = new KafkaPeer();
let app: PeopleApp | undefined;
afterAll(async () => {
  await app?.close();
  await peer.close();
});

it('while a partition stands still whose offset is out of range, events are sent and the rest is consumed; a metric and the reason of readiness tell', async () => {
  const environment = {
    KAFKA_BROKERS: brokers().join(','),
    KAFKA_GROUP_ID: `range-${randomUUID()}`,
    KAFKA_TOPIC_PARTITIONS: '1',
  };
  app = await startKafkaApp(peer, environment);
  const { database } = app;
  await peer.ask(CREATE, '{"name":"before"}');
  await app.app.close();
  const setOffset = () =>
    peer.admin.setOffsets({
      groupId: environment.KAFKA_GROUP_ID,
      topic: CREATE,
      partitions: [{ partition: 0, offset: '99' }],
    });
  await eventually(() => setOffset().then(() => true, () => false), 30_000); // prettier-ignore
  const events: string[] = [];
  await peer.consume(['people.events'], ({ value }) => events.push(String(value)));

  app = await startPeopleApp(environment, database);
  const transport = app.app.get(KafkaTransport);
  await eventually(() => transport.stuckPartitions.some(({ topic }) => topic === CREATE), 30_000);
  expect((await app.send('POST', '/people', '{"name":"by HTTP"}')).status).toBe(201);
  await peer.emit('people.commands', {
    key: randomUUID(),
    value: '{"name":"by a command"}',
    headers: { 'people-operation': 'create' },
  });
  await eventually(() => ['by HTTP', 'by a command'].every((name) => events.some((event) => event.includes(name)))); // prettier-ignore
  expect((await app.request('/health/live')).status).toBe(200);
  expect(transport.unavailableReason).toContain(`${CREATE}, partition 0`);
  expect(await (await app.request('/metrics')).text()).toMatch(
    /^people_kafka_stuck_partitions\{topic="people.create",partition="0".* 1$/m,
  );
}, 90_000);
