import { Logger } from '@nestjs/common';
import { PlatformaticDriver } from '../../src/messaging/platformatic/platformatic.driver.js';
import { describeDriverContract } from './kafka-driver.contract.js';

describeDriverContract(
  '@platformatic/kafka',
  (settings) => new PlatformaticDriver(settings, new Logger('Kafka')),
);
