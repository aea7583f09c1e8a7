// messaging/kafka/kafkajs/: Connections to brokers as kafkajs makes them: TCP, TLS, SASL.
// Promises: the same `BrokerConnections` as with any other library; nothing else of kafkajs is relied on.
// May know: kafkajs, which nobody else imports, and client/.

import type { Logger } from '@nestjs/common';
import { Kafka, type KafkaConfig, type logCreator, logLevel } from 'kafkajs';
import { type ClientLibrary, ClientDriver } from '../client/client-driver.js';
import type { KafkaClientSettings } from '../../kafka-driver.js';
import { KafkajsConnections } from './connections.js';

const CONNECT_TIMEOUT_MS = 5_000;
/** Of kafkajs' own producer, by which handlers may send. */
const REQUEST_TIMEOUT_MS = 10_000;
const RETRIES = 2;

/** Kafka over the connections of kafkajs 2.2. */
export class KafkajsDriver extends ClientDriver {
  constructor(settings: KafkaClientSettings, logger: Logger) {
    super(kafkajs(settings, logger), settings, logger);
  }
}

function kafkajs({ brokers, clientId, ssl, sasl }: KafkaClientSettings, logger: Logger): ClientLibrary {
  const raw = new Kafka({
    brokers,
    ...(clientId && { clientId }),
    ...(ssl !== undefined && { ssl }),
    // A copy, as kafkajs keeps in it what it has made of the password.
    ...(sasl && { sasl: { ...sasl } as KafkaConfig['sasl'] }),
    connectionTimeout: CONNECT_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    // Whoever needs it tries again, and must be able to stop in between.
    retry: { retries: RETRIES },
    logCreator: logTo(logger),
  });
  return {
    raw,
    connections: () => new KafkajsConnections(raw),
    consumer: (groupId) => raw.consumer({ groupId }),
    producer: async () => {
      const producer = raw.producer({ allowAutoTopicCreation: false });
      await producer.connect();
      return { raw: producer, close: () => producer.disconnect() };
    },
  };
}

/** kafkajs' own reports, as fields; what it calls errors is told by whoever has asked for it. */
function logTo(logger: Logger): logCreator {
  return () =>
    ({ level, namespace, log: { message, ...fields } }) => {
      const entry = { msg: message, part: namespace, ...fields };
      if (level <= logLevel.INFO) logger.debug(entry);
      else logger.verbose(entry);
    };
}
