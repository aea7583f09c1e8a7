import { jest } from '@jest/globals';
import { eventually } from '../../support/barrier.js';
import { duringTests } from '../../support/during-tests.js';
import { type Codec, JavaClient } from '../../support/java-client.js';
import { brokers, connectPeer } from '../../support/kafka.js';
import { BREAKAGES, breakBatch, dataOfRun } from '../../support/kept-batches.js';
import { answeredInTime, EACH_SUBJECT, ROW_MS, Subject, valueOf } from '../../support/strangers.js';

const CODECS: Codec[] = ['gzip', 'snappy', 'lz4', 'zstd'];
/** Long enough that a codec has something to do, and short enough for a name. */
const NAME = 'Ada '.repeat(40).trim();
/** Where what can't be read is. */
const PLACE = { partition: 1, offset: 1 };
const OTHERS = [0, 2, 3];

let subject: Subject;
jest.setTimeout(ROW_MS);
const peer = duringTests(() => connectPeer());
const java = duringTests(() => JavaClient.start(brokers()), 120_000);
afterEach(() => subject.close());

it.each(EACH_SUBJECT.flatMap(([client, kind]) => CODECS.map((codec) => ({ client, kind, codec }))))(
  "$client, $kind: what Java's client compresses with $codec is handled",
  async ({ client, kind, codec }) => {
    subject = await Subject.start({ client, kind, peer });
    const { id, reply } = peer.awaitReply();
    const headers = { kafka_correlationId: id, kafka_replyTopic: peer.replyTopic };
    const place = { topic: subject.struck, partition: 0, codec };
    await java.produce(place, { key: 'compressed', value: valueOf(NAME), headers });
    await subject.bystanderIsAnswered();
    expect((await answeredInTime(reply, 'the request that is compressed')).error).toBeUndefined();
    expect(await subject.handled()).toContain(NAME);
    expect((await subject.ask('next', { partition: 0 })).error).toBeUndefined();
    expect(await subject.reason()).toBe('');
  },
);

const BROKEN = EACH_SUBJECT.flatMap(([client, kind]) =>
  Object.keys(BREAKAGES).map((what, index) => ({
    ...{ client, kind, what },
    heal: index === 0 ? 'deleted' : 'mended',
  })),
);

it.each(BROKEN)(
  '$client, $kind: a batch $what stops its partition, which goes on once it is $heal',
  async ({ client, kind, what, heal }) => {
    subject = await Subject.start({ client, kind, peer });
    const { partition, offset } = PLACE;
    const place = { topic: subject.struck, partition };
    await subject.ask('before', { partition });
    await subject.stop();
    await java.produce({ ...place, codec: 'gzip' }, { key: 'broken', value: valueOf(NAME) });
    await java.produce({ ...place, codec: 'none' }, { key: 'behind', value: valueOf('behind') });
    const mend = breakBatch({ data: dataOfRun(), ...place, offset }, BREAKAGES[what]!);
    await subject.startAgain();

    for (const other of OTHERS)
      expect((await subject.ask(`beside in ${other}`, { partition: other })).error).toBeUndefined();
    expect(await subject.handled()).not.toContain('behind');
    const where = [new RegExp(`partition ${partition}\\b`), new RegExp(`offset ${offset}\\b`)];
    await subject.isTold(subject.struck, ...where);
    expect(await subject.handled()).not.toContain('behind');
    await subject.bystanderIsAnswered();

    if (heal === 'mended') mend();
    else await deleteRecordsTo(subject.struck, partition, offset + 1);
    await subject.hasHandled('behind');
    expect((await subject.handled()).includes(NAME)).toBe(heal === 'mended');
    expect((await subject.ask('after', { partition })).error).toBeUndefined();
    await subject.isWell();
  },
);

/** As an operator does with a record that nobody can read. */
const deleteRecordsTo = (topic: string, partition: number, offset: number) =>
  // kafkajs asks the leader it believes in, and believes in none at first.
  eventually(() =>
    peer.admin
      .deleteTopicRecords({ topic, partitions: [{ partition, offset: String(offset) }] })
      .then(() => true, () => false),
  ); // prettier-ignore
