import { jest } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../../support/barrier.js';
import { duringTests } from '../../support/during-tests.js';
import { connectPeer } from '../../support/kafka.js';
import { startKafkaCluster, untilAllAre } from '../../support/kafka-cluster.js';
import { ReplyReader } from '../../support/reply-reader.js';
import { EACH_SUBJECT, PARTITIONS, ROW_MS, Subject, valueOf } from '../../support/strangers.js';

const NODES = 3;
/** The session of a member, and that of the node that is gone, at the most. */
const ANSWER_MS = 30_000;
/** Between two messages: all of them are to be handled in the end. */
const PACE_MS = 20;

let subject: Subject;
jest.setTimeout(ROW_MS);
const cluster = duringTests(() => startKafkaCluster({ nodes: NODES }), 300_000);
const peer = duringTests(() => connectPeer(cluster.brokers));
const replies = duringTests(async () => {
  const reader = new ReplyReader(peer);
  await reader.open();
  return reader;
});
afterEach(() => subject.close());

/** Sends without an end to it, until told; each message has an id, so that one that is sent again is none more. */
function sendOn() {
  const sent: string[] = [];
  let isOver = false;
  const sending = (async () => {
    while (!isOver) {
      const name = `on-${sent.length}`;
      const message = { key: name, value: valueOf(name), headers: [['message-id', randomUUID()]] as const };
      await subject.emit(message, sent.length % PARTITIONS);
      sent.push(name);
      await sleep(PACE_MS);
    }
  })();
  return {
    stop: async () => {
      isOver = true;
      await sending;
      return sent;
    },
  };
}

it.each(EACH_SUBJECT)(
  '%s, %s: each of three nodes is away for a while, and nothing is lost or done twice',
  async (client, kind) => {
    subject = await Subject.start({
      client,
      kind,
      peer: replies,
      brokers: cluster.brokers,
      answerMs: ANSWER_MS,
    });
    const sender = sendOn();
    for (let node = 0; node < NODES; node++) {
      await cluster.stopNode(node);
      // Asked, and answered, while it is away.
      await subject.bystanderIsAnswered();
      await cluster.startNode(node);
      await untilAllAre(cluster.brokers);
      await eventually(() => isInSync(subject.struck), 60_000);
      await subject.bystanderIsAnswered();
    }
    const sent = await sender.stop();
    await subject.hasHandled(...sent);
    if (kind === 'people') {
      const handled = (await subject.handled()).filter((name) => name.startsWith('on-'));
      expect(handled.length).toBe(sent.length);
    }
    await subject.isWell();
  },
  300_000,
);

/** The next node may go without taking the last copy along. */
async function isInSync(topic: string): Promise<boolean> {
  const { topics } = await peer.admin.fetchTopicMetadata({ topics: [topic, '__consumer_offsets'] });
  return topics.every(({ partitions }) =>
    partitions.every(({ isr, leader }) => isr.length === NODES && leader >= 0),
  );
}
