import type { TextEdits } from './text-edits.js';

/** The items between two brackets: of an array, an object, or the names of an import. */
export interface ListPlace {
  /** Right behind the opening bracket. */
  from: number;
  /** The closing bracket. */
  to: number;
  items: readonly { from: number; to: number }[];
  hasTrailingComma: boolean;
}

/**
 * Adds an item to a list, as the list is written: on a line of its own where the others are, or where it has several lines itself.
 *
 * @param index what it stands before; the number of items: the end
 */
export function addItems(
  edits: TextEdits,
  list: ListPlace,
  texts: readonly string[],
  index = list.items.length,
): void {
  if (texts.length === 0) return;
  const { original } = edits;
  const { items, to } = list;
  const first = items[0];
  const isSpread = original.slice(list.from, first?.from ?? to).includes('\n');
  const indent = indentAt(original, list.from);
  const inner = isSpread && first ? indentAt(original, first.from) : `${indent}${stepOf(original)}`;
  const lines = (text: string) => text.replaceAll('\n', `\n${inner}`);
  if (isSpread) {
    const next = items[index];
    if (next) edits.insert(next.from, texts.map((text) => `${lines(text)},\n${inner}`).join(''));
    else {
      const last = items.at(-1);
      if (last && !list.hasTrailingComma) edits.insert(last.to, ',');
      const isClosed = list.hasTrailingComma || items.length === 0;
      const added = texts.map((text) => `\n${inner}${lines(text)}`).join(',') + (isClosed ? ',' : '');
      const end = original.lastIndexOf('\n', to);
      // Behind a comment that stands in the last line.
      if (original.slice(end, to).trim() === '') edits.insert(end, added);
      else edits.insert(to, `${added}\n${indent}`);
    }
    return;
  }
  const isBroken = texts.some((text) => text.includes('\n'));
  if (!isBroken) {
    const next = items[index];
    const joined = texts.join(', ');
    const isObject = original[list.from - 1] === '{';
    if (next) edits.insert(next.from, `${joined}, `);
    else if (first)
      edits.insert(
        list.hasTrailingComma ? to : items.at(-1)!.to,
        `${list.hasTrailingComma ? ' ' : ', '}${joined}`,
      );
    else edits.replace(list.from, to, isObject ? ` ${joined} ` : joined);
    return;
  }
  for (const item of items) {
    const before = original.slice(0, item.from);
    edits.replace(before.trimEnd().length, item.from, `\n${inner}`);
  }
  if (items.length > 0 && !list.hasTrailingComma) edits.insert(items.at(-1)!.to, ',');
  const end = original.slice(0, to).trimEnd().length;
  edits.replace(end, to, `${texts.map((text) => `\n${inner}${lines(text)},`).join('')}\n${indent}`);
}

/** The white space at the beginning of the line in which something stands. */
export function indentAt(text: string, at: number): string {
  const line = text.slice(text.lastIndexOf('\n', at - 1) + 1);
  return /^[ \t]*/.exec(line)![0];
}

/** What one level is indented by in a text. */
function stepOf(text: string): string {
  return /^(\t| +)\S/m.exec(text)?.[1] ?? '  ';
}
