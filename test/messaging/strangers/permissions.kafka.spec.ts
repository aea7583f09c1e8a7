import { jest } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import type { Consumer } from 'kafkajs';
import { eventually } from '../../support/barrier.js';
import { duringTests } from '../../support/during-tests.js';
import { connectPeer } from '../../support/kafka.js';
import { startKafkaCluster } from '../../support/kafka-cluster.js';
import { Permissions } from '../../support/permissions.js';
import { BAD, CLIENTS, EACH_SUBJECT, PARTITIONS, ROW_MS, Subject, valueOf } from '../../support/strangers.js';

let permissions: Permissions;
let subject: Subject;
jest.setTimeout(ROW_MS);
const cluster = duringTests(() => startKafkaCluster(), 180_000);
const peer = duringTests(() => connectPeer(cluster.brokers));
beforeAll(async () => {
  permissions = new Permissions(peer.admin);
  await permissions.grantAll();
}, 180_000);
afterEach(async () => {
  await permissions.allow();
  await subject.close();
});

type Place = Pick<Parameters<typeof Subject.start>[0], 'client' | 'kind'>;
const start = (place: Place, isServing = true) =>
  Subject.start({ ...place, peer, brokers: cluster.saslBrokers, login: true }, isServing);

/** What comes to a topic, as text. */
async function listen(topic: string): Promise<{ values: string[]; consumer: Consumer }> {
  const values: string[] = [];
  return { values, consumer: await peer.consume([topic], ({ value }) => void values.push(String(value))) };
}

const lagOf = async ({ groupId, struck }: Subject) => {
  const [ends, [group]] = await Promise.all([
    peer.admin.fetchTopicOffsets(struck),
    peer.admin.fetchOffsets({ groupId, topics: [struck] }),
  ]);
  const done = new Map(group!.partitions.map(({ partition, offset }) => [partition, Number(offset)]));
  return ends.reduce(
    (lag, { partition, high }) => lag + Number(high) - Math.max(0, done.get(partition) ?? 0),
    0,
  );
};

