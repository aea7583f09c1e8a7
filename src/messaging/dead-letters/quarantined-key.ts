import { createHash } from 'node:crypto';
import type { IncomingRecord } from '../records/record.js';

/** A key whose messages are parked, as one consumer has it; messages without a key are one per partition. */
export interface QuarantinedKey {
  topic: string;
  /** In base64: SHA-256 of the key, or, where there is none, the partition as four bytes. */
  hash: string;
}

/** The key of a message. */
export function keyOf({ topic, partition, key }: IncomingRecord): QuarantinedKey {
  const hash = key === null ? Buffer.alloc(4) : createHash('sha256').update(key).digest();
  if (key === null) hash.writeInt32BE(partition);
  return { topic, hash: hash.toString('base64') };
}

/** For a Set or Map of keys. */
export const nameOf = ({ topic, hash }: QuarantinedKey) => `${topic} ${hash}`;
