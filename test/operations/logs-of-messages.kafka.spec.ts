import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import type { ServiceSettings } from '../../src/app/app.module.js';
import { createApp } from '../../src/app/create-app.js';
import { readEnvironment } from '../../src/app/environment.js';
import { JsonLogger } from '../../src/operations/json-logger.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { brokers, KafkaPeer } from '../support/kafka.js';
import { createDatabase } from '../support/test-database.js';

interface Line {
  level: string;
  msg: string;
  more?: number;
  code?: string;
}

const database = duringTests(() => createDatabase());
let log: string[] = [];
const lines = () => log.map((line) => JSON.parse(line) as Line);
const toldOf = (pattern: RegExp, level = /warn|error|info/) =>
  lines().filter(({ msg, level: its }) => pattern.test(msg) && level.test(its));

/** The service with its Kafka door open, its log kept in `log`. */
async function start(of: string[]): Promise<NestFastifyApplication> {
  log = [];
  const settings = readEnvironment({
    DATABASE_URL: database.url,
    KAFKA_BROKERS: of.join(','),
    KAFKA_GROUP_ID: `test-${randomUUID()}`,
    KAFKA_TOPIC_PARTITIONS: '1',
    PORT: '0',
  }) as ServiceSettings;
  const logger = new JsonLogger('debug', { write: (line) => void log.push(line) });
  const app = await createApp(settings, logger);
  await app.startAllMicroservices();
  await app.listen({ port: 0, host: '127.0.0.1' });
  return app;
}

it('a broker that is away is told when it begins, and not each time it is tried again', async () => {
  let attempts = 0;
  const nobody = createServer((socket) => {
    attempts++;
    socket.destroy();
  });
  nobody.listen(0, '127.0.0.1');
  await once(nobody, 'listening');
  const app = await start([`127.0.0.1:${(nobody.address() as AddressInfo).port}`]);
  await eventually(() => attempts >= 4, 30_000);
  await app.close();
  nobody.close();
  const loud = lines().filter(({ level }) => level !== 'debug' && level !== 'trace');
  expect(loud.map(({ msg }) => msg)).toEqual(['Kafka cannot be reached; it is tried again']);
});

describe('the log of a service that consumes', () => {
  const peer = new KafkaPeer();
  let app: NestFastifyApplication;
  beforeAll(async () => {
    await peer.connect();
    await peer.deleteTopics();
    app = await start(brokers());
    await eventually(() => toldOf(/^messages are consumed$/).length > 0, 60_000);
  });
  afterAll(async () => {
    await app.close();
    await peer.close();
  });

  it('has one line of a start that goes well, whatever its client library had to say', () => {
    const loud = lines().filter(({ level }) => level !== 'debug' && level !== 'trace');
    expect(loud.map(({ level, msg }) => [level, msg])).toEqual([['info', 'messages are consumed']]);
    expect(lines().length).toBeGreaterThan(3);
  });

  // @trap messages are tried again while the server can't do it
  it('has a state that keeps messages from being handled once, however many wait, and says when they go on', async () => {
    await database.query('ALTER TABLE people RENAME TO away');
    await peer.emitAll(
      'people.create',
      Array.from({ length: 5 }, (_, n) => ({ key: `key ${n}`, value: `{"name":"${n}"}` })),
    );
    const waiting = /^message waits to be tried again$/;
    await eventually(() => toldOf(waiting, /debug|warn/).length >= 15, 30_000);
    expect(toldOf(waiting)).toHaveLength(1);
    expect(JSON.stringify(toldOf(waiting)[0])).toContain('42P01');
    expect(toldOf(/cannot do this at the moment/).length).toBeLessThan(2);
    await database.query('ALTER TABLE away RENAME TO people');
    await eventually(() => toldOf(/^messages that waited are handled again$/).length > 0, 60_000);
    await eventually(async () => (await database.query('SELECT FROM people')).length === 5, 60_000);
    expect(toldOf(/^messages that waited are handled again$/)).toHaveLength(1);
  });
});
