import path from 'node:path';
import { openDatabase } from './database.mjs';
import { openContestants, QUIET_ROW } from './hot-row-contestants.mjs';
import { OptionError, readOptions } from './options.mjs';
import { shuffled } from './shuffled.mjs';
import { median, spread } from './table.mjs';

const DATA_DIRECTORY = path.join(import.meta.dirname, '../.data/bench-hot-row');
const SCENARIOS = [1, 4].flatMap((rows) => [16, 64].map((workers) => ({ rows, workers })));
const BYSTANDER_MS = 5;
const WARM_UP_MS = 300;
const say = (text) => console.error(`bench: ${text}`);
const ending = new AbortController();

async function main({ rounds, turnMs }) {
  const database = await openDatabase({
    directory: DATA_DIRECTORY,
    onProgress: say,
    interrupted: ending.signal,
  });
  const { contestants, check, close } = await openContestants(database.url);
  try {
    for (const contestant of contestants) await turn(contestant, { rows: 4, workers: 16 }, WARM_UP_MS);
    const turns = new Map();
    for (let round = 1; round <= rounds; round++) {
      say(`round ${round} of ${rounds} …`);
      for (const contestant of contestants)
        add(turns, contestant, 'quiet', await quiet(contestant, turnMs / 2));
      for (const scenario of SCENARIOS) {
        for (const contestant of shuffled(contestants)) {
          ending.signal.throwIfAborted();
          add(turns, contestant, scenario, await turn(contestant, scenario, turnMs));
        }
      }
    }
    await check();
    console.log(
      [
        describe(database, rounds, turnMs),
        ...SCENARIOS.map((scenario) => table(scenario, contestants, turns)),
      ].join('\n\n'),
    );
  } finally {
    await close();
    await database.close();
  }
}

/** Workers that each begin their next unit when the last has ended, beside somebody who reads another row now and then. */
async function turn(contestant, { rows, workers }, ms) {
  const end = performance.now() + ms;
  const latencies = [];
  let exhausted = 0;
  let attempts = 0;
  const work = async (worker) => {
    for (let n = worker; performance.now() < end; n++) {
      const since = performance.now();
      const taken = await contestant.unit(n % rows);
      if (taken === undefined) exhausted++;
      else {
        attempts += taken;
        latencies.push(performance.now() - since);
      }
    }
  };
  const bystander = readBeside(contestant, end);
  const since = performance.now();
  await Promise.all(Array.from({ length: workers }, (_, worker) => work(worker)));
  const seconds = (performance.now() - since) / 1000;
  return {
    goodput: latencies.length / seconds,
    exhausted: exhausted / (exhausted + latencies.length),
    attempts: attempts / latencies.length,
    p50: percentile(latencies, 0.5),
    p99: percentile(latencies, 0.99),
    bystander: percentile(await bystander, 0.99),
  };
}

const quiet = async (contestant, ms) => ({
  bystander: percentile(await readBeside(contestant, performance.now() + ms), 0.99),
});

async function readBeside(contestant, end) {
  const latencies = [];
  while (performance.now() < end) {
    const since = performance.now();
    await contestant.read(QUIET_ROW);
    latencies.push(performance.now() - since);
    await new Promise((resolve) => setTimeout(resolve, BYSTANDER_MS));
  }
  return latencies;
}

function table({ rows, workers }, contestants, turns) {
  const scenario = SCENARIOS.find((each) => each.rows === rows && each.workers === workers);
  const [limit] = contestants;
  const of = (contestant, key) =>
    turns
      .get(contestant)
      .get(scenario)
      .map((each) => each[key]);
  const ratio = (contestant, key, base = key) =>
    of(contestant, key).map((value, round) => value / of(limit, base)[round]);
  const head = [
    'goodput',
    'given up',
    'attempts',
    'p50 ÷ limit’s p99',
    'p99 ÷ limit’s p99',
    'bystander’s p99 ÷ quiet',
  ];
  const lines = contestants.map((contestant) => {
    const quietP99 = median(
      turns
        .get(contestant)
        .get('quiet')
        .map(({ bystander }) => bystander),
    );
    return [
      contestant.title,
      spread(ratio(contestant, 'goodput')),
      `${(100 * median(of(contestant, 'exhausted'))).toFixed(1)} %`,
      median(of(contestant, 'attempts')).toFixed(2),
      median(ratio(contestant, 'p50', 'p99')).toFixed(2),
      spread(ratio(contestant, 'p99')),
      spread(of(contestant, 'bystander').map((p99) => p99 / quietP99)),
    ];
  });
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const rule = ['---', ...head.map(() => '---:')];
  return [
    `### ${rows} hot row${rows > 1 ? 's' : ''}, ${workers} workers`,
    '',
    line(['', ...head]),
    line(rule),
    ...lines.map(line),
  ].join('\n');
}

const describe = ({ version }, rounds, turnMs) =>
  [
    `${rounds} rounds of ${turnMs} ms a turn; pool of 10; Node ${process.versions.node}, PostgreSQL ${version}.`,
    'Each cell is the median (lowest..highest) of ratios to the first row within one round.',
  ].join('\n');

const percentile = (numbers, share) =>
  numbers.toSorted((a, b) => a - b)[Math.min(numbers.length - 1, Math.floor(numbers.length * share))] ?? NaN;

function add(turns, contestant, scenario, result) {
  if (!turns.has(contestant)) turns.set(contestant, new Map());
  const own = turns.get(contestant);
  own.set(scenario, [...(own.get(scenario) ?? []), result]);
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => ending.abort(new Error(`interrupted by ${signal}`)));
}
try {
  await main(readOptions(process.argv.slice(2), process.env));
} catch (error) {
  process.exitCode = ending.signal.aborted ? 130 : 1;
  say(error instanceof OptionError || ending.signal.aborted ? error.message : error.stack);
}
