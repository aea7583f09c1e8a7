import { RecordRefusedError } from '../kafka-driver.js';
import type { OutgoingRecord } from './record.js';

/** A broker closes the connection of a request with more than 100 MiB, and tells no reason. */
const MOST_BYTES = 64 * 1024 * 1024;

/** Bytes of its key and its value. */
export const recordBytes = ({ key, value }: OutgoingRecord): number =>
  Buffer.byteLength(key ?? '') + Buffer.byteLength(value ?? '');

/** @throws RecordRefusedError one of the records is larger than any broker takes, whatever its topic says */
export function refuseHuge(records: readonly OutgoingRecord[]): void {
  for (const record of records) {
    const { topic } = record;
    const bytes = recordBytes(record);
    if (bytes > MOST_BYTES)
      throw new RecordRefusedError(
        `A record for ${topic} has ${bytes} bytes; at most ${MOST_BYTES} are sent.`,
        true,
      );
  }
}
