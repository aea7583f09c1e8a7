import { crc32c } from '@platformatic/kafka';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** Where the run's Kafka keeps its partitions' files. */
export const dataOfRun = () => path.resolve(process.env.TMPDIR!, '../kafka/data');

const [AT_CHECKSUM, AT_CHECKED, AT_CODEC, HEADER] = [17, 21, 22, 61];

/** Ways in which a batch can't be read; a broker takes none of them from a client, but has them after a disk's fault. */
export const BREAKAGES: Record<string, (batch: Buffer) => void> = {
  'of a codec that nobody knows': (batch) => {
    batch[AT_CODEC]! |= 0b111;
    batch.writeUInt32BE(crc32c(batch.subarray(AT_CHECKED)), AT_CHECKSUM);
  },
  'whose bytes its codec does not know': (batch) => {
    batch.fill(0x5a, HEADER);
    batch.writeUInt32BE(crc32c(batch.subarray(AT_CHECKED)), AT_CHECKSUM);
  },
  'whose checksum is wrong': (batch) => {
    batch.fill(0x5a, HEADER);
  },
};

/**
 * Breaks the batch that begins at `offset` where the broker keeps it: what it gives is broken from then on.
 *
 * @returns what mends it
 */
export function breakBatch(
  { data, topic, partition, offset }: { data: string; topic: string; partition: number; offset: number },
  breakage: (batch: Buffer) => void,
): () => void {
  const file = path.join(data, `${topic}-${partition}`, '00000000000000000000.log');
  const whole = readFileSync(file);
  const broken = Buffer.from(whole);
  let at = 0;
  while (whole.readBigInt64BE(at) !== BigInt(offset)) at += 12 + whole.readInt32BE(at + 8);
  breakage(broken.subarray(at, at + 12 + whole.readInt32BE(at + 8)));
  // In place: the broker has it open.
  const write = (content: Buffer) => writeFileSync(file, content, { flag: 'r+' });
  write(broken);
  return () => write(whole);
}
