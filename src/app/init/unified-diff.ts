import { createTwoFilesPatch, FILE_HEADERS_ONLY } from 'diff';

/**
 * What changes in a file, as `diff -u` and `git` write it.
 *
 * @param before undefined: there was no such file
 */
export function unifiedDiff(name: string, before: string | undefined, after: string): string {
  const from = before === undefined ? '/dev/null' : `a/${name}`;
  return createTwoFilesPatch(from, `b/${name}`, before ?? '', after, undefined, undefined, {
    context: 3,
    headerOptions: FILE_HEADERS_ONLY,
  });
}
