import { CorruptBytesError, TooManyBytesError } from './compression-errors.js';
import { WorkSlices } from '../../json/work-slices.js';

const FRAME = 0x184d2204;
/** Frames that are passed over; the last four bits may be any. */
const SKIPPABLE = 0x184d2a50;

/** Of a frame's flags. */
const VERSION_BITS = 0b1100_0000;
const VERSION = 0b0100_0000;
const HAS_BLOCK_CHECKSUMS = 1 << 4;
const HAS_CONTENT_SIZE = 1 << 3;
const HAS_CONTENT_CHECKSUM = 1 << 2;
const HAS_DICTIONARY = 1;
/** Of a block's size: it is not compressed. */
const IS_STORED = 0x80000000;
/** A byte stands for no more than so many. */
const MOST_GROWTH = 255;
/** Copies of lengths of at least so many bytes are left to the engine. */
const LONG = 32;
const SHORTEST_MATCH = 4;

/** A block: where it is, and how many bytes it can stand for. */
interface Block {
  from: number;
  to: number;
  isStored: boolean;
  atMost: number;
}

interface Frame {
  blocks: Block[];
  contentSize: number | undefined;
  end: number;
}

/**
 * Decompresses LZ4's frames as all clients of Kafka write them: blocks that look back at others or don't, with or without the size of all of
 * it. No more memory is taken than the blocks can stand for. Checksums are passed over: the batch has one of all of its bytes.
 *
 * @throws TooManyBytesError it has more than `atMost` bytes
 * @throws CorruptBytesError it is none of LZ4's
 */
export async function unlz4(bytes: Buffer, atMost: number): Promise<Buffer> {
  const frames = framesOf(bytes);
  const declared = frames.reduce((sum, { contentSize = 0 }) => sum + contentSize, 0);
  if (declared > atMost) throw new TooManyBytesError(atMost);
  const possible = frames.flatMap(({ blocks }) => blocks).reduce((sum, block) => sum + block.atMost, 0);
  const out = Buffer.allocUnsafe(Math.min(possible, atMost));
  const slices = new WorkSlices();
  let made = 0;
  for (const { blocks, contentSize } of frames) {
    const start = made;
    for (const block of blocks) {
      made = decodeBlock(bytes, block, out, made, start, atMost);
      if (slices.isOver(block.atMost)) await slices.giveWay();
    }
    if (contentSize !== undefined && contentSize !== made - start) throw corrupt();
  }
  return out.subarray(0, made);
}

/** What follows the last frame and is none is passed over, as Kafka's own client does. */
function framesOf(bytes: Buffer): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at + 8 <= bytes.length;) {
    const mark = bytes.readUInt32LE(at);
    if (mark === FRAME) {
      const frame = frameAt(bytes, at + 4);
      frames.push(frame);
      at = frame.end;
    } else if ((mark & 0xfffffff0) === SKIPPABLE) at += 8 + bytes.readUInt32LE(at + 4);
    else break;
  }
  if (frames.length === 0) throw corrupt();
  return frames;
}

function frameAt(bytes: Buffer, from: number): Frame {
  let at = from;
  const take = (size: number) => {
    if (at + size > bytes.length) throw corrupt();
    at += size;
    return at - size;
  };
  const flags = bytes[take(1)]!;
  if ((flags & VERSION_BITS) !== VERSION || flags & HAS_DICTIONARY) throw corrupt();
  const sizeOfBlocks = (bytes[take(1)]! >>> 4) & 7;
  if (sizeOfBlocks < 4) throw corrupt();
  const blockSize = 4 ** (sizeOfBlocks + 4);
  const contentSize = flags & HAS_CONTENT_SIZE ? Number(bytes.readBigUInt64LE(take(8))) : undefined;
  take(1);
  const blocks: Block[] = [];
  for (;;) {
    const size = bytes.readUInt32LE(take(4));
    if (size === 0) break;
    const isStored = size >= IS_STORED;
    const length = isStored ? size - IS_STORED : size;
    if (length > blockSize) throw corrupt();
    const start = take(length);
    const atMost = isStored ? length : Math.min(blockSize, length * MOST_GROWTH);
    blocks.push({ from: start, to: start + length, isStored, atMost });
    if (flags & HAS_BLOCK_CHECKSUMS) take(4);
  }
  if (flags & HAS_CONTENT_CHECKSUM) take(4);
  return { blocks, contentSize, end: at };
}

/**
 * @param made where its bytes go
 * @param start how far it may look back
 * @returns where they end
 */
function decodeBlock(
  bytes: Buffer,
  { from, to, isStored, atMost }: Block,
  out: Buffer,
  made: number,
  start: number,
  mostOfAll: number,
): number {
  const end = Math.min(made + atMost, out.length);
  const past = () => (made + atMost > out.length ? new TooManyBytesError(mostOfAll) : corrupt());
  if (isStored) {
    if (to - from > end - made) throw past();
    bytes.copy(out, made, from, to);
    return made + to - from;
  }
  let [at, next] = [from, made];
  while (at < to) {
    const token = bytes[at++]!;
    let literals = token >>> 4;
    if (literals === 15)
      for (let more = 255; more === 255; literals += more) {
        if (at >= to) throw corrupt();
        more = bytes[at++]!;
      }
    if (literals > to - at) throw corrupt();
    if (literals > end - next) throw past();
    if (literals >= LONG) bytes.copy(out, next, at, at + literals);
    else for (let n = 0; n < literals; n++) out[next + n] = bytes[at + n]!;
    at += literals;
    next += literals;
    // The last sequence of a block has literals alone.
    if (at === to) return next;
    if (to - at < 2) throw corrupt();
    const distance = bytes[at]! | (bytes[at + 1]! << 8);
    at += 2;
    let length = token & 15;
    if (length === 15)
      for (let more = 255; more === 255; length += more) {
        if (at >= to) throw corrupt();
        more = bytes[at++]!;
      }
    length += SHORTEST_MATCH;
    if (distance === 0 || distance > next - start) throw corrupt();
    if (length > end - next) throw past();
    if (distance >= length && length >= LONG) {
      out.copyWithin(next, next - distance, next - distance + length);
      next += length;
      // It may repeat what it makes itself.
    } else for (const copied = next + length; next < copied; next++) out[next] = out[next - distance]!;
  }
  throw corrupt();
}

const corrupt = () => new CorruptBytesError('They are no bytes of LZ4.');
