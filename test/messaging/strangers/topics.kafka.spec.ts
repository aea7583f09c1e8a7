import { jest } from '@jest/globals';
import { eventually } from '../../support/barrier.js';
import { duringTests } from '../../support/during-tests.js';
import { JavaClient } from '../../support/java-client.js';
import { brokers, connectPeer } from '../../support/kafka.js';
import {
  answeredInTime,
  BAD,
  CLIENTS,
  EACH_SUBJECT,
  PARTITIONS,
  ROW_MS,
  Subject,
  valueOf,
} from '../../support/strangers.js';

let subject: Subject;
jest.setTimeout(ROW_MS);
const peer = duringTests(() => connectPeer());
const java = duringTests(() => JavaClient.start(brokers()), 120_000);
afterEach(() => subject.close());

/** Whoever looks for a topic by way of a client may make it: this one asks for the list alone. */
const isThere = async (topic: string) => (await peer.admin.listTopics()).includes(topic);
const partitionsOf = async (topic: string) => {
  const { topics } = await peer.admin.fetchTopicMetadata({ topics: [topic] });
  return topics[0]!.partitions.length;
};
/** Resolves when it is gone, or somebody has made it again already. */
const deleteTopic = (topic: string) => peer.admin.deleteTopics({ topics: [topic] });

describe.each(EACH_SUBJECT)('%s, %s', (client, kind) => {
  it('a topic that is deleted is made again, and the others are answered meanwhile', async () => {
    subject = await Subject.start({ client, kind, peer });
    await subject.ask('before');
    await deleteTopic(subject.struck);
    await subject.bystanderIsAnswered();
    await eventually(() => isThere(subject.struck), 30_000);
    expect(await partitionsOf(subject.struck)).toBe(PARTITIONS);
    await subject.bystanderIsAnswered();
    for (let partition = 0; partition < PARTITIONS; partition++)
      expect((await subject.ask(`again in ${partition}`, { partition })).error).toBeUndefined();
    await subject.isWell();
  });

  it('a topic that was made anew is read from its beginning', async () => {
    subject = await Subject.start({ client, kind, peer });
    for (const name of ['one', 'two', 'three']) await subject.ask(name, { partition: 0 });
    await deleteTopic(subject.struck);
    // The application may be faster, which is as good.
    await peer.createTopics([subject.struck], PARTITIONS);
    await subject.bystanderIsAnswered();
    for (const name of ['four', 'five', 'six', 'seven'])
      expect((await subject.ask(name, { partition: 0 })).error).toBeUndefined();
    await subject.isWell();
  });

  it('partitions that are added are read', async () => {
    subject = await Subject.start({ client, kind, peer });
    const count = PARTITIONS + 2;
    await peer.admin.createPartitions({ topicPartitions: [{ topic: subject.struck, count }] });
    for (let partition = PARTITIONS; partition < count; partition++) {
      const { id, reply } = peer.awaitReply();
      const headers = { kafka_correlationId: id, kafka_replyTopic: peer.replyTopic };
      const value = valueOf(`in ${partition}`);
      await java.produce({ topic: subject.struck, partition, codec: 'none' }, { key: 'k', value, headers });
      const { error } = await answeredInTime(reply, `a request in the new partition ${partition}`);
      expect(error).toBeUndefined();
    }
    await subject.bystanderIsAnswered();
  });

  it('a dead letter topic that is deleted is made again, and gets its dead letters', async () => {
    subject = await Subject.start({ client, kind, peer });
    const deadLetters = `${subject.struck}-dlt`;
    await deleteTopic(deadLetters);
    await subject.emit({ key: 'bad', value: BAD });
    await subject.bystanderIsAnswered();
    expect((await subject.ask('behind', { partition: 0 })).error).toBeUndefined();
    await eventually(() => isThere(deadLetters), 30_000);
    const found: (string | undefined)[] = [];
    await peer.consume([deadLetters], ({ value }) => void found.push(value?.toString()));
    await eventually(() => found.includes(BAD));
  });
});

it.each(CLIENTS)(
  '%s: the topic of events that is deleted is made again, and gets its events',
  async (client) => {
    subject = await Subject.start({ client, kind: 'people', peer });
    await deleteTopic('people.events');
    expect((await subject.ask('Ada')).error).toBeUndefined();
    await subject.bystanderIsAnswered();
    await eventually(() => isThere('people.events'), 30_000);
    const found: string[] = [];
    await peer.consume(['people.events'], ({ value }) => void found.push(String(value)));
    await eventually(() => found.some((event) => event.includes('"Ada"')), 30_000);
  },
);
