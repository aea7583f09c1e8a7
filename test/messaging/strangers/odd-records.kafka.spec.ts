import { jest } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { ConfigResourceTypes, Kafka, logLevel } from 'kafkajs';
import { eventually } from '../../support/barrier.js';
import { duringTests } from '../../support/during-tests.js';
import { connectPeer } from '../../support/kafka.js';
import { startKafkaCluster } from '../../support/kafka-cluster.js';
import { readRaw } from '../../support/raw-reader.js';
import { sendRaw } from '../../support/raw-records.js';
import {
  answeredInTime,
  BAD,
  EACH_SUBJECT,
  PARTITIONS,
  ROW_MS,
  Subject,
  valueOf,
} from '../../support/strangers.js';

/** By a clock that is wrong, or by none. */
const TIMESTAMPS: [string, bigint][] = [
  ['none', -1n],
  ['1970', 0n],
  ['far behind', 86_400_000n],
  ['the year 9999', 253_402_300_799_000n],
  ['past what a Date can be', 9_000_000_000_000_000n],
  ['the largest there is', 9_223_372_036_854_775_807n],
];

let subject: Subject;
jest.setTimeout(ROW_MS);
const cluster = duringTests(
  () =>
    startKafkaCluster({
      properties: { 'log.message.timestamp.after.max.ms': '9223372036854775807' },
    }),
  180_000,
);
const peer = duringTests(() => connectPeer(cluster.brokers));
afterEach(() => subject.close());

const start = (client: (typeof EACH_SUBJECT)[number][0], kind: (typeof EACH_SUBJECT)[number][1]) =>
  Subject.start({ client, kind, peer, brokers: cluster.brokers });
const configure = (name: string, values: Record<string, string>) =>
  peer.admin.alterConfigs({
    validateOnly: false,
    resources: [
      {
        ...{ type: ConfigResourceTypes.TOPIC, name },
        configEntries: Object.entries(values).map(([name, value]) => ({ name, value })),
      },
    ],
  });

describe.each(EACH_SUBJECT)('%s, %s', (client, kind) => {
  it.each(TIMESTAMPS)('records whose time is %s are handled, or put aside', async (_, timestamp) => {
    subject = await start(client, kind);
    const [broker] = cluster.brokers as [string];
    const { id, reply } = peer.awaitReply();
    const headers = [['kafka_correlationId', id], ['kafka_replyTopic', peer.replyTopic]] as const; // prettier-ignore
    await sendRaw(broker, subject.struck, [
      { key: 'good', value: valueOf('good'), headers, timestamp },
      { key: 'bad', value: BAD },
    ]);
    expect((await answeredInTime(reply, 'the request')).error).toBeUndefined();
    await eventually(async () => {
      for (let partition = 0; partition < PARTITIONS; partition++)
        if ((await readRaw(broker, `${subject.struck}-dlt`, partition)).length > 0) return true;
      return false;
    }, 20_000);
    expect((await subject.ask('behind', { partition: 0 })).error).toBeUndefined();
    await subject.bystanderIsAnswered();
    expect(await subject.reason()).toBe('');
  });

  it('gaps that compaction leaves are passed over', async () => {
    subject = await start(client, kind);
    await subject.ask('before', { partition: 0 });
    await subject.stop();
    const [broker] = cluster.brokers as [string];
    const compacting = {
      'cleanup.policy': 'compact',
      'segment.ms': '100',
      'min.cleanable.dirty.ratio': '0.001',
    };
    await configure(subject.struck, compacting);
    const send = (key: string, name: string) => subject.emit({ key, value: valueOf(name) });
    for (let round = 0; round < 10; round++) await send('same', `same-${round}`);
    await send('other', 'other');
    // Each further record begins a segment, once the last has got its age: only those that are closed are compacted.
    await eventually(async () => {
      await send('closing', 'closing');
      const kept = await readRaw(broker, subject.struck, 0);
      return kept.filter(({ key }) => key?.toString() === 'same').length === 1;
    }, 40_000);
    await subject.startAgain();
    expect((await subject.ask('after', { partition: 0 })).error).toBeUndefined();
    const handled = await subject.handled();
    expect(handled.filter((name) => name.startsWith('same-'))).toEqual(['same-9']);
    expect(handled).toContain('other');
    await subject.bystanderIsAnswered();
    expect(await subject.reason()).toBe('');
  });

  it('what a transaction has taken back is passed over, and what it has committed is handled', async () => {
    subject = await start(client, kind);
    const kafka = new Kafka({ brokers: cluster.brokers, logLevel: logLevel.NOTHING });
    const producer = kafka.producer({
      transactionalId: randomUUID(),
      idempotent: true,
      maxInFlightRequests: 1,
    });
    await producer.connect();
    const topic = subject.struck;
    for (const outcome of ['abort', 'commit', 'abort'] as const) {
      const transaction = await producer.transaction();
      const messages = Array.from({ length: PARTITIONS }, (_, partition) => ({
        partition,
        value: valueOf(outcome),
      }));
      await transaction.send({ topic, messages });
      await transaction[outcome]();
    }
    await producer.disconnect();
    for (let partition = 0; partition < PARTITIONS; partition++)
      expect((await subject.ask(`behind ${partition}`, { partition })).error).toBeUndefined();
    const handled = await subject.handled();
    expect(handled.filter((name) => name === 'commit').length).toBe(PARTITIONS);
    expect(handled).not.toContain('abort');
    await subject.bystanderIsAnswered();
    expect(await subject.reason()).toBe('');
  });
});
