import { jest } from '@jest/globals';
import { eventually } from '../../support/barrier.js';
import { duringTests } from '../../support/during-tests.js';
import { connectPeer } from '../../support/kafka.js';
import { EACH_SUBJECT, ROW_MS, Subject, valueOf } from '../../support/strangers.js';

const PARTITION = 1;
const OTHERS = [0, 2, 3];

let subject: Subject;
jest.setTimeout(ROW_MS);
const peer = duringTests(() => connectPeer());
afterEach(() => subject.close());

const emit = (name: string) => subject.emit({ value: valueOf(name) }, PARTITION);
/** While nobody is in the group. */
const setOffset = (offset: number) =>
  eventually(() =>
    peer.admin
      .setOffsets({
        groupId: subject.groupId,
        topic: subject.struck,
        partitions: [{ partition: PARTITION, offset: String(offset) }],
      })
      .then(() => true, () => false),
  ); // prettier-ignore
const deleteRecordsTo = (offset: number) =>
  eventually(() =>
    peer.admin
      .deleteTopicRecords({ topic: subject.struck, partitions: [{ partition: PARTITION, offset: String(offset) }] })
      .then(() => true, () => false),
  ); // prettier-ignore

/** The partition is not read, it is said which and what can be done, and the others are read. */
async function standsAlone(): Promise<void> {
  for (const partition of OTHERS)
    expect((await subject.ask(`beside in ${partition}`, { partition })).error).toBeUndefined();
  const partition = new RegExp(`partition ${PARTITION}\\b`);
  // The option of a host, or the variable of the service.
  await subject.isTold(subject.struck, partition, /onOffsetOutOfRange|KAFKA_[A-Z_]*OFFSET/);
  await subject.bystanderIsAnswered();
}

describe.each(EACH_SUBJECT)('%s, %s', (client, kind) => {
  it('what was deleted before it was read stops its partition until the offset is set', async () => {
    subject = await Subject.start({ client, kind, peer });
    await subject.ask('before', { partition: PARTITION });
    await subject.stop();
    for (const name of ['one', 'two', 'three', 'four']) await emit(name);
    await deleteRecordsTo(4);
    await subject.startAgain();
    await standsAlone();
    expect(await subject.handled()).not.toContain('four');
    await subject.stop();
    await setOffset(4);
    await subject.startAgain();
    await subject.hasHandled('four');
    expect((await subject.ask('after', { partition: PARTITION })).error).toBeUndefined();
    expect(await subject.reason()).toBe('');
  });

  it('an offset that is not there yet stops its partition until it is', async () => {
    subject = await Subject.start({ client, kind, peer });
    await subject.ask('before', { partition: PARTITION });
    await subject.stop();
    await setOffset(3);
    await subject.startAgain();
    await standsAlone();
    for (const name of ['one', 'two', 'three']) await emit(name);
    await subject.hasHandled('three');
    expect((await subject.ask('after', { partition: PARTITION })).error).toBeUndefined();
    await subject.isWell();
    expect(await subject.handled()).not.toContain('one');
  });

  it('records that are deleted while they wait stop their partition, and no other', async () => {
    subject = await Subject.start({ client, kind, peer });
    // Nothing of it is read yet, and nothing committed.
    await subject.stop();
    for (const name of ['one', 'two', 'three']) await emit(name);
    await deleteRecordsTo(2);
    await subject.startAgain();
    // A group that has committed nothing begins with the first record there is.
    await subject.hasHandled('three');
    expect(await subject.handled()).not.toContain('two');
    await subject.bystanderIsAnswered();
    expect(await subject.reason()).toBe('');
  });
});
