import type { RecordsBatch } from '@platformatic/kafka';
import type { IncomingRecord, RecordBatch, RecordHeaders, TopicPartition } from '../kafka-driver.js';

/** Of `RecordsBatch.attributes`, and of the key of a control record. */
const IS_LOG_APPEND_TIME = 1 << 3;
const IS_TRANSACTIONAL = 1 << 4;
const IS_CONTROL = 1 << 5;
const ABORT = 0;

/** One partition of a Fetch answer. */
export interface FetchedPartition {
  abortedTransactions: { producerId: bigint; firstOffset: bigint }[];
  records?: RecordsBatch[];
}

/**
 * The records from offset `from` on that no aborted transaction has written; undefined when nothing was fetched. The
 * library's own filter knows one aborted transaction of a producer per answer, and none whose end is in a later answer.
 */
export function committedRecords(
  { topic, partition }: TopicPartition,
  from: bigint,
  { abortedTransactions, records: batches }: FetchedPartition,
): RecordBatch | undefined {
  const aborts = [...abortedTransactions].sort((a, b) => Number(a.firstOffset - b.firstOffset));
  const aborting = new Set<bigint>();
  const records: IncomingRecord[] = [];
  let nextOffset = from;
  for (const batch of batches ?? []) {
    const lastOffset = batch.firstOffset + BigInt(batch.lastOffsetDelta);
    while (aborts[0] && aborts[0].firstOffset <= lastOffset) aborting.add(aborts.shift()!.producerId);
    if (lastOffset >= nextOffset) nextOffset = lastOffset + 1n;
    if (batch.attributes & IS_CONTROL) {
      if (batch.records[0]?.key?.readInt16BE(2) === ABORT) aborting.delete(batch.producerId);
      continue;
    }
    if (batch.attributes & IS_TRANSACTIONAL && aborting.has(batch.producerId)) continue;
    for (const record of batch.records) {
      const offset = batch.firstOffset + BigInt(record.offsetDelta);
      // A broker gives whole batches, also when the offset asked for is in the middle of one.
      if (offset < from) continue;
      const timestamp =
        batch.attributes & IS_LOG_APPEND_TIME
          ? batch.maxTimestamp
          : batch.firstTimestamp + record.timestampDelta;
      const { key, value, headers } = record;
      records.push({
        topic,
        partition,
        offset,
        timestamp: String(timestamp),
        key,
        value,
        headers: toHeaders(headers),
      });
    }
  }
  return nextOffset === from ? undefined : { topic, partition, records, nextOffset };
}

function toHeaders(pairs: readonly (readonly [Buffer | null, Buffer | null])[]): RecordHeaders {
  // A header may have the name __proto__.
  const headers = Object.create(null) as RecordHeaders;
  for (const [name, bytes] of pairs) {
    const key = String(name ?? '');
    const value = bytes ?? undefined;
    const known = headers[key];
    if (!(key in headers)) headers[key] = value;
    else if (value !== undefined)
      headers[key] = [...(Array.isArray(known) ? known : known === undefined ? [] : [known]), value];
  }
  return headers;
}
