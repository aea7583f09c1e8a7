import { type OutgoingRecord, PartlySentError, RecordRefusedError } from '../../kafka-driver.js';
import { pairsOf } from '../../records/limits.js';
import type { RecordToWrite } from '../../records/writer.js';

/** A batch has one partition's records, and is as large as a broker takes by default (1 MiB) only if one record is. */
const BATCH_BYTES = 512 * 1024;
/** More than what surrounds a key, value or header. */
const OVERHEAD_BYTES = 16;

interface QueuedRecord extends RecordToWrite {
  /** As it was given. */
  record: OutgoingRecord;
  bytes: number;
}

/** What is still to be sent to one partition, in order. */
export class PartitionQueue {
  records: QueuedRecord[] = [];
  /** Records in a batch; fewer after the broker found one too large. */
  atMost = Infinity;

  constructor(
    readonly topic: string,
    readonly partition: number,
  ) {}

  add(record: OutgoingRecord): void {
    const { key = null, value, headers, rawHeaders } = record;
    // One without a value is not sent.
    const pairs = rawHeaders ?? pairsOf(headers, []);
    const parts = [key, value, ...pairs.flat()];
    const bytes = parts.reduce((sum, part) => sum + Buffer.byteLength(part ?? '') + OVERHEAD_BYTES, 0);
    this.records.push({ record, key, value, headers: pairs, bytes });
  }

  /** The first of them, as many as make a batch. */
  nextBatch(): QueuedRecord[] {
    const batch: QueuedRecord[] = [];
    let bytes = 0;
    for (const record of this.records) {
      bytes += record.bytes;
      if (batch.length > 0 && (bytes > BATCH_BYTES || batch.length >= this.atMost)) break;
      batch.push(record);
    }
    return batch;
  }
}

/** The error, with what was acknowledged all the same. @param queues what is left */
export function inPart(
  error: Error,
  records: readonly OutgoingRecord[],
  queues: readonly PartitionQueue[] | undefined,
): Error {
  if (!queues) return error;
  const left = new Set(queues.flatMap((queue) => queue.records.map(({ record }) => record)));
  const acknowledged = records.filter((record) => !left.has(record));
  if (acknowledged.length === 0) return error;
  if (!(error instanceof RecordRefusedError))
    return new PartlySentError(error.message, acknowledged, { cause: error });
  const { message, isTooLarge, reason, cause } = error;
  return new RecordRefusedError(message, isTooLarge, { cause, reason, acknowledged });
}
