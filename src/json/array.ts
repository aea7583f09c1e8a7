import { BATCH_WORK, BATCHES, BESIDE, type InBatches, oneByOne } from './batches.js';
import { checked, decodeJson, type JsonInput, type KnownMembers, refuseJson, toInput } from './input.js';
import {
  BACKSLASH,
  CLOSE_BRACE,
  CLOSE_BRACKET,
  COMMA,
  isSpace,
  MALFORMED,
  MAX_JSON_DEPTH,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
  tooDeep,
} from './scanner.js';
import { JsonText } from './text.js';
import { invalid } from './refusals.js';
import { WorkSlices } from './work-slices.js';

/** What an array of people is called in errors, and where it stands. */
export interface ArrayPlace {
  what: string;
  pointer: string;
  /** What one element may be long, in bytes. */
  elementBytes: number;
  /** The members that an element may have. */
  known: KnownMembers;
}

/** White space is skipped in pieces of so many bytes. */
const PIECE = 64 * 1024;

/**
 * The objects of the JSON array in `bytes`, each as `readJsonObject` would read it. It can be gone through as often as one
 * likes; others have their turn meanwhile, and the first element that is bad ends it.
 *
 * @throws InvalidInputError while it is gone through
 */
export const jsonArray = (bytes: Uint8Array, place: ArrayPlace): InBatches<JsonInput> => ({
  [Symbol.asyncIterator]: () => oneByOne(elementBatches(bytes, place)),
  [BATCHES]: () => elementBatches(bytes, place),
});

/** The objects of the array that stands in the member `name` of `input`. @throws InvalidInputError it is no array */
export function memberArray(
  input: JsonInput,
  name: string,
  elements: Pick<ArrayPlace, 'elementBytes' | 'known'>,
): AsyncIterable<JsonInput> | readonly JsonInput[] {
  const pointer = `#/${name}`;
  const value = input[name];
  if (Array.isArray(value)) return value as JsonInput[];
  if (!(value instanceof JsonText)) throw invalid([{ pointer, detail: 'must be an array' }]);
  if (!value.text.startsWith('[')) throw refuseJson(`${name} must be an array.`, pointer, 'must be an array');
  return jsonArray(Buffer.from(value.text), { what: name, pointer, ...elements });
}

async function* elementBatches(bytes: Uint8Array, place: ArrayPlace): AsyncGenerator<Iterable<JsonInput>> {
  const slices = new WorkSlices();
  const reader = new ArrayReader(bytes, place);
  while (!reader.isOver) {
    yield reader.elements();
    if (slices.isOver(BATCH_WORK)) await slices.giveWay();
  }
  reader.assertEnd();
}

class ArrayReader {
  private expects: 'array' | 'first' | 'element' | 'comma' | 'end' = 'array';
  private at: number;
  private index = 0;
  private readonly expected: string;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly place: ArrayPlace,
  ) {
    this.at = startsWithMark(bytes) ? 3 : 0;
    this.expected = `${place.what} must be a JSON array`;
  }

  get isOver(): boolean {
    return this.at >= this.bytes.length;
  }

  assertEnd(): void {
    if (this.expects !== 'end') throw this.refuseMalformed();
  }

  /** The next ones, until they are enough for one go. */
  *elements(): Generator<JsonInput> {
    const { bytes } = this;
    for (let work = 0; work < BATCH_WORK;) {
      const start = this.at;
      this.at = skipSpace(bytes, start);
      const c = bytes[this.at];
      if (c === undefined) return;
      // There may be more of it.
      const isElement = !isSpace(c) && this.isAtElement(c);
      if (isElement) yield this.element();
      work += this.at - start + (isElement ? BESIDE : 0);
    }
  }

  /** Goes past what stands between the elements. @returns whether one begins here */
  private isAtElement(c: number): boolean {
    const { expects, place } = this;
    if (expects === 'array') {
      if (c !== OPEN_BRACKET) throw refuseJson(`${this.expected}.`, place.pointer, 'must be an array');
      this.expects = 'first';
    } else if (expects === 'end') throw this.refuseMalformed();
    else if (c === CLOSE_BRACKET && expects !== 'element') this.expects = 'end';
    else if (expects === 'comma') {
      if (c !== COMMA) throw this.refuseMalformed();
      this.expects = 'element';
    } else return true;
    this.at++;
    return false;
  }

  private element(): JsonInput {
    const { bytes, index, at: from } = this;
    const { what, pointer, elementBytes, known } = this.place;
    const end = checked(() => endOfElement(bytes, from, elementBytes), pointer, this.expected);
    if (end - from > elementBytes) throw tooLong(index, pointer, elementBytes);
    if (end === from || end === bytes.length) throw this.refuseMalformed();
    this.at = end;
    this.index++;
    this.expects = 'comma';
    const text = decodeJson(bytes.subarray(from, end), what, false);
    return toInput(text, `${pointer}/${index}`, `element ${index}`, known);
  }

  private refuseMalformed() {
    return refuseJson(`${this.expected}: ${MALFORMED}.`, this.place.pointer, MALFORMED);
  }
}

const startsWithMark = (bytes: Uint8Array) => bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;

/** At most `PIECE` bytes further. */
function skipSpace(bytes: Uint8Array, at: number): number {
  const stop = Math.min(bytes.length, at + PIECE);
  while (at < stop && isSpace(bytes[at]!)) at++;
  return at;
}

/**
 * Index after the element that begins at `start`, by its quotes and brackets alone: what it is will be checked. Where it is
 * longer than `most` bytes, or never ends, an index beyond that, or the end.
 */
function endOfElement(bytes: Uint8Array, start: number, most: number): number {
  const stop = Math.min(bytes.length, start + most + 1);
  let depth = 0;
  for (let at = start; at < stop; at++) {
    const c = bytes[at]!;
    if (c === QUOTE) {
      for (at++; at < stop && bytes[at] !== QUOTE; at++) if (bytes[at] === BACKSLASH) at++;
      if (depth === 0) return Math.min(at + 1, stop);
    } else if (c === OPEN_BRACE || c === OPEN_BRACKET) {
      // The array around it is a level too.
      if (++depth >= MAX_JSON_DEPTH) throw tooDeep();
    } else if (c === CLOSE_BRACE || c === CLOSE_BRACKET) {
      if (depth === 0) return at;
      if (--depth === 0) return at + 1;
    } else if (depth === 0 && (c === COMMA || isSpace(c))) return at;
  }
  return stop;
}

function tooLong(index: number, pointer: string, most: number) {
  const detail = `must be at most ${most} bytes long`;
  return refuseJson(`Element ${index} ${detail}.`, `${pointer}/${index}`, detail);
}
