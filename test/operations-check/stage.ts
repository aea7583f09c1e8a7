import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { ClusterFaults } from '../delivery/cluster-faults.js';
import { type Broker, type Database, startBroker, startDatabase } from '../delivery/servers.js';
import { COMMANDS, EVENTS, REPLIES, Topics } from '../delivery/topics.js';
import { eventually } from '../support/barrier.js';
import { SERVICE_USER } from '../support/kafka-listeners.js';
import { Balancer } from './balancer.js';
import { Instance } from './instances.js';

/** Whom the services log in as. */
export const SERVICE_ROLE = 'people_service';
const INSTANCES = 3;
const PARTITIONS = 6;
const READY_MS = 60_000;

/** What faults are made of, and what they meet. */
export interface Stage {
  /** Of the servers' data. */
  directory: string;
  database: Database;
  broker: Broker;
  topics: Topics;
  instances: readonly Instance[];
  balancer: Balancer;
  /** Gives the services' role another password; who starts from now on has it. */
  changePassword: () => Promise<void>;
  closers: (() => Promise<unknown>)[];
}

/** @param closers take what is to be closed, last first, whether or not this succeeds */
export async function openStage(
  directory: string,
  closers: (() => Promise<unknown>)[],
  onViolation: (violation: string) => void,
): Promise<Stage> {
  // One after the other: what fails to start must not leave the other one behind.
  const database = await startDatabase(directory);
  closers.push(() => database.stop());
  const broker = await startBroker(directory);
  closers.push(() => broker.stop());
  await new ClusterFaults(broker.port, onViolation).grantAll();
  const groupId = `check-${randomUUID()}`;
  const topics = await Topics.open(broker.port, groupId, {
    [COMMANDS]: PARTITIONS,
    [REPLIES]: 1,
    [EVENTS]: 1,
  });
  closers.push(() => topics.close());
  let password = randomUUID();
  await database.query(`CREATE ROLE ${SERVICE_ROLE} LOGIN SUPERUSER PASSWORD '${password}'`);
  const environment = () => {
    const url = new URL(database.url);
    [url.username, url.password] = [SERVICE_ROLE, password];
    return {
      DATABASE_URL: url.href,
      KAFKA_BROKERS: `127.0.0.1:${broker.loginPort}`,
      KAFKA_GROUP_ID: groupId,
      KAFKA_SASL_MECHANISM: 'plain',
      KAFKA_SASL_USERNAME: SERVICE_USER.username,
      KAFKA_SASL_PASSWORD: SERVICE_USER.password,
      KAFKA_TOPIC_PARTITIONS: String(PARTITIONS),
      // Longer than it takes a balancer to notice, which it asks for by itself away from the loopback.
      SHUTDOWN_DELAY_MS: '2500',
    };
  };
  const names = Array.from({ length: INSTANCES }, (_, n) => `instance ${n + 1}`);
  const instances = names.map(
    (name) => new Instance(name, environment, path.join(directory, `${name}.log`), onViolation),
  );
  for (const instance of instances) closers.push(() => instance.close());
  await Promise.all(instances.map((instance) => instance.start()));
  const balancer = new Balancer(instances);
  closers.push(() => balancer.close());
  await eventually(() => balancer.areAllReady, READY_MS);
  const changePassword = async () => {
    password = randomUUID();
    await database.query(`ALTER ROLE ${SERVICE_ROLE} PASSWORD '${password}'`);
  };
  return { directory, database, broker, topics, instances, balancer, changePassword, closers };
}
