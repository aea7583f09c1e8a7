const SEED = 0x9747b28c;
const MIX = 0x5bd1e995;

/**
 * The partition that Java's client puts a key into: murmur2, in 32-bit arithmetic. Those of the client libraries give the same,
 * and multiply ever larger numbers, so that a key of 900 kB holds the process for minutes.
 */
export const partitionOfKey = (key: Buffer, partitions: number): number =>
  (murmur2(key) & 0x7fff_ffff) % partitions;

function murmur2(data: Buffer): number {
  const { length } = data;
  let hash = SEED ^ length;
  let at = 0;
  for (; at + 4 <= length; at += 4) {
    const block = Math.imul(data.readInt32LE(at), MIX);
    hash = Math.imul(hash, MIX) ^ Math.imul(block ^ (block >>> 24), MIX);
  }
  if (at < length) hash = Math.imul(hash ^ data.readUIntLE(at, length - at), MIX);
  hash = Math.imul(hash ^ (hash >>> 13), MIX);
  return hash ^ (hash >>> 15);
}