describe.each(EACH_SUBJECT)('%s, %s', (client, kind) => {
  it.each(['WRITE', 'DESCRIBE'] as const)(
    'a reply topic without %s costs the replies that go there, and nothing else',
    async (operation) => {
      subject = await start({ client, kind });
      const closed = `closed-${randomUUID()}`;
      await peer.createTopics([closed]);
      await permissions.deny(operation, { topic: closed });
      const headers = [['kafka_correlationId', 'closed'], ['kafka_replyTopic', closed]] as const; // prettier-ignore
      await subject.emit({ key: 'k', value: valueOf('closed'), headers });
      await subject.bystanderIsAnswered();
      // The same key and partition, and what is sent at the same time.
      expect((await subject.ask('open', { key: 'k', partition: 0 })).error).toBeUndefined();
      expect(await subject.handled()).toContain('closed');
      // It is no message that keeps the offset where it is until retention makes a loss of what is behind.
      await eventually(async () => (await lagOf(subject)) === 0, 20_000);
      await permissions.allow();
      const { values } = await listen(closed);
      await subject.emit({ value: valueOf('granted'), headers });
      await eventually(() => values.some((value) => value.includes('granted')), 20_000);
    },
  );

  it.each(['READ', 'DESCRIBE'] as const)(
    'a topic without %s stops, is told, and is read once it is granted',
    async (operation) => {
      subject = await start({ client, kind });
      await subject.ask('before', { partition: 0 });
      await permissions.deny(operation, { topic: subject.struck });
      await subject.emit({ value: valueOf('denied') });
      await subject.bystanderIsAnswered();
      const reason = await subject.isTold(subject.struck, /grant|authoriz|allowed/i);
      expect(reason).not.toMatch(/reached/);
      await subject.bystanderIsAnswered();
      await permissions.allow();
      await subject.hasHandled('denied');
      expect((await subject.ask('after', { partition: 0 })).error).toBeUndefined();
      await subject.isWell();
    },
  );

  it('a topic that may not be read when it starts does not keep the others from being read', async () => {
    subject = await start({ client, kind });
    await subject.stop();
    await permissions.deny('READ', { topic: subject.struck });
    await subject.startAgain();
    await subject.bystanderIsAnswered();
    await subject.isTold(subject.struck);
    await permissions.allow();
    expect((await subject.ask('after', { partition: 0 })).error).toBeUndefined();
    await subject.isWell();
  });

  it('a dead letter topic without WRITE keeps its dead letters back until it is granted, and nothing else', async () => {
    subject = await start({ client, kind });
    const deadLetters = `${subject.struck}-dlt`;
    const events = kind === 'people' ? await listen('people.events') : undefined;
    await permissions.deny('WRITE', { topic: deadLetters });
    await subject.emit({ key: 'bad', value: BAD });
    const names = Array.from({ length: 12 }, (_, index) => `beside-${index}.`);
    for (const [index, name] of names.entries())
      expect((await subject.ask(name, { partition: index % PARTITIONS })).error).toBeUndefined();
    await subject.bystanderIsAnswered();
    await subject.isTold(deadLetters, /grant|authoriz|allowed/i);
    if (events) await eventually(() => names.every((name) => events.values.some((value) => value.includes(name))), 20_000); // prettier-ignore
    await permissions.allow();
    const { values } = await listen(deadLetters);
    await eventually(() => values.includes(BAD), 30_000);
    await subject.isWell();
    // What was acknowledged beside what was refused is not sent again.
    for (const name of names)
      expect(events?.values.filter((value) => value.includes(name)).length ?? 1).toBe(1);
  });

  it('a topic that is missing where none may be created is waited for alone', async () => {
    subject = await start({ client, kind });
    await subject.stop();
    await peer.admin.deleteTopics({ topics: [subject.struck] });
    await eventually(async () => !(await peer.admin.listTopics()).includes(subject.struck));
    await permissions.deny('CREATE', 'cluster');
    await permissions.deny('CREATE', { topic: subject.struck });
    await subject.startAgain();
    await subject.bystanderIsAnswered();
    const reason = await subject.isTold(subject.struck);
    expect(reason).not.toMatch(/reached/);
    await peer.createTopics([subject.struck], PARTITIONS);
    expect((await subject.ask('made', { partition: 0 })).error).toBeUndefined();
    await subject.isWell();
  });

  it('a topic that is deleted where none may be created is waited for alone', async () => {
    subject = await start({ client, kind });
    await subject.ask('before');
    await permissions.deny('CREATE', 'cluster');
    await permissions.deny('CREATE', { topic: subject.struck });
    await peer.admin.deleteTopics({ topics: [subject.struck] });
    await subject.bystanderIsAnswered();
    await subject.isTold(subject.struck);
    await subject.bystanderIsAnswered();
    await peer.createTopics([subject.struck], PARTITIONS);
    expect((await subject.ask('made', { partition: 0 })).error).toBeUndefined();
    await subject.isWell();
  });

  it('a group that may not be read is told as that, and is joined once it is granted', async () => {
    subject = await start({ client, kind });
    await subject.stop();
    await permissions.deny('READ', { group: subject.groupId });
    await subject.startAgain(false);
    const reason = await subject.isTold(/group/i, /grant|authoriz|allowed/i);
    expect(reason).not.toMatch(/reached/);
    await permissions.allow();
    await subject.bystanderIsAnswered();
    await subject.isWell();
  });
});

it.each(CLIENTS)(
  '%s: a topic of events without WRITE keeps its events back until it is granted',
  async (client) => {
    subject = await start({ client, kind: 'people' });
    const { values } = await listen('people.events');
    await permissions.deny('WRITE', { topic: 'people.events' });
    expect((await subject.ask('Ada')).error).toBeUndefined();
    await subject.emit({ key: 'bad', value: BAD });
    await subject.bystanderIsAnswered();
    // Dead letters are sent by the same relay.
    const letters = await listen(`${subject.struck}-dlt`);
    await eventually(() => letters.values.includes(BAD), 20_000);
    await subject.isTold('people.events', /grant|authoriz|allowed/i);
    await permissions.allow();
    await eventually(() => values.some((value) => value.includes('"Ada"')), 30_000);
    await subject.isWell();
  },
);
