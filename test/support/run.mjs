/**
 * What `npm test` runs: Jest, with the arguments that it was given. The whole suite is several runs side by side, each of a share
 * of the files and with servers of its own, as topics have fixed names: while one waits for something the others work. Half of them
 * have no Kafka, which takes its time also where nobody asks it for anything. A file that
 * fails there is run once more by itself, as a machine that does all this at once may be too slow for it; the end says which.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const SHARES = 4;
/** Named as in jest.config.mjs, and the tests of the servers themselves. */
const NEEDS_KAFKA = /\.kafka\.spec\.ts$|\/test\/dev\//;
/**
 * Tests among the strangers of a real cluster, with their clients, and with our package in an application of theirs have a command
 * of their own: `npm run test:strangers`.
 */
const STRANGERS = /\/test\/(messaging\/(strangers\/|other-clients)|repository\/package)/;
const SHARES_OF_STRANGERS = 2;
/** So many files may fail beside others and pass alone; where more do, something is wrong with all. */
const ONCE_MORE = 3;
/** How long each file takes beside others, so that the shares end together; `RECORD_DURATIONS=1 npm test` writes it anew. */
const DURATIONS = 'test/support/durations.json';
const UNKNOWN_SECONDS = 10;
const jest = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning', 'node_modules/jest/bin/jest.js']; // prettier-ignore
const OUTPUT = '--outputFile=';
const given = process.argv.slice(2);
const running = new Set();

/** A test that has failed may leave something open, which Jest would wait for for ever. */
const ENDS_WITHIN_MS = 60_000;

/** @returns Jest's exit code, 1 where a signal ended it */
async function runJest(args, env = process.env) {
  const run = spawn(process.execPath, [...jest, ...args], { stdio: 'inherit', env });
  running.add(run);
  const output = args.find((arg) => arg.startsWith(OUTPUT))?.slice(OUTPUT.length);
  const isLate = () => existsSync(output) && Date.now() - statSync(output).mtimeMs > ENDS_WITHIN_MS;
  const watching = output && setInterval(() => isLate() && run.kill('SIGKILL'), 5000);
  const [code] = await once(run, 'exit');
  clearInterval(watching);
  running.delete(run);
  return code ?? 1;
}

/** Test files into shares of about the same length: the longest first, each to the share that has least. */
function sharesOf(files, length) {
  const seconds = JSON.parse(readFileSync(DURATIONS, 'utf8'));
  const weightOf = (file) => seconds[path.relative('.', file)] ?? UNKNOWN_SECONDS;
  const shares = Array.from({ length }, () => ({ files: [], weight: 0 }));
  for (const file of files.sort((a, b) => weightOf(b) - weightOf(a))) {
    const least = shares.reduce((a, b) => (a.weight <= b.weight ? a : b));
    least.files.push(file);
    least.weight += weightOf(file);
  }
  return shares.map((share) => share.files).filter((share) => share.length > 0);
}

/** Each with the servers that its files need; the strangers all need Kafka. */
function runsOf(files, isOfStrangers) {
  if (isOfStrangers) return sharesOf(files, SHARES_OF_STRANGERS).map((share) => ({ share }));
  const withKafka = files.filter((file) => NEEDS_KAFKA.test(file));
  const others = files.filter((file) => !NEEDS_KAFKA.test(file));
  const env = { ...process.env, TEST_WITHOUT_KAFKA: 'true' };
  const ofOthers = withKafka.length === 0 ? SHARES : SHARES / 2;
  return [
    ...sharesOf(withKafka, SHARES - ofOthers).map((share) => ({ share })),
    ...sharesOf(others, ofOthers).map((share) => ({ share, env })),
  ];
}

async function runWhole(isOfStrangers) {
  const options = isOfStrangers ? [] : given;
  const listed = spawnSync(process.execPath, [...jest, '--listTests', ...options], { encoding: 'utf8' });
  const files = listed.stdout
    .split('\n')
    .filter((line) => line !== '' && STRANGERS.test(line) === isOfStrangers);
  if (listed.status !== 0 || files.length === 0) throw new Error(`No tests were found: ${listed.stderr}`);
  const directory = path.resolve('.data', `results-${process.pid}`);
  mkdirSync(directory, { recursive: true });
  try {
    const runs = runsOf(files, isOfStrangers);
    const outputs = runs.map((_, index) => path.join(directory, `${index}.json`));
    const codes = await Promise.all(
      runs.map(({ share, env }, index) =>
        runJest(['--json', `${OUTPUT}${outputs[index]}`, '--runTestsByPath', ...share], env),
      ),
    );
    // One that was ended, or has crashed, has told nothing: there is no list of what failed.
    if (!outputs.every((output) => existsSync(output))) return 1;
    const told = outputs.map((output) => JSON.parse(readFileSync(output, 'utf8')));
    const results = told.flatMap(({ testResults }) => testResults);
    if (process.env.RECORD_DURATIONS) record(results);
    // One that has passed and left something open was ended above, and Jest has said so.
    if (codes.every((code, index) => code === 0 || told[index].success)) return 0;
    const failed = results.filter(({ status }) => status === 'failed').map(({ name }) => name);
    const names = failed.map((file) => path.relative('.', file)).join(', ');
    if (failed.length === 0 || failed.length > ONCE_MORE) return 1;
    console.error(`\nFailed beside others, and is run once more by itself: ${names}`);
    const again = path.join(directory, 'again.json');
    const code = await runJest(['--json', `${OUTPUT}${again}`, '--runTestsByPath', ...failed]);
    if (code !== 0 && !(existsSync(again) && JSON.parse(readFileSync(again, 'utf8')).success)) return code;
    console.error(`\nFailed beside others, and passed alone: ${names}`);
    return 0;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Those of files that did not run stay as they were. */
function record(results) {
  const known = JSON.parse(readFileSync(DURATIONS, 'utf8'));
  for (const { name, startTime, endTime } of results)
    known[path.relative('.', name)] = Math.ceil((endTime - startTime) / 1000);
  const entries = Object.entries(known).filter(([file]) => existsSync(file));
  const sorted = Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(DURATIONS, `${JSON.stringify(sorted, null, 2)}\n`);
}

// Ctrl-C reaches them as well, and each stops its servers.
for (const signal of ['SIGINT', 'SIGTERM'])
  process.on(signal, () => running.forEach((run) => run.kill(signal)));
const isWhole = given.length === 0 || given[0] === '--testPathIgnorePatterns';
const isOfStrangers = given[0] === '--strangers';
process.exitCode = await (isWhole || isOfStrangers ? runWhole(isOfStrangers) : runJest(given));
