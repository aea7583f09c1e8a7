import { randomUUID } from 'node:crypto';
import { KAFKA_CLIENTS } from '../../src/messaging/kafka/clients.js';
import { broker, KafkaPeer, startKafkaApp } from '../support/kafka.js';
import {
  findJavaClients,
  findKcat,
  kcatClient,
  nestClient,
  type OtherClient,
  startJavaClients,
} from '../support/other-clients.js';
import type { PeopleApp } from '../support/people-app.js';

const JAVA = ['java-text', 'java-bytes', 'spring', 'spring-partition', 'spring-checked'] as const;
/** Which `OtherClients.java` or `other-clients.ts` is meant, and what of it. */
const NAMES: Record<string, string> = {
  nest: 'Nest’s ClientKafka',
  kcat: 'librdkafka (kcat), with the partition as text',
  'java-text': 'Java’s client, with a text as correlation id and the partition as text',
  'java-bytes': 'Java’s client, with 16 bytes as correlation id and the partition as an int',
  spring: 'Spring’s ReplyingKafkaTemplate with its defaults',
  'spring-partition': 'Spring’s ReplyingKafkaTemplate with a partition of its own',
  'spring-checked': 'Spring’s ReplyingKafkaTemplate with the check of errors that is documented',
};
const PARTITIONS = 4;
const TOPICS = ['people.create', 'people.get', 'people.find-by-name', 'people.delete'];
const java = await findJavaClients();
const kcat = findKcat();
const clients = ['nest', ...(kcat ? ['kcat'] : []), ...(java ? JAVA : [])];

describe.each(KAFKA_CLIENTS)('by %s', (library) => {
  const replies = `others-${randomUUID()}`;
  const peer = new KafkaPeer();
  const open: { close(): Promise<void> }[] = [];
  let app: PeopleApp;
  let ofJava: ReturnType<typeof startJavaClients> | undefined;

  beforeAll(async () => {
    app = await startKafkaApp(peer, { KAFKA_CLIENT: library });
    await peer.createTopics(clients.map((name) => `${replies}-${name}`), PARTITIONS); // prettier-ignore
    await peer.createTopics(TOPICS.map((topic) => `${topic}.reply`));
    if (java) open.push((ofJava = startJavaClients(java, broker(), replies)));
  }, 60_000);
  afterAll(async () => {
    await Promise.all(open.map((client) => client.close()));
    await app.close();
    await peer.deleteTopics();
    await peer.close();
  });

  const start = async (name: string): Promise<OtherClient> => {
    if (name === 'nest') return nestClient(broker(), TOPICS);
    if (name === 'kcat') return kcatClient(kcat!, broker(), `${replies}-kcat`);
    return ofJava!.client(name);
  };

  describe.each(clients.map((name) => [NAMES[name]!, name]))('%s', (_, name) => {
    let client: OtherClient;
    beforeAll(async () => {
      client = await start(name);
      open.push(client);
    }, 60_000);

    const asked = async (topic: string, value: object) => {
      const reply = await client.ask(topic, value);
      expect(reply.error).toBeNull();
      if (reply.headers)
        expect(reply.headers.toSorted()).toEqual(['kafka_correlationId', 'kafka_nest-is-disposed']);
      return JSON.parse(reply.value ?? 'null') as Record<string, unknown>;
    };
    const refused = async (topic: string, value: object) => {
      const reply = await client.ask(topic, value);
      // A template that checks has made an exception of it.
      if (reply.headers && name !== 'spring-checked')
        expect(reply.headers.toSorted()).toEqual([
          'kafka_correlationId',
          'kafka_nest-err',
          'kafka_nest-is-disposed',
        ]);
      expect(reply.value).toBeNull();
      return /\{.*\}/s.exec(reply.error ?? '')?.[0];
    };

    // @trap clients that are not Nest’s
    it('creates, gets, finds and removes a person', async () => {
      const id = randomUUID();
      const person = { id, name: `Zoë ${randomUUID()}`, data: { a: [1, null] } };
      expect(await asked('people.create', person)).toMatchObject(person);
      expect(await asked('people.get', { id })).toMatchObject(person);
      expect(await asked('people.find-by-name', { name: person.name })).toMatchObject({
        items: [person],
        next: null,
      });
      expect(await asked('people.delete', { id })).toBeNull();
      expect((await app.request(`/people/${id}`)).status).toBe(404);
    });

    it('is told what was wrong', async () => {
      const missing = await refused('people.get', { id: randomUUID() });
      expect(JSON.parse(missing!)).toMatchObject({ code: 'PERSON_NOT_FOUND', retryable: false });
      const invalid = await refused('people.create', { name: 1 });
      expect(JSON.parse(invalid!)).toMatchObject({ code: 'INVALID_INPUT', errors: [{ pointer: '#/name' }] });
    });
  });
});
