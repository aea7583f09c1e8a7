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
/** What counts for an element beside its bytes: small ones cost more than their length. */
const BESIDE = 200;

/**
 * The objects of the JSON array in `bytes`, one at a time and each as `readJsonObject` would read it. It can be gone through
 * as often as one likes; others have their turn meanwhile, and the first element that is bad ends it.
 *
 * @throws InvalidInputError while it is gone through
 */
export const jsonArray = (bytes: Uint8Array, place: ArrayPlace): AsyncIterable<JsonInput> => ({
  [Symbol.asyncIterator]: () => elementsOf(bytes, place),
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

async function* elementsOf(
  bytes: Uint8Array,
  { what, pointer, elementBytes, known }: ArrayPlace,
): AsyncGenerator<JsonInput> {
  const slices = new WorkSlices();
  const expected = `${what} must be a JSON array`;
  const refuseMalformed = () => refuseJson(`${expected}: ${MALFORMED}.`, pointer, MALFORMED);
  let expects: 'array' | 'first' | 'element' | 'comma' | 'end' = 'array';
  let at = startsWithMark(bytes) ? 3 : 0;
  for (let index = 0; ;) {
    const start = at;
    at = skipSpace(bytes, at);
    let done = at - start;
    const c = bytes[at];
    if (c === undefined) break;
    if (isSpace(c)) {
      // There is more of it.
    } else if (expects === 'array') {
      if (c !== OPEN_BRACKET) throw refuseJson(`${expected}.`, pointer, 'must be an array');
      expects = 'first';
      at++;
    } else if (expects === 'end') throw refuseMalformed();
    else if (c === CLOSE_BRACKET && expects !== 'element') {
      expects = 'end';
      at++;
    } else if (expects === 'comma') {
      if (c !== COMMA) throw refuseMalformed();
      expects = 'element';
      at++;
    } else {
      const from = at;
      at = checked(() => endOfElement(bytes, from, elementBytes), pointer, expected);
      if (at - from > elementBytes) throw tooLong(index, pointer, elementBytes);
      if (at === from || at === bytes.length) throw refuseMalformed();
      const text = decodeJson(bytes.subarray(from, at), what, false);
      yield toInput(text, `${pointer}/${index}`, `element ${index}`, known);
      index++;
      expects = 'comma';
      done += at - from + BESIDE;
    }
    if (slices.isOver(done)) await slices.giveWay();
  }
  if (expects !== 'end') throw refuseMalformed();
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
