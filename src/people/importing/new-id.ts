import { randomFillSync } from 'node:crypto';

/** Random bytes for hundreds of ids: asking for those of one takes longer than all else. */
const random = Buffer.allocUnsafeSlow(4096);
/** Of which an id takes so many, for its last group. */
const GROUP = 6;
let taken = random.length;

/** What follows the time is counted within a millisecond, from a number by chance: so many bits, the last of them in the fourth group. */
const COUNT_BITS = 26;
const FOURTH_GROUP_BITS = 14;
const FOURTH_GROUP = 2 ** FOURTH_GROUP_BITS;

let time = 0;
let count = 0;
/** The first three groups. */
let prefix = '';

/**
 * A uuid of version 7 (RFC 9562, method 1 of its section 6.2), larger than those that this process made before: rows that are stored
 * one after the other stand side by side in the index, which is what makes them fast.
 */
export function newId(): string {
  const now = Date.now();
  if (now > time) begin(now);
  // A clock that goes back is waited for with numbers alone.
  else if (++count === 2 ** COUNT_BITS) begin(time + 1);
  else if (count % FOURTH_GROUP === 0) prefix = firstGroups();
  const from = take(GROUP);
  const fourth = (0x8000 | (count % FOURTH_GROUP)).toString(16);
  return `${prefix}${fourth}-${random.toString('hex', from, from + GROUP)}`;
}

function begin(millis: number): void {
  time = millis;
  // The first bit is left to be counted into.
  count = random.readUInt32BE(take(4)) >>> (32 - COUNT_BITS + 1);
  prefix = firstGroups();
}

function firstGroups(): string {
  const hex = time.toString(16).padStart(12, '0');
  const third = (0x7000 | (count >>> FOURTH_GROUP_BITS)).toString(16);
  return `${hex.slice(0, 8)}-${hex.slice(8)}-${third}-`;
}

/** Index of so many bytes that nobody has had. */
function take(bytes: number): number {
  if (taken + bytes > random.length) {
    randomFillSync(random);
    taken = 0;
  }
  const from = taken;
  taken += bytes;
  return from;
}
