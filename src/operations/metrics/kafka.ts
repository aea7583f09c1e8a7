import { Gauge, type Registry } from 'prom-client';
import { BrokerAnswerError } from '../../messaging/kafka/broker-answers.js';
import type {
  HeldFigures,
  PartitionLag,
  TransportFigures,
  WatchedTransport,
} from '../../messaging/telemetry/transport-figures.js';
import type { AskedFigures } from './asked-figures.js';
import type { SourceUp } from './sources.js';

/** Shows what a transport has at the moment, and how far behind its group is in the partitions that it reads. */
export function showTransport(registry: Registry, transport: WatchedTransport, up: SourceUp): void {
  const registers = [registry];
  const figures = onceAScrape(() => transport.figures);
  const lag = up.source('kafka', () => transport.lag());
  new Gauge({
    name: 'people_kafka_connected',
    help: '1 while this process is a member of its consumer group and can reach the brokers.',
    registers,
    collect() {
      this.set(figures().isConnected ? 1 : 0);
    },
  });
  new Gauge({
    name: 'people_kafka_stuck_partitions',
    help: 'Partitions that are not read on while others are; partition -1 stands for the whole topic.',
    labelNames: ['topic', 'partition', 'reason'],
    registers,
    collect() {
      this.reset();
      for (const { topic, partition, reason } of transport.stuckPartitions) {
        const name = reason instanceof BrokerAnswerError ? reason.answer : reason.name;
        this.set({ topic, partition: String(partition), reason: name }, 1);
      }
    },
  });
  new Gauge({
    name: 'people_kafka_offsets_ahead_partitions',
    help: 'Partitions of which the database does not know messages that the group has committed, as it was found at the start.',
    registers,
    collect() {
      this.set(figures().partitionsAhead);
    },
  });
  showPartitions(registry, figures);
  showHeld(registry, figures);
  showLag(registry, lag);
}

/** All that is collected for a scrape is collected in one go: figures that belong together are of the same moment. */
function onceAScrape<Figures>(read: () => Figures): () => Figures {
  let known: Figures | undefined;
  return () => {
    if (known === undefined) setImmediate(() => (known = undefined));
    return (known ??= read());
  };
}

function showPartitions(registry: Registry, figures: () => TransportFigures): void {
  const registers = [registry];
  new Gauge({
    name: 'people_kafka_assigned_partitions',
    help: 'Partitions that are this member’s.',
    labelNames: ['topic'],
    registers,
    collect() {
      this.reset();
      for (const { topic } of figures().partitions) this.inc({ topic });
    },
  });
  new Gauge({
    name: 'people_kafka_paused_partitions',
    help:
      'Partitions that are not fetched at the moment: too much is held (buffer), too much of one key (key), or nothing may begin ' +
      '(suspended: the database takes no writes, or the service stops).',
    labelNames: ['topic', 'reason'],
    registers,
    collect() {
      this.reset();
      for (const { topic, pausedFor: reason } of figures().partitions)
        if (reason) this.inc({ topic, reason });
    },
  });
}

function showHeld(registry: Registry, figures: () => TransportFigures): void {
  const registers = [registry];
  const byTopic = (name: string, help: string, count: (held: HeldFigures) => number) =>
    new Gauge({
      ...{ name, help, labelNames: ['topic'], registers },
      collect() {
        this.reset();
        for (const held of figures().held) this.set({ topic: held.topic }, count(held));
      },
    });
  byTopic('people_messages_in_flight', 'Messages that are being handled.', ({ inFlight }) => inFlight);
  byTopic(
    'people_messages_buffered',
    'Messages in memory that wait: for others of their key, for a place, or to be tried again.',
    ({ buffered }) => buffered,
  );
  new Gauge({
    name: 'people_messages_buffered_bytes',
    help: 'About what the messages take of memory that were fetched and are not done.',
    registers,
    collect() {
      this.set(figures().heldBytes);
    },
  });
  new Gauge({
    name: 'people_replies_pending',
    help: 'Replies that the brokers have not acknowledged yet.',
    registers,
    collect() {
      this.set(figures().pendingReplies);
    },
  });
}

function showLag(registry: Registry, lag: AskedFigures<PartitionLag[]>): void {
  new Gauge({
    name: 'people_kafka_lag_messages',
    help:
      'Messages of a partition of this member that are not done, by offsets: from the first that is not to the end of the partition. ' +
      'Left out while the brokers can’t be asked.',
    labelNames: ['topic', 'partition'],
    registers: [registry],
    async collect() {
      const known = await lag.known();
      this.reset();
      for (const { topic, partition, lag: messages } of known ?? [])
        this.set({ topic, partition: String(partition) }, messages);
    },
  });
}
