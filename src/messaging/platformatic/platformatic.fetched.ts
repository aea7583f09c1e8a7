import type { Reader } from '@platformatic/kafka';
import { decompress } from '../codecs.js';
import type { IncomingRecord, RecordBatch, TopicPartition } from '../kafka-driver.js';
import { type BatchReading, readBatches } from '../record-batches.js';
import type { RecordLimits } from '../kafka-driver.js';

/** One partition of a Fetch answer. */
export interface FetchedPartition {
  partitionIndex: number;
  errorCode: number;
  abortedTransactions: { producerId: bigint; firstOffset: bigint }[];
  /** As the broker keeps them. */
  records: Buffer;
}

/** A Fetch answer, from version 13 on, whose records are not read yet. */
export interface FetchAnswer {
  errorCode: number;
  responses: { topicId: string; partitions: FetchedPartition[] }[];
}

/** Reads a Fetch answer but its records: the library would decode and decompress them all at once, without a bound. */
export function readFetchAnswer(_id: number, _apiKey: number, _version: number, reader: Reader): FetchAnswer {
  reader.readInt32();
  const errorCode = reader.readInt16();
  reader.readInt32();
  const responses = reader.readArray((topic) => ({
    topicId: topic.readUUID(),
    partitions: topic.readArray((part): FetchedPartition => {
      const [partitionIndex, partitionError] = [part.readInt32(), part.readInt16()];
      // The high watermark, the last stable offset and the first offset.
      part.skip(3 * 8);
      const abortedTransactions = part.readArray((aborted) => ({
        producerId: aborted.readInt64(),
        firstOffset: aborted.readInt64(),
      }));
      // The replica that is preferred.
      part.skip(4);
      const size = Math.max(0, part.readUnsignedVarInt() - 1);
      const records = part.buffer.slice(part.position, part.position + size);
      part.skip(size);
      return { partitionIndex, errorCode: partitionError, abortedTransactions, records };
    }),
  }));
  return { errorCode, responses };
}

/** For all partitions of one answer. */
export const readingOf = (limits: RecordLimits): BatchReading => ({
  ...{ limits, left: limits.batchBytes, decompress },
});

/**
 * The records from offset `from` on that no aborted transaction has written; undefined when nothing was fetched. The
 * library's own filter knows one aborted transaction of a producer per answer, and none whose end is in a later answer.
 */
export async function committedRecords(
  { topic, partition }: TopicPartition,
  from: bigint,
  { abortedTransactions, records: bytes }: Pick<FetchedPartition, 'abortedTransactions' | 'records'>,
  reading: BatchReading,
): Promise<RecordBatch | undefined> {
  const aborts = [...abortedTransactions].sort((a, b) => Number(a.firstOffset - b.firstOffset));
  const aborting = new Set<bigint>();
  const records: IncomingRecord[] = [];
  let nextOffset = from;
  for (const batch of await readBatches(bytes, reading)) {
    const { lastOffset, producerId, undecodable } = batch;
    if (undecodable) {
      if (nextOffset === from) throw undecodable.reason;
      break;
    }
    while (aborts[0] && aborts[0].firstOffset <= lastOffset) aborting.add(aborts.shift()!.producerId);
    if (lastOffset >= nextOffset) nextOffset = lastOffset + 1n;
    if (batch.isControl) {
      if (batch.isAbort) aborting.delete(producerId);
      continue;
    }
    if (batch.isTransactional && aborting.has(producerId)) continue;
    for (const record of batch.records) {
      // A broker gives whole batches, also when the offset asked for is in the middle of one.
      if (record.offset >= from) records.push({ topic, partition, ...record });
    }
  }
  return nextOffset === from ? undefined : { topic, partition, records, nextOffset };
}
