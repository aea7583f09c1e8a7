import { Logger } from '@nestjs/common';
import { KafkajsDriver } from '../../src/messaging/kafkajs/kafkajs.driver.js';
import { describeDriverContract } from './kafka-driver.contract.js';

describeDriverContract('kafkajs', (settings) => new KafkajsDriver(settings, new Logger('Kafka')));
