import { setMaxListeners } from 'node:events';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { WrongAnswerError } from './harness/check.mjs';
import { whereAndWhen } from './harness/versions.mjs';
import { OptionError, readOptions, SECTIONS, USAGE } from './options.mjs';
import { readResults, toMarkdown, writeResults } from './report/results.mjs';

const DATA_DIRECTORY = path.join(import.meta.dirname, '../.data/bench');
const say = (text) => console.error(`bench: ${text}`);
const ending = new AbortController();
const interrupted = ending.signal;
// Every process that is started listens.
setMaxListeners(0, interrupted);

async function main(options) {
  const results = {};
  for (const name of options.sections) {
    say(`${name}:`);
    const section = await import(`./sections/${name}.mjs`);
    const result = await inOwnDirectory(name, options, section.run);
    // Those that compare nothing that is a goal print their tables themselves.
    if (!SECTIONS.includes(name)) continue;
    results[name] = { where: whereAndWhen(), ...result };
  }
  const sections = {};
  for (const name of SECTIONS) sections[name] = await import(`./sections/${name}.mjs`);
  if (Object.keys(results).length > 0) console.log(toMarkdown(results, sections));
  if (options.isQuick) say('this was a quick run: it shows that all of it runs, and measures nothing.');
  else if (options.only && Object.keys(results).length > 0)
    say('nothing is written: not all contestants took part.');
  else if (Object.keys(results).length > 0) {
    const all = { ...readResults(), ...results };
    writeResults(all, sections);
    say('bench/results.md and docs/bench.svg have the figures, of other sections those of their last run.');
  }
}

/** Whatever becomes of a section, what it has started ends, the last first. */
async function inOwnDirectory(name, options, run) {
  const directory = path.join(DATA_DIRECTORY, name);
  const started = [];
  const bench = { options, directory, say, interrupted, started };
  try {
    return await run(bench);
  } finally {
    while (started.length > 0) await started.pop()();
    rmSync(directory, { recursive: true, force: true });
  }
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => ending.abort(new Error(`interrupted by ${signal}`)));
}
try {
  const options = readOptions(process.argv.slice(2), process.env);
  if (options.help) console.log(USAGE);
  else await main(options);
} catch (error) {
  process.exitCode = interrupted.aborted ? 130 : 1;
  if (interrupted.aborted) say(`${interrupted.reason.message}; everything has been ended.`);
  else if (error instanceof OptionError) say(`${error.message}\n\n${USAGE}`);
  else say(error instanceof WrongAnswerError ? error.message : error.stack);
}
