import { Controller, type Type } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import type { KafkaClientName } from '../../src/messaging/kafka/clients.js';
import type { KafkaTransportOptions } from '../../src/messaging/kafka/transport-options.js';
import { KafkaTransport } from '../../src/messaging/kafka.transport.js';
import { MessageStore } from '../../src/messaging/message-store.js';
import { SERVICE_USER } from './kafka-listeners.js';
import { ParsedValue, startMessagesHost } from './messages-host.js';
import { startPeopleApp } from './people-app.js';
import type { Replies } from './reply-reader.js';
import type { TestDatabase } from './test-database.js';

/** Whose handlers take the messages. */
export type SubjectKind = 'people' | 'host';

export const PARTITIONS = 4;

export interface SubjectOptions {
  kind: SubjectKind;
  client: KafkaClientName;
  peer: Replies;
  /** Default: those of the run's Kafka. With a login they are those of a cluster of the test's own. */
  brokers?: string[];
  login?: boolean;
  /** The service's variables, and the host's options that go beyond the usual. */
  environment?: Record<string, string>;
  transport?: Partial<KafkaTransportOptions>;
  groupId?: string;
  /** How long a request waits at most. */
  answerMs?: number;
}

/** An application while it runs. */
export interface Running {
  transport: KafkaTransport;
  store: MessageStore;
  close: () => Promise<void>;
  /** Why messages are not handled, as readiness says it; '' while they are. */
  reason: () => Promise<string>;
}

interface Health {
  details: Record<string, { reason?: string } | undefined>;
}

const runsBrokers = () => process.env.TEST_KAFKA_BROKERS!.split(',');

/** The service, with its variables. */
export async function startPeople(
  options: SubjectOptions,
  database: TestDatabase,
  groupId: string,
): Promise<Running> {
  const { client, brokers = runsBrokers(), login, environment } = options;
  const app = await startPeopleApp(
    {
      KAFKA_BROKERS: brokers.join(','),
      KAFKA_CLIENT: client,
      KAFKA_GROUP_ID: groupId,
      KAFKA_TOPIC_PARTITIONS: String(PARTITIONS),
      ...(login && {
        KAFKA_SASL_MECHANISM: 'plain',
        KAFKA_SASL_USERNAME: SERVICE_USER.username,
        KAFKA_SASL_PASSWORD: SERVICE_USER.password,
      }),
      ...environment,
    },
    database,
  );
  return {
    transport: app.app.get(KafkaTransport),
    store: app.app.get(MessageStore, { strict: false }),
    close: () => app.close(),
    reason: async () => {
      const health = (await (await app.request('/health/ready')).json()) as Health;
      return health.details.kafka?.reason ?? '';
    },
  };
}

/** Somebody else's application, with our transport. */
export async function startHost(
  options: SubjectOptions,
  database: TestDatabase,
  groupId: string,
  controller: Type,
): Promise<Running> {
  const { client, brokers = runsBrokers(), login, transport: more } = options;
  const host = await startMessagesHost(database, {
    controllers: [controller],
    transport: {
      client: {
        brokers,
        clientId: 'host',
        ...(login && { sasl: { mechanism: 'plain', ...SERVICE_USER } }),
      },
      driver: client,
      groupId,
      topics: { partitions: PARTITIONS, replication: undefined },
      maxAttempts: 1,
      ...more,
    },
  });
  return {
    transport: host.transport,
    store: host.store,
    close: () => host.app.close(),
    reason: () => Promise.resolve(host.transport.unavailableReason ?? ''),
  };
}

/** Its handlers, and who is told the names that they are given. */
export function hostController(struck: string, bystander: string, seen: string[]): Type {
  @Controller()
  class HostController {
    @MessagePattern(struck)
    take(@Payload(ParsedValue) { name }: { name: unknown }) {
      if (typeof name !== 'string') throw new TypeError('no name');
      seen.push(name);
      return { name };
    }

    @MessagePattern(bystander)
    other(@Payload(ParsedValue) { name }: { name: string }) {
      return { name };
    }
  }
  return HostController;
}
