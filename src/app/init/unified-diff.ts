const CONTEXT = 3;

/** One line of a comparison: in both, only before, or only after. */
interface Line {
  sign: ' ' | '-' | '+';
  text: string;
}

/**
 * What changes in a file, as `diff -u` and `git` write it.
 *
 * @param before undefined: there was no such file
 */
export function unifiedDiff(name: string, before: string | undefined, after: string): string {
  const lines = compared(linesOf(before ?? ''), linesOf(after));
  const head = `--- ${before === undefined ? '/dev/null' : `a/${name}`}\n+++ b/${name}\n`;
  return (
    head +
    hunksOf(lines)
      .map((hunk) => shown(lines, hunk))
      .join('')
  );
}

/** With their ends, so that one that has none is another line. */
function linesOf(text: string): string[] {
  return text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
}

/** The shortest way from one text to the other, by their longest common subsequence of lines. */
function compared(before: string[], after: string[]): Line[] {
  let start = 0;
  while (start < before.length && before[start] === after[start]) start++;
  let end = 0;
  while (end < Math.min(before.length, after.length) - start && before.at(-1 - end) === after.at(-1 - end))
    end++;
  const [old, young] = [before.slice(start, before.length - end), after.slice(start, after.length - end)];
  // What is common to the rests of both from here on.
  const common = Array.from({ length: old.length + 1 }, () => new Uint32Array(young.length + 1));
  for (let i = old.length - 1; i >= 0; i--)
    for (let j = young.length - 1; j >= 0; j--)
      common[i]![j] =
        old[i] === young[j] ? common[i + 1]![j + 1]! + 1 : Math.max(common[i + 1]![j]!, common[i]![j + 1]!);
  const lines: Line[] = [];
  for (let i = 0, j = 0; i < old.length || j < young.length;) {
    if (i < old.length && j < young.length && old[i] === young[j]) {
      lines.push({ sign: ' ', text: old[i++]! });
      j++;
    } else if (i < old.length && (j === young.length || common[i + 1]![j]! >= common[i]![j + 1]!))
      lines.push({ sign: '-', text: old[i++]! });
    else lines.push({ sign: '+', text: young[j++]! });
  }
  const same = (texts: string[]) => texts.map((text): Line => ({ sign: ' ', text }));
  return [...same(before.slice(0, start)), ...lines, ...same(before.slice(before.length - end))];
}

/** From and to of the changes, each with the lines around it; what is close together is one. */
function hunksOf(lines: readonly Line[]): [number, number][] {
  const hunks: [number, number][] = [];
  for (const [at, { sign }] of lines.entries()) {
    if (sign === ' ') continue;
    const last = hunks.at(-1);
    const [from, to] = [Math.max(0, at - CONTEXT), Math.min(lines.length, at + 1 + CONTEXT)];
    if (last && from <= last[1]) last[1] = to;
    else hunks.push([from, to]);
  }
  return hunks;
}

function shown(lines: readonly Line[], [from, to]: [number, number]): string {
  const range = (other: '-' | '+') => {
    const count = (some: readonly Line[]) => some.filter(({ sign }) => sign !== other).length;
    const length = count(lines.slice(from, to));
    return `${count(lines.slice(0, from)) + (length === 0 ? 0 : 1)},${length}`;
  };
  const texts = lines
    .slice(from, to)
    .map(
      ({ sign, text }) => `${sign}${text.endsWith('\n') ? text : `${text}\n\\ No newline at end of file\n`}`,
    );
  return `@@ -${range('+')} +${range('-')} @@\n${texts.join('')}`;
}
