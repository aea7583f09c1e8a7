import { jest } from '@jest/globals';
import { randomBytes, randomUUID } from 'node:crypto';
import { eventually } from '../../support/barrier.js';
import { duringTests } from '../../support/during-tests.js';
import { broker, connectPeer, type Reply } from '../../support/kafka.js';
import { readRaw } from '../../support/raw-reader.js';
import { answeredInTime, CLIENTS, EACH_SUBJECT, ROW_MS, Subject, valueOf } from '../../support/strangers.js';

let subject: Subject;
jest.setTimeout(ROW_MS);
const peer = duringTests(() => connectPeer());
afterEach(() => subject.close());

const int32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};
const newTopic = async (partitions: number) => {
  const topic = `answers-${randomUUID()}`;
  await peer.createTopics([topic], partitions);
  return topic;
};
const request = (name: string, headers: Record<string, Buffer | string>) =>
  subject.emit({ key: 'k', value: valueOf(name), headers: Object.entries(headers) });
/** Correlation ids of the replies in a partition, as hex. */
const repliesIn = async (topic: string, partition: number) =>
  (await readRaw(broker(), topic, partition)).map(({ headers }) =>
    headers.find(([name]) => name.toString() === 'kafka_correlationId')?.[1]?.toString('hex'),
  );
const isRepliedTo = (topic: string, partition: number, id: Buffer) =>
  eventually(async () => (await repliesIn(topic, partition)).includes(id.toString('hex')), 20_000);
const othersAreAnswered = async () => {
  await subject.bystanderIsAnswered();
  expect((await subject.ask('behind', { key: 'k', partition: 0 })).error).toBeUndefined();
};

describe.each(EACH_SUBJECT)('%s, %s', (client, kind) => {
  it.each([
    ['as text', (partition: number) => String(partition)],
    ["as Spring's four bytes", int32],
  ])('a partition %s, and a correlation id of any bytes, are where the reply goes', async (_, written) => {
    subject = await Subject.start({ client, kind, peer });
    const topic = await newTopic(3);
    for (const partition of [0, 2]) {
      const id = randomBytes(16);
      await request(`to ${partition}`, {
        kafka_correlationId: id,
        kafka_replyTopic: topic,
        kafka_replyPartition: written(partition),
      });
      await isRepliedTo(topic, partition, id);
    }
    await othersAreAnswered();
  });

  it('a reply to a partition that does not exist goes to another of its topic', async () => {
    subject = await Subject.start({ client, kind, peer });
    const [topic, id] = [await newTopic(1), randomBytes(16)];
    const address = { kafka_correlationId: id, kafka_replyTopic: topic, kafka_replyPartition: '99' };
    await request('too far', address);
    await isRepliedTo(topic, 0, id);
    await othersAreAnswered();
  });

  it('a reply to a partition that was added meanwhile goes there', async () => {
    subject = await Subject.start({ client, kind, peer });
    const [topic, first, second] = [await newTopic(1), randomBytes(16), randomBytes(16)];
    await request('before', {
      kafka_correlationId: first,
      kafka_replyTopic: topic,
      kafka_replyPartition: '0',
    });
    await isRepliedTo(topic, 0, first);
    await peer.admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] });
    await eventually(() => readRaw(broker(), topic, 2).then(() => true, () => false)); // prettier-ignore
    await request('added', {
      kafka_correlationId: second,
      kafka_replyTopic: topic,
      kafka_replyPartition: '2',
    });
    await isRepliedTo(topic, 2, second);
    await othersAreAnswered();
  });

  it('a reply to a topic that does not exist is given up, and nothing waits for it', async () => {
    subject = await Subject.start({ client, kind, peer });
    await request('nowhere', { kafka_correlationId: 'x', kafka_replyTopic: `missing-${randomUUID()}` });
    await othersAreAnswered();
    expect(await subject.handled()).toContain('nowhere');
    await eventually(async () => (await committedIn(subject, 0)) >= 2, 20_000);
  });

  it('a reply to a topic that was deleted and made again arrives', async () => {
    subject = await Subject.start({ client, kind, peer });
    const [topic, first, second] = [await newTopic(1), randomBytes(16), randomBytes(16)];
    await request('before', { kafka_correlationId: first, kafka_replyTopic: topic });
    await isRepliedTo(topic, 0, first);
    await peer.admin.deleteTopics({ topics: [topic] });
    await eventually(async () => !(await peer.admin.listTopics()).includes(topic));
    await request('away', { kafka_correlationId: first, kafka_replyTopic: topic });
    await othersAreAnswered();
    await peer.createTopics([topic]);
    await request('again', { kafka_correlationId: second, kafka_replyTopic: topic });
    await isRepliedTo(topic, 0, second);
  });

  it('a reply that is larger than its topic takes becomes an error reply', async () => {
    subject = await Subject.start({ client, kind, peer });
    const topic = `small-${randomUUID()}`;
    const configEntries = [{ name: 'max.message.bytes', value: '1000' }];
    await peer.admin.createTopics({
      topics: [{ topic, numPartitions: 1, configEntries }],
      waitForLeaders: false,
    });
    await peer.createTopics([topic]);
    const text = 'x'.repeat(3000);
    const value = JSON.stringify(kind === 'host' ? { name: text } : { name: 'large', data: { text } });
    const headers = { kafka_correlationId: 'large', kafka_replyTopic: topic };
    await subject.emit({ key: 'k', value, headers: Object.entries(headers) });
    const codes: (string | undefined)[] = [];
    await peer.consume([topic], ({ headers }) => {
      const error = headers?.['kafka_nest-err'];
      codes.push(error && (JSON.parse(String(error)) as { code: string }).code);
    });
    await eventually(() => codes.length > 0, 20_000);
    expect(codes).toEqual(['REPLY_TOO_LARGE']);
    await othersAreAnswered();
  });
});

it.each(CLIENTS)('%s: people that are more than a record takes are answered all the same', async (client) => {
  subject = await Subject.start({ client, kind: 'people', peer });
  await subject.database.query(
    `INSERT INTO people (name, data) SELECT 'Big', jsonb_build_object('text', repeat('x', 12000)) FROM generate_series(1, 100)`,
  );
  const { error, value }: Reply = await answeredInTime(
    peer.ask('people.find-by-name', valueOf('Big')),
    'people of a name, in all 1.2 MB',
  );
  if (error)
    expect(error).toMatchObject({ code: 'REPLY_TOO_LARGE', message: expect.stringMatching(/limit/) });
  else expect(value).toContain('Big');
  await othersAreAnswered();
});

async function committedIn({ groupId, struck }: Subject, partition: number): Promise<number> {
  const [group] = await peer.admin.fetchOffsets({ groupId, topics: [struck] });
  return Number(group!.partitions.find((one) => one.partition === partition)?.offset ?? -1);
}
