import { brokerAnswer, BrokerAnswerError } from '../broker-answers.js';
import { OffsetOutOfRangeError, type StuckPartition } from '../../kafka-driver.js';
import type { TopicPartition } from '../../records/record.js';
import { UndecodableBatchError } from '../../records/batches.js';
import type { ClusterView } from '../protocol/topic-requests.js';
import { answerIn, topicError } from './cluster.js';

const AGAIN_MS = 500;
const AT_LEISURE_MS = 2_000;
/** So often a failure that passes by itself (a leader moves) may come in a row before it is told. */
const TOLD_FROM = 4;

/** A partition that is to be fetched, and what is known of it. */
export class FetchedPartitionState implements TopicPartition {
  readonly topic: string;
  readonly partition: number;
  /** The offset to be fetched next; undefined before anything was. */
  next: bigint | undefined;
  /** True while `next` is known to be there. */
  isPlaced = false;
  /** The group's offset when it was out of range. */
  lostAt: bigint | undefined;
  /** The offset behind a batch that can't be read: an operator may delete records up to there to go on. */
  unreadableTo: bigint | undefined;
  /** The node that it is fetched from. */
  leader: number | undefined;
  topicId: string | undefined;
  /** True while a request for it is under way. */
  isBusy = false;
  private failures = 0;
  private problem: { reason: Error; offset?: bigint } | undefined;
  /** When it is looked at again, on the clock of `performance`. */
  private notBefore = 0;

  constructor({ topic, partition }: TopicPartition) {
    this.topic = topic;
    this.partition = partition;
  }

  get isDue(): boolean {
    return performance.now() >= this.notBefore;
  }

  /** Ms until it is to be looked at again. */
  get waitMs(): number {
    return Math.max(0, this.notBefore - performance.now());
  }

  /** It can be fetched now. */
  get isReady(): boolean {
    return this.leader !== undefined && this.isPlaced && this.isDue;
  }

  /** Finds its leader in what the cluster says, or fails. */
  findLeader(view: ClusterView): 'topic-gone' | undefined {
    const about = `${this.topic}, partition ${this.partition}`;
    const topic = view.topics.get(this.topic);
    const leader = topic?.leaders[this.partition];
    this.leader = undefined;
    if (!topic) this.fails(topicError(about, this.topic, view));
    // A topic that was made anew has other records under the same offsets.
    else if (this.topicId !== undefined && topic.id !== this.topicId) {
      this.fails(new BrokerAnswerError(about, 'UNKNOWN_TOPIC_OR_PARTITION'));
      return 'topic-gone';
    } else if (leader === undefined) this.fails(new BrokerAnswerError(about, 'LEADER_NOT_AVAILABLE'));
    else [this.topicId, this.leader] = [topic.id, leader];
    return undefined;
  }

  /** It can't be read on for this reason, now; others can. */
  fails(reason: Error, offset?: bigint): void {
    this.failures++;
    if (reason instanceof UndecodableBatchError && reason.lastOffset !== undefined)
      this.unreadableTo = reason.lastOffset + 1n;
    this.problem = offset === undefined ? { reason } : { reason, offset };
    this.notBefore = performance.now() + (passes(reason) ? AGAIN_MS : AT_LEISURE_MS);
  }

  succeeds(): void {
    this.failures = 0;
    this.problem = this.unreadableTo = undefined;
    this.notBefore = 0;
  }

  /** True where no broker has said what is wrong: it could not be asked. */
  get isUnanswered(): boolean {
    return this.problem !== undefined && !isAnswered(this.problem.reason);
  }

  /** undefined where it is read, or may well be in a moment. */
  get stuck(): StuckPartition | undefined {
    if (!this.problem || (passes(this.problem.reason) && this.failures < TOLD_FROM)) return undefined;
    return { topic: this.topic, partition: this.partition, ...this.problem };
  }
}

/** Those that are not read on; none where no broker can be reached, which is told as a whole. */
export const stuckOf = (partitions: readonly FetchedPartitionState[]): StuckPartition[] =>
  partitions.every(({ isUnanswered }) => isUnanswered) ? [] : partitions.flatMap(({ stuck }) => stuck ?? []);

const isAnswered = (reason: Error): boolean =>
  reason instanceof OffsetOutOfRangeError ||
  reason instanceof UndecodableBatchError ||
  answerIn(reason) !== undefined;

/** True for what may be over in a moment: a broker that is away, a leader that is being elected. */
function passes(reason: Error): boolean {
  const answer = answerIn(reason);
  return !isAnswered(reason) || (answer !== undefined && brokerAnswer(answer) === 'again');
}
