import { Logger } from '@nestjs/common';
import { KafkajsDriver } from '../../src/messaging/kafka/kafkajs/driver.js';
import { describeDriverContract } from './kafka-driver.contract.js';

// What the libraries say of brokers that go is no part of the report.
beforeAll(() => Logger.overrideLogger(false));
describeDriverContract('kafkajs', (settings) => new KafkajsDriver(settings, new Logger('Kafka')));
