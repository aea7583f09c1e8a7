import { parseArgs } from 'node:util';

export const USAGE = `npm run bench -- [--rounds <1..99>] [--turn <milliseconds>]

  --rounds, BENCH_ROUNDS    how often every contestant has its turn at every operation; default 9
  --turn,   BENCH_TURN_MS   how long one turn is, 100 to 60000; default 700`;

/** An option that is not accepted; the message names it and what is. */
export class OptionError extends Error {}

/**
 * The options of this run; a flag wins over its variable.
 *
 * @throws OptionError
 */
export function readOptions(args, environment) {
  const flags = parse(args);
  const choose = (flag, variable, standard, range) => {
    const [name, text] =
      flags[flag] === undefined ? [variable, environment[variable]] : [`--${flag}`, flags[flag]];
    return text === undefined || text === '' ? standard : wholeNumber(name, text, range);
  };
  return {
    help: flags.help ?? false,
    rounds: choose('rounds', 'BENCH_ROUNDS', 9, [1, 99]),
    turnMs: choose('turn', 'BENCH_TURN_MS', 700, [100, 60_000]),
  };
}

function parse(args) {
  const options = { rounds: { type: 'string' }, turn: { type: 'string' }, help: { type: 'boolean' } };
  try {
    return parseArgs({ args, options }).values;
  } catch (cause) {
    throw new OptionError(cause.message, { cause });
  }
}

function wholeNumber(name, text, [from, to]) {
  const number = Number(text);
  if (/^\d+$/.test(text) && number >= from && number <= to) return number;
  throw new OptionError(`${name}: "${text}" is not accepted; expected a whole number from ${from} to ${to}.`);
}
