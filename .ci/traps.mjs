/**
 * `docs/traps.md` lists what goes wrong elsewhere, each with the test that proves it handled here. The list is made from the tests:
 * a comment `// @trap <what goes wrong>` stands above the test. Without an argument this says whether the page is up to date
 * (`npm run check` asks), with `--write` it writes it.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const PAGE = 'docs/traps.md';
const BEGIN = '<!-- from here on made by .ci/traps.mjs --write -->';
/** Comments with their test, whose title stands behind the table where it is an `it.each`. */
const TRAPS = /((?:\s*\/\/ @trap .+\n)+)\s*it(?:\.each[^]*?\))?\(\s*'([^']+)',/g;

/** What one file of tests proves: a row for each test that has traps. */
function rowsOf(file) {
  const text = readFileSync(file, 'utf8');
  const tests = [...text.matchAll(TRAPS)].map(([, comments, title]) => ({
    traps: [...comments.matchAll(/@trap (.+)/g)].map(([, trap]) => trap),
    title,
  }));
  const comments = text.match(/@trap/g)?.length ?? 0;
  if (tests.flatMap(({ traps }) => traps).length !== comments)
    throw new Error(`${file}: a @trap without a test below it`);
  return tests.map(({ traps, title }) => `| ${traps.join('<br>')} | ${title} |`);
}

const sections = readdirSync('test', { recursive: true, encoding: 'utf8' })
  .filter((file) => /\.(spec|contract)\.ts$/.test(file))
  .sort()
  .map((file) => ({ file: path.posix.join('test', file), rows: rowsOf(path.join('test', file)) }))
  .filter(({ rows }) => rows.length > 0)
  .map(({ file, rows }) =>
    [`### \`${file}\``, '', '| what goes wrong elsewhere | the test |', '|---|---|', ...rows].join('\n'),
  );

const page = readFileSync(PAGE, 'utf8');
const [written] = page.split(BEGIN);
const whole = `${written}${BEGIN}\n\n${sections.join('\n\n')}\n`;
if (process.argv.includes('--write')) writeFileSync(PAGE, whole);
else if (page !== whole) {
  console.error(`${PAGE} is not what the tests say: run node .ci/traps.mjs --write`);
  process.exitCode = 1;
}
