import { Controller } from '@nestjs/common';
import { MessagePattern } from '@nestjs/microservices';
import { randomUUID } from 'node:crypto';
import { driverFactory, KAFKA_CLIENTS } from '../../src/messaging/kafka/clients.js';
import type { KafkaDriver, OutgoingRecord } from '../../src/messaging/kafka-driver.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { connectPeer } from '../support/kafka.js';
import { type MessagesHost, startMessagesHost } from '../support/messages-host.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

const ANSWER = 'x'.repeat(30_000);
const BUFFER = 4 * ANSWER.length;
const CONCURRENCY = 3;
const AN_HOUR = 3_600_000;
const MANY = Array.from({ length: 40 }, (_, n) => String(n));

describe.each(KAFKA_CLIENTS)('answers that are not sent, by %s', (driver) => {
  let topic: string;
  let replies: string;
  let groupId: string;
  let database: TestDatabase;
  let host: MessagesHost;
  let answered: string[];
  let [handled, sent, most] = [0, 0, 0];
  /** What sending a reply to this topic waits for. */
  let onSend: (record: OutgoingRecord) => Promise<void>;

  const start = async () => {
    @Controller()
    class Handlers {
      @MessagePattern(topic)
      large() {
        handled++;
        most = Math.max(most, handled - sent);
        return ANSWER;
      }
    }
    const create = await driverFactory(driver);
    host = await startMessagesHost(database, {
      controllers: [Handlers],
      transport: {
        ...{ groupId, concurrency: CONCURRENCY, replyBufferBytes: BUFFER, replyTimeoutMs: AN_HOUR },
        driver: (settings, logger) => watched(create(settings, logger)),
      },
    });
    await eventually(() => host.transport.unavailableReason === undefined, 30_000);
    await peer.consume([replies], ({ headers }) => answered.push(String(headers!.kafka_correlationId)));
  };
  const watched = (real: KafkaDriver): KafkaDriver => ({
    raw: real.raw,
    createMissingTopics: (topics, settings) => real.createMissingTopics(topics, settings),
    consume: (settings, listener) => real.consume(settings, listener),
    producer: async () => {
      const producer = await real.producer();
      return {
        raw: producer.raw,
        close: () => producer.close(),
        send: async (records) => {
          await onSend(records[0]!);
          await producer.send(records);
          sent++;
        },
      };
    },
  });
  const ask = (id: string, to: string) => ({
    ...{ key: id, value: '{}' },
    headers: { kafka_correlationId: id, kafka_replyTopic: to },
  });

  const peer = duringTests(() => connectPeer());
  beforeEach(async () => {
    [topic, replies, groupId] = [`large-${randomUUID()}`, `answers-${randomUUID()}`, `waits-${randomUUID()}`];
    answered = [];
    [handled, sent, most] = [0, 0, 0];
    await peer.createTopics([topic, replies]);
    database = await createDatabase();
  });
  afterEach(async () => {
    await host.app.close();
    await database.drop();
  });

  // @trap answers that the brokers don’t take
  it('keep more from being handled than there is room for, and all are answered in the end', async () => {
    let open!: () => void;
    const gate = new Promise<void>((resolve) => (open = resolve));
    onSend = () => gate;
    await start();
    await peer.emitAll(topic, MANY.map((id) => ask(id, replies))); // prettier-ignore
    await eventually(() => handled * ANSWER.length > BUFFER);
    open();
    await eventually(() => answered.length === MANY.length);
    expect(answered.toSorted()).toEqual(MANY.toSorted());
    expect(most).toBeLessThanOrEqual(BUFFER / ANSWER.length + 1 + CONCURRENCY);
  });

  it('as their own address is out of reach make room for the others', async () => {
    const away = `away-${randomUUID()}`;
    onSend = ({ topic: to }) =>
      to === away ? Promise.reject(new Error('It has no leader at the moment.')) : Promise.resolve();
    await start();
    const asked = MANY.flatMap((id) => [ask(`${id} lost`, away), ask(id, replies)]);
    await peer.emitAll(topic, asked);
    await eventually(() => answered.length === MANY.length, 30_000);
    expect(answered.toSorted()).toEqual(MANY.toSorted());
    expect(handled).toBe(asked.length);
  });
});
