import { KafkaTransport } from '../messaging/kafka.transport.js';
import type { MessageStore } from '../messaging/message-store.js';
import { PEOPLE_EVENTS } from '../people/people.statements.js';
import type { KafkaSettings } from './settings.js';
import type { StopTimes } from './stop-application.js';

/** The Kafka transport as the environment asks for it. */
export function kafkaTransport(
  kafka: KafkaSettings & { brokers: string[] },
  store: MessageStore,
  { drainMs, doorsMs }: StopTimes,
): KafkaTransport {
  const { brokers, library, clientId, ssl, sasl, topicPartitions, topicReplication, replyTopics, ...rest } =
    kafka;
  return new KafkaTransport({
    ...rest,
    client: { brokers, clientId, ssl, ...(sasl && { sasl }) },
    driver: library,
    store,
    ...(replyTopics && { replyTopics }),
    drainTimeoutMs: drainMs,
    closeTimeoutMs: doorsMs - drainMs,
    // Every number of the JSON is kept.
    parser: { keepBinary: true },
    eventTopics: [PEOPLE_EVENTS.topic],
    topics: { partitions: topicPartitions, replication: topicReplication },
  });
}
