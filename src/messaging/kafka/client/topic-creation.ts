import { brokerErrorName } from '../protocol/error-names.js';
import type { TopicSettings } from '../../kafka-driver.js';
import { BrokerAnswerError } from '../broker-answers.js';
import { pause } from '../../waiting.js';
import { type Cluster, REQUEST_TIMEOUT_MS } from './cluster.js';
import { createTopics } from '../protocol/topic-requests.js';

const USUAL_REPLICATION = 3;
const VISIBLE_MS = 10_000;
const LOOK_AGAIN_MS = 50;

/**
 * Creates those of `topics` that are missing, each for itself.
 *
 * @throws BrokerAnswerError one was refused; the others are there
 * @throws Error the brokers can't be reached
 */
export async function createMissingTopics(
  cluster: Cluster,
  topics: readonly string[],
  settings: TopicSettings,
): Promise<void> {
  const { brokers, controllerId, topics: known, refused } = await cluster.view(topics);
  // A topic that this client may not see may be there.
  const isHidden = (name: string) => brokerErrorName(refused.get(name) ?? 0) === 'TOPIC_AUTHORIZATION_FAILED';
  const missing = [...new Set(topics)].filter((name) => !known.has(name));
  if (missing.length === 0) return;
  const controller = brokers.get(controllerId);
  if (!controller) throw new Error('The cluster has no controller at the moment.');
  const wanted = missing.filter((name) => !isHidden(name));
  const options = {
    partitions: settings.partitions,
    replication: settings.replication ?? Math.min(USUAL_REPLICATION, brokers.size),
    timeoutMs: REQUEST_TIMEOUT_MS,
  };
  // It may take its time; that is to be over when it is given up here.
  const timeoutMs = 2 * REQUEST_TIMEOUT_MS;
  const answers =
    wanted.length > 0 ? await cluster.call(controller, createTopics(wanted, options), { timeoutMs }) : [];
  const failed = answers.filter(
    ({ errorCode }) => errorCode !== 0 && brokerErrorName(errorCode) !== 'TOPIC_ALREADY_EXISTS',
  );
  await untilVisible(cluster, wanted.filter((name) => !failed.some(({ topic }) => topic === name))); // prettier-ignore
  const reasons = failed.map(({ topic, errorCode, message }) => ({ topic, answer: brokerErrorName(errorCode), message })); // prettier-ignore
  for (const topic of missing.filter(isHidden))
    reasons.push({ topic, answer: 'TOPIC_AUTHORIZATION_FAILED', message: null });
  if (reasons.length === 0) return;
  const about = reasons.map(({ topic, answer, message }) => `${topic}: ${message ?? answer}`).join('; ');
  throw new BrokerAnswerError(`Topics could not be created: ${about}`, reasons[0]!.answer);
}

/** The controller has created them; the brokers hear of it a little later. */
async function untilVisible(cluster: Cluster, topics: readonly string[]): Promise<void> {
  if (topics.length === 0) return;
  const deadline = AbortSignal.timeout(VISIBLE_MS);
  for (;;) {
    const { topics: known } = await cluster.view(topics);
    if (topics.every((name) => known.get(name)?.leaders.every((leader) => leader !== undefined))) return;
    if (deadline.aborted)
      throw new Error(`Created, and not to be seen in ${VISIBLE_MS} ms: ${topics.join()}`);
    await pause(LOOK_AGAIN_MS, deadline);
  }
}
