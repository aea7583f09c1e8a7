import type { BrokerAddress } from '../broker-connections.js';
import type { TopicPartition } from '../../records/record.js';
import { type AnswerReader, RequestWriter } from './wire-format.js';

/** A request to a broker, and how its answer is read. Versions are the newest that brokers since Kafka 2.3 have and 4 still has. */
export interface ApiRequest<Answer> {
  /** As Kafka calls it. */
  name: string;
  apiKey: number;
  apiVersion: number;
  isFlexible: boolean;
  body: Buffer;
  read: (answer: AnswerReader) => Answer;
}

export interface TopicView {
  /** As hexadecimal digits; undefined where the broker has none yet (before Kafka 2.8). */
  id: string | undefined;
  isInternal: boolean;
  /** The node that leads each partition; undefined while there is none. */
  leaders: (number | undefined)[];
}

/** What a client knows of the cluster for some topics. */
export interface ClusterView {
  brokers: Map<number, BrokerAddress>;
  controllerId: number;
  /** Topics that exist. */
  topics: Map<string, TopicView>;
  /** The error's code, of the topics asked for that can't be used. */
  refused: Map<string, number>;
}

/** Partitions by the node that leads them; those that have no leader at the moment are left out. */
export function byLeader<At extends TopicPartition>(
  partitions: readonly At[],
  { topics }: ClusterView,
): Map<number, At[]> {
  const leaders = new Map<number, At[]>();
  for (const at of partitions) {
    const leader = topics.get(at.topic)?.leaders[at.partition];
    if (leader === undefined) continue;
    const own = leaders.get(leader);
    if (own) own.push(at);
    else leaders.set(leader, [at]);
  }
  return leaders;
}

/** Versions that a broker has of an API, by its key. */
export type ApiVersions = ReadonlyMap<number, { min: number; max: number }>;

export const METADATA = 3;
/** From this version on topics have ids. */
export const METADATA_WITH_IDS = 12;

export const apiVersions = (): ApiRequest<ApiVersions> => ({
  ...{ name: 'ApiVersions', apiKey: 18, apiVersion: 0, isFlexible: false, body: Buffer.alloc(0) },
  read: (answer) => {
    answer.int16();
    return new Map(
      answer.array(() => [answer.int16(), { min: answer.int16(), max: answer.int16() }] as const),
    );
  },
});

/** @param topics null = all of them */
export function metadata(topics: readonly string[] | null, hasIds: boolean): ApiRequest<ClusterView> {
  const writer = new RequestWriter();
  if (!hasIds) {
    writer.array(topics, (name) => writer.text(name)).bool(false);
    return {
      ...{ name: 'Metadata', apiKey: METADATA, apiVersion: 5, isFlexible: false, body: writer.bytes },
      read: (answer) => readMetadata(answer, plain),
    };
  }
  writer
    .compactArray(topics, (name) => writer.uuid(NO_ID).compactText(name).noTags())
    .bool(false)
    .bool(false)
    .noTags();
  return {
    ...{ name: 'Metadata', apiKey: METADATA, apiVersion: METADATA_WITH_IDS, isFlexible: true, body: writer.bytes }, // prettier-ignore
    read: (answer) => readMetadata(answer, flexible),
  };
}

const NO_ID = '0'.repeat(32);

/** What differs between a version with tagged fields and one without. */
interface Style {
  array: <T>(answer: AnswerReader, item: () => T) => T[];
  text: (answer: AnswerReader) => string;
  tags: (answer: AnswerReader) => void;
  hasIds: boolean;
}
const plain: Style = {
  array: (answer, item) => answer.array(item),
  text: (answer) => answer.nullableText() ?? '',
  tags: () => undefined,
  hasIds: false,
};
const flexible: Style = {
  array: (answer, item) => answer.compactArray(item),
  text: (answer) => answer.compactText(),
  tags: (answer) => answer.skipTags(),
  hasIds: true,
};

function readMetadata(answer: AnswerReader, { array, text, tags, hasIds }: Style): ClusterView {
  answer.int32();
  const brokers = new Map(
    array(answer, () => {
      const [nodeId, host, port] = [answer.int32(), text(answer), answer.int32()];
      text(answer);
      tags(answer);
      return [nodeId, { host, port }] as const;
    }),
  );
  text(answer);
  const controllerId = answer.int32();
  const view: ClusterView = { brokers, controllerId, topics: new Map(), refused: new Map() };
  array(answer, () => {
    const [errorCode, name] = [answer.int16(), text(answer)];
    const id = hasIds ? answer.uuid() : undefined;
    const isInternal = answer.bool();
    const leaders: (number | undefined)[] = [];
    array(answer, () => {
      answer.int16();
      const [partition, leader] = [answer.int32(), answer.int32()];
      if (hasIds) answer.int32();
      for (let lists = 0; lists < 3; lists++) array(answer, () => answer.int32());
      tags(answer);
      leaders[partition] = brokers.has(leader) ? leader : undefined;
    });
    if (hasIds) answer.int32();
    tags(answer);
    if (errorCode !== 0) view.refused.set(name, errorCode);
    else view.topics.set(name, { id, isInternal, leaders: Array.from(leaders) });
  });
  return view;
}

/** Of one topic that was to be created. */
export interface CreatedTopic {
  topic: string;
  errorCode: number;
  message: string | null;
}

export function createTopics(
  topics: readonly string[],
  { partitions, replication, timeoutMs }: { partitions: number; replication: number; timeoutMs: number },
): ApiRequest<CreatedTopic[]> {
  const writer = new RequestWriter();
  writer
    .array(topics, (name) => writer.text(name).int32(partitions).int16(replication).int32(0).int32(0))
    .int32(timeoutMs)
    .bool(false);
  return {
    ...{ name: 'CreateTopics', apiKey: 19, apiVersion: 3, isFlexible: false, body: writer.bytes },
    read: (answer) => {
      answer.int32();
      return answer.array(() => ({
        topic: answer.text(),
        errorCode: answer.int16(),
        message: answer.nullableText(),
      }));
    },
  };
}

/** Of one partition. */
export interface ListedOffset {
  topic: string;
  partition: number;
  errorCode: number;
  offset: bigint;
}

/** @param timestamp -2 = the first record there is, -1 = the next one to be written */
export function listOffsets(
  topics: ReadonlyMap<string, readonly number[]>,
  timestamp: bigint,
): ApiRequest<ListedOffset[]> {
  const writer = new RequestWriter();
  writer
    .int32(-1)
    .int8(0)
    .array([...topics], ([name, partitions]) =>
      writer.text(name).array(partitions, (partition) => writer.int32(partition).int64(timestamp)),
    );
  return {
    ...{ name: 'ListOffsets', apiKey: 2, apiVersion: 2, isFlexible: false, body: writer.bytes },
    read: (answer) => {
      answer.int32();
      return answer
        .array(() => {
          const topic = answer.text();
          return answer.array(() => {
            const [partition, errorCode] = [answer.int32(), answer.int16()];
            answer.int64();
            return { topic, partition, errorCode, offset: answer.int64() };
          });
        })
        .flat();
    },
  };
}
