import { Logger } from '@nestjs/common';
import { PlatformaticDriver } from '../../src/messaging/kafka/platformatic/driver.js';
import { describeDriverContract } from './kafka-driver.contract.js';

// What the libraries say of brokers that go is no part of the report.
beforeAll(() => Logger.overrideLogger(false));
describeDriverContract(
  '@platformatic/kafka',
  (settings) => new PlatformaticDriver(settings, new Logger('Kafka')),
);
