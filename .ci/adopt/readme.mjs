import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const README = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');

/** The README's blocks of code, in order, with the chapter that they stand in. */
const BLOCKS = README.split(/^## /m)
  .slice(1)
  .flatMap((chapter) =>
    [...chapter.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language, text]) => ({
      chapter: chapter.split('\n', 1)[0],
      language,
      text,
    })),
  );

/** The one command of a chapter that begins so. */
export function command(chapter, beginning) {
  const found = BLOCKS.filter(
    (block) => block.language === 'sh' && block.chapter === chapter && block.text.startsWith(beginning),
  );
  if (found.length !== 1)
    throw new Error(`README.md: ${found.length} commands of "${chapter}" begin with ${beginning}`);
  return found[0].text
    .replaceAll('\\\n', ' ')
    .replace(/ +#.*$/gm, '')
    .trim();
}

/** Writes the files of a chapter, and changes those that it changes, as a reader would. */
export function applyChapter(chapter, directory) {
  const blocks = BLOCKS.filter((block) => block.chapter === chapter);
  if (blocks.length === 0) throw new Error(`README.md: there is no chapter "${chapter}"`);
  for (const { language, text } of blocks) {
    const [, file, rest] = /^(?:\/\/|#) (src\/\S+)\n(.*)$/s.exec(text) ?? [];
    if (!file) continue;
    const target = path.join(directory, file);
    mkdirSync(path.dirname(target), { recursive: true });
    writeFileSync(target, language === 'diff' ? patched(file, readFileSync(target, 'utf8'), rest) : rest);
  }
}

/** Lines that are named stay (` `) or go (`-`), wherever they next stand; new ones (`+`) come where the last of these was. */
function patched(file, text, diff) {
  const lines = text.split('\n');
  const changes = diff.trimEnd().split('\n');
  let at = 0;
  for (const [index, change] of changes.entries()) {
    const line = change.slice(1);
    if (change[0] === '+') {
      // Before a line that is named next, if none was named before.
      const next = changes.slice(index).find((each) => each[0] !== '+');
      if (at === 0 && next) at = placeOf(file, lines, next.slice(1), 0);
      lines.splice(at++, 0, line);
      continue;
    }
    const place = placeOf(file, lines, line, at);
    if (change[0] === '-') lines.splice(place, 1);
    at = change[0] === '-' ? place : place + 1;
  }
  return lines.join('\n');
}

function placeOf(file, lines, line, from) {
  const place = lines.findIndex((each, index) => index >= from && each === line);
  if (place < 0)
    throw new Error(`README.md changes a line of ${file} that is not there: ${line}\n\n${lines.join('\n')}`);
  return place;
}
