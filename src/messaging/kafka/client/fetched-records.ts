import type { IncomingRecord, RecordBatch, TopicPartition } from '../../records/record.js';
import { type BatchReading, readBatches, type UndecodableBatchError } from '../../records/batches.js';
import type { FetchedPartition } from '../protocol/record-requests.js';

/** What was fetched of a partition. */
export interface FetchedRecords {
  /** undefined when nothing was. */
  batch: RecordBatch | undefined;
  /** The batch behind it can't be decoded, and nothing behind that is read. */
  undecodable: UndecodableBatchError | undefined;
}

/** The records from offset `from` on that no aborted transaction has written. */
export async function committedRecords(
  { topic, partition }: TopicPartition,
  from: bigint,
  { abortedTransactions, records: bytes }: Pick<FetchedPartition, 'abortedTransactions' | 'records'>,
  reading: BatchReading,
): Promise<FetchedRecords> {
  const aborts = [...abortedTransactions].sort((a, b) => Number(a.firstOffset - b.firstOffset));
  const aborting = new Set<bigint>();
  const records: IncomingRecord[] = [];
  let undecodable: UndecodableBatchError | undefined;
  let nextOffset = from;
  for (const batch of await readBatches(bytes, reading)) {
    const { lastOffset, producerId } = batch;
    while (aborts[0] && aborts[0].firstOffset <= lastOffset) aborting.add(aborts.shift()!.producerId);
    const isAborted = batch.isTransactional && !batch.isControl && aborting.has(producerId);
    if (batch.undecodable && !isAborted) {
      undecodable = batch.undecodable;
      break;
    }
    if (lastOffset >= nextOffset) nextOffset = lastOffset + 1n;
    if (batch.isControl) {
      if (batch.isAbort) aborting.delete(producerId);
      continue;
    }
    if (isAborted) continue;
    for (const record of batch.records) {
      // A broker gives whole batches, also when the offset asked for is in the middle of one.
      if (record.offset >= from) records.push({ topic, partition, ...record });
    }
  }
  const batch = nextOffset === from ? undefined : { topic, partition, records, nextOffset };
  return { batch, undecodable };
}
