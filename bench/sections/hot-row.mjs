import { openContestants, QUIET_ROW } from '../contestants/hot-row.mjs';
import { median, ratioOf, showRatio, spread, toTable } from '../harness/ratios.mjs';
import { openPostgres } from '../harness/servers.mjs';
import { shuffled } from '../harness/shuffled.mjs';

export const title = 'Hot rows: read, decide, write';
const SCENARIOS = [1, 4].flatMap((rows) => [16, 64].map((workers) => ({ rows, workers })));
const keyOf = ({ rows, workers }) => `${rows}-${workers}`;
const BYSTANDER_MS = 5;
const WARM_UP_MS = 300;
const DATABASE = 'bench_hot_row';

/** What becomes of a read-modify-write when many want the same few rows, beside one UPDATE without reading first. */
export async function run(bench) {
  const { turnMs, rounds = 5 } = bench.options;
  const postgres = await openPostgres(bench);
  await postgres.create(DATABASE, { isSeeded: false });
  const { contestants, check, close } = await openContestants(postgres.urlOf(DATABASE));
  bench.started.push(close);
  for (const contestant of contestants) await takeTurn(contestant, SCENARIOS[2], WARM_UP_MS);
  const turns = Object.fromEntries(contestants.map(({ key }) => [key, {}]));
  const add = ({ key }, heat, result) => (turns[key][heat] = [...(turns[key][heat] ?? []), result]);
  for (let round = 1; round <= rounds; round++) {
    bench.say(`round ${round} of ${rounds} …`);
    for (const contestant of contestants) add(contestant, 'quiet', await quiet(contestant, turnMs / 2));
    for (const scenario of SCENARIOS) {
      for (const contestant of shuffled(contestants)) {
        bench.interrupted.throwIfAborted();
        add(contestant, keyOf(scenario), await takeTurn(contestant, scenario, turnMs));
      }
    }
  }
  await check();
  return {
    about: [`${rounds} rounds of ${turnMs} ms a turn; pool of 10; PostgreSQL ${postgres.version}.`],
    contestants: contestants.map(({ key, title: name }) => ({ key, title: name })),
    leftOut: [],
    turns,
  };
}

/** Workers that each begin their next unit when the last has ended, beside somebody who reads another row now and then. */
async function takeTurn(contestant, { rows, workers }, ms) {
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

const percentile = (numbers, share) =>
  numbers.toSorted((a, b) => a - b)[Math.min(numbers.length - 1, Math.floor(numbers.length * share))] ?? NaN;

/** A table for each number of rows and workers. */
export const render = (result) =>
  SCENARIOS.flatMap((scenario) => {
    const { rows, workers } = scenario;
    return [`#### ${rows} hot row${rows > 1 ? 's' : ''}, ${workers} workers`, table(result, scenario)];
  }).join('\n\n');

const HEAD = [
  'goodput',
  'given up',
  'attempts',
  'p50 ÷ limit’s p99',
  'p99 ÷ limit’s p99',
  'bystander’s p99 ÷ quiet',
];

function table(result, scenario) {
  const { contestants } = result;
  const lines = contestants.map((contestant) => {
    const of = (what, { key } = contestant) => result.turns[key][keyOf(scenario)].map((each) => each[what]);
    const overLimit = (what, base = what) => ratioOf(of(what), of(base, contestants[0]));
    return [
      contestant.title,
      showRatio(overLimit('goodput')),
      `${(100 * median(of('exhausted'))).toFixed(1)} %`,
      median(of('attempts')).toFixed(2),
      overLimit('p50', 'p99').value.toFixed(2),
      showRatio(overLimit('p99')),
      spread(besideQuiet(result, contestant.key, scenario)),
    ];
  });
  return toTable(['', ...HEAD], lines);
}

/** A bystander's p99 beside its own when nothing else runs, a round each. */
function besideQuiet({ turns }, key, scenario) {
  const p99 = (heat) => turns[key][heat].map(({ bystander }) => bystander);
  const still = median(p99('quiet'));
  return p99(keyOf(scenario)).map((each) => each / still);
}

/** What is aimed at on one row with 16 workers, of the read-modify-write that takes the fewest trips. */
export function goals(result) {
  const scenario = SCENARIOS[0];
  const { key } =
    result.contestants.find((contestant) => contestant.key === 'commit-with') ??
    result.contestants.find((contestant) => contestant.key === 'read-modify-write');
  const goodput = (contestant) => result.turns[contestant][keyOf(scenario)].map((each) => each.goodput);
  return [
    {
      title: 'hot row: read-modify-write ÷ one UPDATE',
      atLeast: 0.6,
      ...ratioOf(goodput(key), goodput('limit')),
    },
    {
      title: 'hot row: a bystander’s p99 ÷ quiet',
      atMost: 2,
      ...range(besideQuiet(result, key, scenario)),
    },
  ];
}

const range = (numbers) => ({
  value: median(numbers),
  from: Math.min(...numbers),
  to: Math.max(...numbers),
});
