import type { ApiRequest } from './topic-requests.js';
import { type AnswerReader, RequestWriter } from './wire-format.js';

export const FETCH = 1;
/** From this version on topics are named by their ids, so that one that was made anew is none of them. */
export const FETCH_BY_ID = 13;
const READ_COMMITTED = 1;
const NONE = -1;
const NO_OFFSET = -1n;

/** A partition that is asked for. */
export interface WantedPartition {
  topic: string;
  /** Needed by `FETCH_BY_ID`. */
  topicId: string | undefined;
  partition: number;
  /** The offset of the first record wanted. */
  next: bigint;
}

/** One partition of the answer. */
export interface FetchedPartition {
  /** Its name, or its id where it was asked for by that. */
  topic: string;
  partition: number;
  errorCode: number;
  abortedTransactions: { producerId: bigint; firstOffset: bigint }[];
  /** As the broker keeps them. */
  records: Buffer;
}

export interface FetchAnswer {
  errorCode: number;
  partitions: FetchedPartition[];
}

export interface FetchBounds {
  waitMs: number;
  bytes: number;
  partitionBytes: number;
}

export function fetchRecords(
  wanted: readonly WantedPartition[],
  { waitMs, bytes, partitionBytes }: FetchBounds,
  byId: boolean,
): ApiRequest<FetchAnswer> {
  const writer = new RequestWriter();
  writer.int32(NONE).int32(waitMs).int32(1).int32(bytes).int8(READ_COMMITTED);
  // No session: what is wanted changes with each request.
  writer.int32(0).int32(NONE);
  if (byId)
    writer
      .compactArray(wanted, ({ topicId, partition, next }) =>
        writer
          .uuid(topicId!)
          .compactArray([partition], () => {
            writer.int32(partition).int32(NONE).int64(next).int32(NONE).int64(NO_OFFSET);
            return writer.int32(partitionBytes).noTags();
          })
          .noTags(),
      )
      .compactArray([], () => undefined)
      .compactText('')
      .noTags();
  else
    writer
      .array(wanted, ({ topic, partition, next }) =>
        writer.text(topic).array([partition], () => {
          writer.int32(partition).int32(NONE).int64(next).int64(NO_OFFSET);
          return writer.int32(partitionBytes);
        }),
      )
      .int32(0)
      .text('');
  return {
    ...{ name: 'Fetch', apiKey: FETCH, apiVersion: byId ? FETCH_BY_ID : 11, isFlexible: byId },
    body: writer.bytes,
    read: (answer) => {
      answer.int32();
      const errorCode = answer.int16();
      answer.int32();
      return { errorCode, partitions: (byId ? readById(answer) : readByName(answer)).flat() };
    },
  };
}

const readByName = (answer: AnswerReader): FetchedPartition[][] =>
  answer.array(() => {
    const topic = answer.text();
    return answer.array(() => {
      const head = partitionHead(answer);
      const abortedTransactions = answer.array(() => abortedBy(answer));
      answer.int32();
      return { topic, ...head, abortedTransactions, records: answer.blob() };
    });
  });

const readById = (answer: AnswerReader): FetchedPartition[][] =>
  answer.compactArray(() => {
    const topic = answer.uuid();
    const partitions = answer.compactArray(() => {
      const head = partitionHead(answer);
      const abortedTransactions = answer.compactArray(() => {
        const aborted = abortedBy(answer);
        answer.skipTags();
        return aborted;
      });
      answer.int32();
      const records = answer.compactBlob();
      answer.skipTags();
      return { topic, ...head, abortedTransactions, records };
    });
    answer.skipTags();
    return partitions;
  });

function partitionHead(answer: AnswerReader): { partition: number; errorCode: number } {
  const head = { partition: answer.int32(), errorCode: answer.int16() };
  // The high watermark, the last stable offset and the first offset.
  answer.take(3 * 8);
  return head;
}

const abortedBy = (answer: AnswerReader) => ({ producerId: answer.int64(), firstOffset: answer.int64() });

/** A batch of records for one partition, as it is kept. */
export interface OutgoingBatch {
  topic: string;
  partition: number;
  records: Buffer;
}

/** What became of one partition's batch. */
export interface ProducedBatch {
  topic: string;
  partition: number;
  errorCode: number;
}

/** Acknowledged once all in-sync replicas have it. */
export function produce(batches: readonly OutgoingBatch[], timeoutMs: number): ApiRequest<ProducedBatch[]> {
  const ALL_IN_SYNC = -1;
  const topics = new Map<string, OutgoingBatch[]>();
  for (const batch of batches) topics.set(batch.topic, [...(topics.get(batch.topic) ?? []), batch]);
  const writer = new RequestWriter();
  writer
    .text(null)
    .int16(ALL_IN_SYNC)
    .int32(timeoutMs)
    .array([...topics], ([topic, own]) =>
      writer.text(topic).array(own, ({ partition, records }) => writer.int32(partition).blob(records)),
    );
  return {
    ...{ name: 'Produce', apiKey: 0, apiVersion: 7, isFlexible: false, body: writer.bytes },
    read: (answer) =>
      answer
        .array(() => {
          const topic = answer.text();
          return answer.array(() => {
            const [partition, errorCode] = [answer.int32(), answer.int16()];
            // The first offset, the time of the append and the first offset of the log.
            answer.take(3 * 8);
            return { topic, partition, errorCode };
          });
        })
        .flat(),
  };
}
