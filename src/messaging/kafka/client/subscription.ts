import type { Logger } from '@nestjs/common';
import type { ConsumerSettings, StuckPartition } from '../../kafka-driver.js';
import { partitionKey, type TopicPartition } from '../../records/record.js';
import type { TopicView } from '../protocol/topic-requests.js';
import { type Cluster, topicError } from './cluster.js';

/** Where a topic as a whole is not read. */
const ALL_PARTITIONS = -1;

/** The topics that a member reads, by name and by pattern. Notices when they come, go, grow, or are made anew. */
export class Subscription {
  /** Their names, also of those that are missing. */
  topics: string[] = [];
  /**
   * Topics that are gone since partitions were assigned: what is committed for them would be of another topic, once one of this
   * name is made.
   */
  readonly gone = new Set<string>();
  /** Partitions of topics that were made anew, until something of them is committed: the offset is of the topic before. */
  readonly madeAnew = new Set<string>();
  /** True where a topic seems to be gone. */
  isSuspect = false;
  private seen = '';
  /** The id that each topic had when it was seen last. */
  private readonly ids = new Map<string, string>();

  constructor(
    private readonly cluster: Cluster,
    private readonly wanted: ConsumerSettings['topics'],
    private readonly logger: Logger,
  ) {}

  /** @returns whether the topics, or their partitions, are others than before, and the topics that are missing */
  async look(): Promise<{ isChanged: boolean; missing: StuckPartition[] }> {
    this.isSuspect = false;
    const named = this.wanted.filter((topic) => typeof topic === 'string');
    const patterns = this.wanted.filter((topic) => topic instanceof RegExp);
    const view = await this.cluster.view(patterns.length > 0 ? null : named);
    const { topics } = view;
    const matching = [...topics].filter(
      ([name, { isInternal }]) => !isInternal && patterns.some((pattern) => name.search(pattern) !== -1),
    );
    this.topics = [...new Set([...named, ...matching.map(([name]) => name)])].sort();
    const seen = JSON.stringify(
      this.topics.map((name) => [name, topics.get(name)?.id, topics.get(name)?.leaders.length]),
    );
    const isChanged = seen !== this.seen;
    this.seen = seen;
    for (const name of this.topics) this.see(name, topics.get(name));
    const absent = (topic: string) => topicError(`The topic ${topic}`, topic, view);
    const missing = named
      .filter((name) => !topics.has(name))
      .map((topic) => ({ topic, partition: ALL_PARTITIONS, reason: absent(topic) }));
    return { isChanged, missing };
  }

  /** It is deleted, or made anew. */
  suspect(topic: string): void {
    this.isSuspect = true;
    this.gone.add(topic);
  }

  /** Partitions of these topics, and others: another client that assigns may give each member partitions of all that it reads. */
  divide(
    partitions: readonly TopicPartition[],
    groupId: string,
  ): { own: TopicPartition[]; foreign: StuckPartition[] } {
    const isOwn = ({ topic }: TopicPartition) => this.topics.includes(topic);
    const reason = (topic: string) =>
      new Error(
        `The group ${groupId} has given ${topic} to this member, which does not read it, as another application in the group ` +
          'shares out its own topics. Give each application a group of its own.',
      );
    const others = partitions.filter((at) => !isOwn(at));
    const foreign = others.map(({ topic, partition }) => ({ topic, partition, reason: reason(topic) }));
    return { own: partitions.filter(isOwn), foreign };
  }

  private see(topic: string, view: TopicView | undefined): void {
    const before = this.ids.get(topic);
    if (view && view.id === before) this.gone.delete(topic);
    else if (before !== undefined) this.gone.add(topic);
    if (view?.id === undefined) return;
    const { id, leaders } = view;
    this.ids.set(topic, id);
    if (before === undefined || before === id) return;
    this.logger.warn({ msg: 'a topic was made anew; it is read from its first record on', topic });
    for (const partition of leaders.keys()) this.madeAnew.add(partitionKey({ topic, partition }));
  }
}
