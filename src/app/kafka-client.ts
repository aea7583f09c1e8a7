import { KafkaTransport } from '../messaging/kafka.transport.js';
import type { KafkaSettings } from './environment.js';

/** The Kafka transport as the environment asks for it. */
export function kafkaTransport(kafka: KafkaSettings & { brokers: string[] }): KafkaTransport {
  const { brokers, clientId, groupId, concurrency, topicPartitions, topicReplication, ssl, sasl } = kafka;
  return new KafkaTransport({
    client: {
      brokers,
      clientId,
      ssl,
      ...(sasl && { sasl: sasl as { mechanism: 'plain'; username: string; password: string } }),
    },
    groupId,
    concurrency,
    topics: { partitions: topicPartitions, replication: topicReplication },
  });
}
