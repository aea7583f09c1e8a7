import { jest } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { type Consumer, Kafka, logLevel } from 'kafkajs';
import { eventually } from '../../support/barrier.js';
import { duringTests } from '../../support/during-tests.js';
import { JavaClient } from '../../support/java-client.js';
import { brokers, connectPeer } from '../../support/kafka.js';
import { NONE, sendRaw } from '../../support/raw-records.js';
import { CLIENTS, EACH_SUBJECT, PARTITIONS, ROW_MS, Subject, valueOf } from '../../support/strangers.js';

/** What a group takes to come to itself where a member has gone without a word. */
const SESSION_MS = 6000;

const subjects: Subject[] = [];
const leaving: (() => Promise<void>)[] = [];
jest.setTimeout(ROW_MS);
const peer = duringTests(() => connectPeer());
const java = duringTests(() => JavaClient.start(brokers()), 120_000);
afterEach(async () => {
  await Promise.all(leaving.splice(0).map((leave) => leave()));
  for (const subject of subjects.splice(0)) await subject.close();
});

const start = async (options: Omit<Parameters<typeof Subject.start>[0], 'peer'>, isServing = true) => {
  const subject = await Subject.start({ ...options, peer }, isServing);
  subjects.push(subject);
  return subject;
};
const newTopic = async () => {
  const topic = `theirs-${randomUUID()}`;
  await peer.createTopics([topic], PARTITIONS);
  return topic;
};
const sendTo = async (topic: string, names: string[]) => {
  for (const [index, name] of names.entries())
    await sendRaw(brokers(), topic, [{ key: name, value: valueOf(name) }], NONE, index % PARTITIONS);
};
const namesOf = (what: string) => Array.from({ length: 5 * PARTITIONS }, (_, index) => `${what}-${index}`);

/** Somebody in the same group. */
interface Other {
  /** Has been given partitions. */
  isIn: () => boolean;
  names: () => string[];
  leave: () => Promise<void>;
}

/** As a service that was written with kafkajs alone, whose leader deals out all partitions to all members. */
async function joinByKafkajs(groupId: string, topics: string[]): Promise<Other> {
  const kafka = new Kafka({ brokers: brokers(), logLevel: logLevel.NOTHING });
  const consumer: Consumer = kafka.consumer({ groupId, sessionTimeout: SESSION_MS, heartbeatInterval: 500, maxWaitTimeInMs: 100 }); // prettier-ignore
  const names: string[] = [];
  let isIn = false;
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    isIn = topics.some((topic) => (payload.memberAssignment[topic] ?? []).length > 0);
  });
  await consumer.connect();
  await consumer.subscribe({ topics, fromBeginning: true });
  await consumer.run({ eachMessage: async ({ message }) => void names.push(nameIn(message.value)) });
  return { isIn: () => isIn, names: () => names, leave: () => consumer.disconnect() };
}

const nameIn = (value: Buffer | string | null) => (JSON.parse(String(value)) as { name: string }).name;
const joinByJava =
  (settings: Record<string, string>) =>
  async (groupId: string, topics: string[]): Promise<Other> => {
    const member = java.join(topics, { 'group.id': groupId, ...settings });
    return {
      isIn: () => (member.assigned() ?? []).length > 0,
      names: () => member.records().map(({ value }) => nameIn(value)),
      leave: () => member.leave(),
    };
  };
const classic = {
  'partition.assignment.strategy': 'org.apache.kafka.clients.consumer.RoundRobinAssignor',
  'session.timeout.ms': String(SESSION_MS),
};
const MEMBERS: [string, (groupId: string, topics: string[]) => Promise<Other>][] = [
  ['kafkajs, with its own assigner', joinByKafkajs],
  ["Java's classic client", joinByJava(classic)],
  ['a static member', joinByJava({ ...classic, 'group.instance.id': 'static-1' })],
  ['a member on KIP-848', joinByJava({ 'group.protocol': 'consumer' })],
];

describe.each(EACH_SUBJECT)('%s, %s', (client, kind) => {
  it.each(MEMBERS)('beside %s of the same topic every message is handled by one of both', async (_, join) => {
    const subject = await start({ client, kind });
    const other = await join(subject.groupId, [subject.struck]);
    leaving.push(() => other.leave());
    await eventually(other.isIn, 40_000);
    await subject.bystanderIsAnswered();
    const names = namesOf('beside');
    await sendTo(subject.struck, names);
    await eventually(async () => {
      const all = new Set([...(await subject.handled()), ...other.names()]);
      return names.every((name) => all.has(name));
    }, 30_000);
    expect(other.names().length).toBeGreaterThan(0);
    await subject.bystanderIsAnswered();

    leaving.splice(0);
    await other.leave();
    for (let partition = 0; partition < PARTITIONS; partition++)
      expect((await subject.ask(`after in ${partition}`, { partition })).error).toBeUndefined();
    expect(await subject.reason()).toBe('');
  });

  it.each(MEMBERS)('beside %s of another topic each reads what it has asked for', async (_, join) => {
    const subject = await start({ client, kind });
    const theirs = await newTopic();
    const other = await join(subject.groupId, [theirs]);
    leaving.push(() => other.leave());
    await eventually(other.isIn, 40_000);
    const names = namesOf('theirs');
    await sendTo(theirs, names);
    await eventually(() => names.every((name) => other.names().includes(name)), 30_000);
    for (let partition = 0; partition < PARTITIONS; partition++)
      expect((await subject.ask(`ours in ${partition}`, { partition })).error).toBeUndefined();
    await subject.bystanderIsAnswered();
    expect(await subject.reason()).toBe('');
  });

  it('a member that is given what it has not asked for says so, and all is well once that ends', async () => {
    const groupId = `strangers-${randomUUID()}`;
    const theirs = await newTopic();
    // It was there first, so it deals out.
    const other = await joinByKafkajs(groupId, [theirs]);
    leaving.push(() => other.leave());
    await eventually(other.isIn, 40_000);
    const subject = await start({ client, kind, groupId }, false);
    await subject.isTold(theirs, groupId);
    leaving.splice(0);
    await other.leave();
    await subject.bystanderIsAnswered();
    for (let partition = 0; partition < PARTITIONS; partition++)
      expect((await subject.ask(`after in ${partition}`, { partition })).error).toBeUndefined();
    await subject.isWell();
  });
});

describe.each(CLIENTS.flatMap((one) => CLIENTS.map((two) => [one, two] as const)))(
  '%s and %s',
  (one, two) => {
    it('two applications of one group, each with topics of its own, have all of theirs read', async () => {
      const first = await start({ client: one, kind: 'host' });
      const second = await start({ client: two, kind: 'host', groupId: first.groupId });
      for (const subject of [first, second])
        for (let partition = 0; partition < PARTITIONS; partition++)
          expect((await subject.ask(`in ${partition}`, { partition })).error).toBeUndefined();
      await first.bystanderIsAnswered();
      await second.bystanderIsAnswered();
      await first.stop();
      await second.bystanderIsAnswered();
      expect(await second.reason()).toBe('');
    });
  },
);
