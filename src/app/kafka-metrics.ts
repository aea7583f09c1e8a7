import { Gauge } from 'prom-client';
import type { KafkaTransport } from '../messaging/kafka.transport.js';
import { BrokerAnswerError } from '../messaging/kafka/broker-answers.js';
import type { Metrics } from '../operations/metrics.controller.js';

/** Shows what is not read on of the topics that this process reads: 1 for each partition (-1: the whole topic), with the reason. */
export function showStuckPartitions({ registry }: Metrics, transport: KafkaTransport): void {
  new Gauge({
    name: 'people_kafka_stuck_partitions',
    help: 'Partitions that are not read on while others are; partition -1 stands for the whole topic.',
    labelNames: ['topic', 'partition', 'reason'],
    registers: [registry],
    collect() {
      this.reset();
      for (const { topic, partition, reason } of transport.stuckPartitions) {
        const name = reason instanceof BrokerAnswerError ? reason.answer : reason.name;
        this.set({ topic, partition: String(partition), reason: name }, 1);
      }
    },
  });
}
