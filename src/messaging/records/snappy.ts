import { CorruptBytesError, TooManyBytesError } from './compression-errors.js';
import { WorkSlices } from '../../json/work-slices.js';

/** How the framing of snappy-java begins, which Kafka's own client writes: its mark, its version, the version that can read it. */
const MARK = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0]);
const FRAMING_BYTES = MARK.length + 4 + 4;
/** Three bytes stand for up to 64. */
const MOST_GROWTH = 64 / 3;
/** So many bytes are made between two looks at the clock. */
const STEP_BYTES = 64 * 1024;

/** One block: where it is, and how many bytes it stands for. */
interface Block {
  from: number;
  to: number;
  size: number;
}

/**
 * Decompresses Snappy's blocks, alone (as librdkafka and Go's clients send them) or in the framing of snappy-java. What it says of its size
 * is believed no further than its bytes can stand for, before memory is taken.
 *
 * @throws TooManyBytesError it has more than `atMost` bytes
 * @throws CorruptBytesError it is none of Snappy's
 */
export async function unsnappy(bytes: Buffer, atMost: number): Promise<Buffer> {
  const blocks = blocksOf(bytes);
  const size = blocks.reduce((sum, block) => sum + block.size, 0);
  if (size > atMost) throw new TooManyBytesError(atMost);
  const decoder = new BlockDecoder(bytes, Buffer.allocUnsafe(size));
  const slices = new WorkSlices();
  for (const block of blocks) {
    decoder.begin(block);
    for (let isDone = false; !isDone;) {
      isDone = decoder.step();
      if (slices.isOver(STEP_BYTES)) await slices.giveWay();
    }
  }
  return decoder.out;
}

function blocksOf(bytes: Buffer): Block[] {
  if (!isFramed(bytes, 0)) return [blockAt(bytes, 0, bytes.length)];
  const blocks: Block[] = [];
  for (let at = 0; at < bytes.length;) {
    // Streams may follow one another.
    if (isFramed(bytes, at)) {
      at += FRAMING_BYTES;
      continue;
    }
    if (at + 4 > bytes.length) throw corrupt();
    const [from, to] = [at + 4, at + 4 + bytes.readInt32BE(at)];
    if (to < from || to > bytes.length) throw corrupt();
    blocks.push(blockAt(bytes, from, to));
    at = to;
  }
  return blocks;
}

const isFramed = (bytes: Buffer, at: number): boolean =>
  bytes.length >= at + FRAMING_BYTES && bytes.compare(MARK, 0, MARK.length, at, at + MARK.length) === 0;

/** A block begins with its size. */
function blockAt(bytes: Buffer, at: number, to: number): Block {
  let size = 0;
  for (let factor = 1; ; factor *= 0x80) {
    if (at >= to || factor > 2 ** 28) throw corrupt();
    const byte = bytes[at++]!;
    size += (byte & 0x7f) * factor;
    if (byte < 0x80) break;
  }
  if (size > (to - at) * MOST_GROWTH) throw corrupt();
  return { from: at, to, size };
}

/** Decodes blocks one behind the other, each in steps. */
class BlockDecoder {
  private at = 0;
  private to = 0;
  private made = 0;
  private start = 0;
  private end = 0;

  constructor(
    private readonly bytes: Buffer,
    readonly out: Buffer,
  ) {}

  begin({ from, to, size }: Block): void {
    [this.at, this.to, this.start, this.end] = [from, to, this.made, this.made + size];
  }

  /** @returns true when the block is done */
  step(): boolean {
    const { bytes, out, to, start, end } = this;
    let { at, made } = this;
    const until = made + STEP_BYTES;
    while (at < to && made < until) {
      const tag = bytes[at++]!;
      const kind = tag & 3;
      if (kind === 0) {
        let length = tag >>> 2;
        if (length >= 60) {
          const lengthBytes = length - 59;
          if (at + lengthBytes > to) throw corrupt();
          length = bytes.readUIntLE(at, lengthBytes);
          at += lengthBytes;
        }
        length++;
        if (at + length > to || made + length > end) throw corrupt();
        if (length > 32) bytes.copy(out, made, at, at + length);
        else for (let n = 0; n < length; n++) out[made + n] = bytes[at + n]!;
        at += length;
        made += length;
        continue;
      }
      const distanceBytes = kind === 3 ? 4 : kind;
      if (at + distanceBytes > to) throw corrupt();
      const length = kind === 1 ? ((tag >>> 2) & 7) + 4 : (tag >>> 2) + 1;
      const distance =
        kind === 1
          ? ((tag >>> 5) << 8) | bytes[at]!
          : kind === 2
            ? bytes[at]! | (bytes[at + 1]! << 8)
            : bytes.readUInt32LE(at);
      at += distanceBytes;
      if (distance === 0 || distance > made - start || made + length > end) throw corrupt();
      // It may repeat what it makes itself.
      for (const copied = made + length; made < copied; made++) out[made] = out[made - distance]!;
    }
    [this.at, this.made] = [at, made];
    if (at < to) return false;
    if (made !== end) throw corrupt();
    return true;
  }
}

const corrupt = () => new CorruptBytesError('They are no bytes of Snappy.');
