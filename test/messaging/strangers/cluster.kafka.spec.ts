import { randomUUID } from 'node:crypto';
import { eventually } from '../../support/barrier.js';
import { KafkaPeer } from '../../support/kafka.js';
import { type KafkaCluster, startKafkaCluster, untilAllAre } from '../../support/kafka-cluster.js';
import { EACH_SUBJECT, Subject, valueOf } from '../../support/strangers.js';

const NODES = 3;

let cluster: KafkaCluster;
let peer: KafkaPeer;
let subject: Subject;
beforeAll(async () => {
  cluster = await startKafkaCluster({ nodes: NODES });
  peer = new KafkaPeer(cluster.brokers);
  await peer.connect();
}, 300_000);
afterEach(() => subject.close());
afterAll(async () => {
  await peer.close();
  await cluster.stop();
}, 60_000);

/** Sends without an end to it, until told; each message has an id, so that one that is sent again is none more. */
function sendOn(topic: string) {
  const sent: string[] = [];
  let isOver = false;
  const sending = (async () => {
    while (!isOver) {
      const name = `on-${sent.length}`;
      const message = { key: name, value: valueOf(name), headers: { 'message-id': randomUUID() } };
      const isWith = () => peer.emit(topic, message).then(() => true, () => false); // prettier-ignore
      await eventually(isWith, 60_000);
      sent.push(name);
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
    subject = await Subject.start({ client, kind, peer, brokers: cluster.brokers });
    const sender = sendOn(subject.struck);
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
    await eventually(async () => {
      const handled = new Set(await subject.handled());
      return sent.every((name) => handled.has(name));
    }, 60_000);
    if (kind === 'people') {
      const handled = (await subject.handled()).filter((name) => name.startsWith('on-'));
      expect(handled.length).toBe(sent.length);
    }
    await eventually(async () => (await subject.reason()) === '');
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
