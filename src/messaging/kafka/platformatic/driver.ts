// messaging/kafka/platformatic/: Connections to brokers as @platformatic/kafka makes them: TCP, TLS, SASL.
// Promises: the same `BrokerConnections` as with any other library; nothing else of the library is relied on.
// May know: @platformatic/kafka, which nobody else imports, and client/.

import type { Logger } from '@nestjs/common';
import { Admin, Consumer, Producer } from '@platformatic/kafka';
import { type ClientLibrary, ClientDriver } from '../client/client-driver.js';
import type { KafkaClientSettings } from '../../kafka-driver.js';
import { clientOptions, PlatformaticConnections } from './connections.js';

/** Kafka over the connections of @platformatic/kafka. */
export class PlatformaticDriver extends ClientDriver {
  constructor(settings: KafkaClientSettings, logger: Logger) {
    super(platformatic(settings), settings, logger);
  }
}

function platformatic(settings: KafkaClientSettings): ClientLibrary {
  const options = clientOptions(settings);
  return {
    // The library's own clients connect when they are used.
    raw: new Admin(options),
    connections: () => new PlatformaticConnections(settings),
    consumer: (groupId) => new Consumer({ ...options, groupId }),
    producer: () => {
      const producer = new Producer({ ...options, acks: -1 });
      return Promise.resolve({ raw: producer, close: () => producer.close() });
    },
  };
}
