import {
  CLOSE_BRACE,
  CLOSE_BRACKET,
  COMMA,
  endOfValue,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
  skipSpace,
} from './scanner.js';
import { WorkSlices } from './work-slices.js';

/** An object by its members; anything else as its text, without white space and with escapes as `JSON.stringify` writes them. */
type Tree = string | Map<string, Tree>;

/** A promise only where others were let have their turn: a promise for each of half a million values takes longer than the values. */
type Soon<T> = T | Promise<T>;

/** What counts for a value beside its length: small ones cost more. */
const BESIDE = 50;

/**
 * Applies a JSON Merge Patch (RFC 7396), text to text: numbers and the order of keys stay as they are on both sides. Others
 * have their turn meanwhile.
 *
 * @param target valid JSON, as is `patch`
 */
export async function mergeJson(target: string, patch: string): Promise<string> {
  const slices = new WorkSlices();
  const merged = merge(
    await new TreeReader(target, slices).read(),
    await new TreeReader(patch, slices).read(),
  );
  return write(merged, slices);
}

function merge(target: Tree | undefined, patch: Tree): Tree {
  if (typeof patch === 'string') return patch;
  const merged = new Map(target instanceof Map ? target : []);
  for (const [key, value] of patch) {
    if (value === 'null') merged.delete(key);
    else merged.set(key, merge(merged.get(key), value));
  }
  return merged;
}

/** Texts are put together by `+=` alone: the engine then copies them once, at the end, and not once for each level. */
function write(tree: Tree, slices: WorkSlices): Soon<string> {
  return typeof tree === 'string' ? tree : writeMembers(tree.entries(), '', slices);
}

/** @param members those that are written already; `rest` goes on where they end */
function writeMembers(
  rest: IterableIterator<[string, Tree]>,
  members: string,
  slices: WorkSlices,
): Soon<string> {
  for (const [key, member] of rest) {
    if (members !== '') members += ',';
    members += `${JSON.stringify(key)}:`;
    const value = write(member, slices);
    if (typeof value !== 'string') return value.then((text) => writeMembers(rest, members + text, slices));
    members += value;
    if (slices.isOver(key.length + BESIDE))
      return slices.giveWay().then(() => writeMembers(rest, members, slices));
  }
  return `{${members}}`;
}

/** Reads valid JSON once, from its beginning to its end. */
class TreeReader {
  private at = 0;

  constructor(
    private readonly text: string,
    private readonly slices: WorkSlices,
  ) {}

  read(): Soon<Tree> {
    this.at = skipSpace(this.text, this.at);
    const c = this.text.charCodeAt(this.at);
    if (c === OPEN_BRACE) return this.readObject(new Map());
    return c === OPEN_BRACKET ? this.readArray('') : this.readScalar();
  }

  private readScalar(): string {
    const start = this.at;
    this.at = endOfValue(this.text, start);
    const literal = this.text.slice(start, this.at);
    const isEscaped = literal.charCodeAt(0) === QUOTE && literal.includes('\\');
    return isEscaped ? JSON.stringify(JSON.parse(literal)) : literal;
  }

  /** @param members those that are read already */
  private readObject(members: Map<string, Tree>): Soon<Tree> {
    while (this.isBefore(CLOSE_BRACE)) {
      const key = JSON.parse(this.readScalar()) as string;
      // Past the colon.
      this.at = skipSpace(this.text, this.at) + 1;
      const next = this.readNext();
      if (next instanceof Promise) return next.then((value) => this.readObject(members.set(key, value)));
      members.set(key, next);
    }
    return members;
  }

  /** @param items those that are read already */
  private readArray(items: string): Soon<string> {
    while (this.isBefore(CLOSE_BRACKET)) {
      if (items !== '') items += ',';
      const item = this.readItem();
      if (typeof item !== 'string') return item.then((text) => this.readArray(items + text));
      items += item;
    }
    return `[${items}]`;
  }

  private readItem(): Soon<string> {
    const next = this.readNext();
    return next instanceof Promise ? next.then((item) => write(item, this.slices)) : write(next, this.slices);
  }

  private readNext(): Soon<Tree> {
    const start = this.at;
    this.at = skipSpace(this.text, start);
    const c = this.text.charCodeAt(this.at);
    const isScalar = c !== OPEN_BRACE && c !== OPEN_BRACKET;
    const value = isScalar ? this.readScalar() : undefined;
    if (!this.slices.isOver(this.at - start + BESIDE)) return value ?? this.read();
    return this.slices.giveWay().then(() => value ?? this.read());
  }

  /** Steps over what opens an array or an object, a comma, or what closes it; false in the last case. */
  private isBefore(closer: number): boolean {
    this.at = skipSpace(this.text, this.at);
    const c = this.text.charCodeAt(this.at);
    if (c === closer) {
      this.at++;
      return false;
    }
    // What opens it, or a comma; behind that it may be empty.
    const isOpener = c !== COMMA;
    this.at = skipSpace(this.text, this.at + 1);
    if (!isOpener || this.text.charCodeAt(this.at) !== closer) return true;
    this.at++;
    return false;
  }
}
