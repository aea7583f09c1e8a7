import { parseArgs } from 'node:util';

/** What `npm run bench` runs, in this order. */
export const SECTIONS = ['service', 'http', 'kafka', 'bulk', 'hot-row'];
/** What it runs only when it is named: these compare nothing that is a goal. */
export const OTHER_SECTIONS = ['guarantees', 'profile', 'scale', 'messages', 'kafka-client'];

export const USAGE = `npm run bench -- [section ...] [options]

sections: ${SECTIONS.join(', ')}; only when named: ${OTHER_SECTIONS.join(', ')}

  --quick                   shows only that each section runs; measures nothing, builds nothing, writes no results
  --only <a,b>              only these contestants, and what they are compared with; scale: only these
                            parts (rows, clients, instances), the others keep the figures of their last run
  --rounds, BENCH_ROUNDS    how often every contestant has its turn; the default is the section's
  --turn,   BENCH_TURN_MS   how long one turn is, 100 to 60000 ms; default 1000
  --messages <number>       kafka, scale: messages that wait; default 100000
  --rows <number>           bulk: rows of an import; default 100000
  --large-rows <number>     bulk: rows of the import whose memory is watched, 0 for none; default 5000000
  --most-rows <number>      scale: rows of the largest table, each of the others a tenth of the next; default 10000000
  --backlog, --seconds, --outage   messages: what waits, how long it is watched, how long the database is away`;

/** An option that is not accepted; the message names it and what is. */
export class OptionError extends Error {}

const FLAGS = {
  rounds: { variable: 'BENCH_ROUNDS', range: [1, 99] },
  turn: { variable: 'BENCH_TURN_MS', range: [100, 60_000], standard: 1000, quick: 200 },
  messages: { range: [100, 10_000_000], standard: 100_000, quick: 2000 },
  rows: { range: [100, 100_000_000], standard: 100_000, quick: 2000 },
  'large-rows': { range: [0, 100_000_000], standard: 5_000_000, quick: 0 },
  backlog: { range: [1000, 100_000_000], standard: 1_000_000, quick: 10_000 },
  seconds: { range: [2, 3600], standard: 60, quick: 2 },
  'most-rows': { range: [10_000, 100_000_000], standard: 10_000_000, quick: 20_000 },
  outage: { range: [1, 3600], standard: 60, quick: 1 },
};

/**
 * The options of this run; a flag wins over its variable.
 *
 * @throws OptionError
 */
export function readOptions(args, environment) {
  const { values, positionals } = parse(args);
  const known = [...SECTIONS, ...OTHER_SECTIONS];
  const unknown = positionals.find((name) => !known.includes(name));
  if (unknown) throw new OptionError(`There is no section "${unknown}".`);
  const isQuick = values.quick ?? false;
  const numbers = Object.entries(FLAGS).map(([flag, definition]) => {
    const { variable, range, standard, quick = isQuick ? 1 : undefined } = definition;
    const [name, text] =
      values[flag] === undefined ? [variable, environment[variable]] : [`--${flag}`, values[flag]];
    const value = text === undefined || text === '' ? undefined : wholeNumber(name, text, range);
    return [flag, value ?? (isQuick ? quick : standard)];
  });
  const {
    turn: turnMs,
    'large-rows': largeRows,
    'most-rows': mostRows,
    ...others
  } = Object.fromEntries(numbers);
  return {
    help: values.help ?? false,
    isQuick,
    sections: positionals.length > 0 ? [...new Set(positionals)] : SECTIONS,
    only: values.only?.split(','),
    turnMs,
    largeRows,
    mostRows,
    ...others,
  };
}

function parse(args) {
  const numbers = Object.keys(FLAGS).map((flag) => [flag, { type: 'string' }]);
  const others = { quick: { type: 'boolean' }, help: { type: 'boolean' }, only: { type: 'string' } };
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: { ...Object.fromEntries(numbers), ...others },
    });
  } catch (cause) {
    throw new OptionError(cause.message, { cause });
  }
}

function wholeNumber(name, text, [from, to]) {
  const number = Number(text);
  if (/^\d+$/.test(text) && number >= from && number <= to) return number;
  throw new OptionError(`${name}: "${text}" is not accepted; expected a whole number from ${from} to ${to}.`);
}
