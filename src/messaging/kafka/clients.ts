import type { Logger } from '@nestjs/common';
import type { KafkaClientSettings, KafkaDriver } from '../kafka-driver.js';

/** The client libraries that there is a driver for. */
export const KAFKA_CLIENTS = ['kafkajs', 'platformatic'] as const;
/** The name of a client library that there is a driver for: `kafkajs` or `platformatic` (@platformatic/kafka). */
export type KafkaClientName = (typeof KAFKA_CLIENTS)[number];

/** Makes a driver; it connects when it is used. */
export type KafkaDriverFactory = (settings: KafkaClientSettings, logger: Logger) => KafkaDriver;

/**
 * Loads a client library, and no other.
 *
 * @throws Error it is not installed
 */
export async function driverFactory(client: KafkaClientName): Promise<KafkaDriverFactory> {
  switch (client) {
    case 'kafkajs': {
      const { KafkajsDriver } = await import('./kafkajs/driver.js').catch(
        explain('kafkajs', 'kafkajs@^2.2.4'),
      );
      return (settings, logger) => new KafkajsDriver(settings, logger);
    }
    case 'platformatic': {
      const { PlatformaticDriver } = await import('./platformatic/driver.js').catch(
        explain('@platformatic/kafka', '@platformatic/kafka@~1.35.0, or @^2.12.1 on Node 22.22 and later'),
      );
      return (settings, logger) => new PlatformaticDriver(settings, logger);
    }
  }
}

function explain(library: string, install: string) {
  return (cause: Error & { code?: string }): never => {
    if (cause.code !== 'ERR_MODULE_NOT_FOUND' || !cause.message.includes(`'${library}`)) throw cause;
    throw new Error(`This Kafka client is not installed: npm install ${install}`, { cause });
  };
}
