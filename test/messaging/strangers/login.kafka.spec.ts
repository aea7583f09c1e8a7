import { jest } from '@jest/globals';
import type { KafkaClientSettings } from '../../../src/messaging/kafka-driver.js';
import { duringTests } from '../../support/during-tests.js';
import { connectPeer } from '../../support/kafka.js';
import { startKafkaCluster } from '../../support/kafka-cluster.js';
import { SERVICE_USER } from '../../support/kafka-listeners.js';
import { Permissions } from '../../support/permissions.js';
import { CLIENTS, PARTITIONS, ROW_MS, Subject } from '../../support/strangers.js';

const sasl = { mechanism: 'plain', ...SERVICE_USER } as const;

let subject: Subject;
jest.setTimeout(ROW_MS);
const cluster = duringTests(() => startKafkaCluster(), 180_000);
const peer = duringTests(() => connectPeer(cluster.brokers));
beforeAll(async () => {
  await new Permissions(peer.admin).grantAll();
}, 180_000);
afterEach(() => subject.close());

describe.each(CLIENTS)('%s', (client) => {
  const start = (settings: KafkaClientSettings, isServing: boolean) =>
    Subject.start({ client, kind: 'host', peer, transport: { client: settings } }, isServing);

  it('logs in over TLS, by a certificate that it was told of', async () => {
    const { tlsBrokers: brokers, authority } = cluster;
    subject = await start({ brokers, ssl: { ca: authority }, sasl }, true);
    for (let partition = 0; partition < PARTITIONS; partition++)
      expect((await subject.ask(`in ${partition}`, { partition })).error).toBeUndefined();
    await subject.isWell();
  });

  it('a certificate that it does not know is told as that', async () => {
    subject = await start({ brokers: cluster.tlsBrokers, ssl: true, sasl }, false);
    await subject.isTold(/certificate/i);
  });

  it('a wrong password is told as that, with what to look at', async () => {
    const settings = { brokers: cluster.saslBrokers, sasl: { ...sasl, password: 'of-somebody-else' } };
    subject = await start(settings, false);
    expect(await subject.isTold(/password/i)).not.toMatch(/reached/);
  });
});
