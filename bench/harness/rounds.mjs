import { shuffled } from './shuffled.mjs';

/**
 * Short turns in a random order, those of one heat right after one another: what disturbs the machine for a while meets everybody,
 * and nobody is always first.
 *
 * @param heats each has a `key`, and `contestants` where not all take part
 * @param before what is done before each heat
 * @returns contestant's key → heat's key → what `turn` gave, a round each
 */
export async function runRounds(bench, { rounds, contestants, heats, before = () => undefined, turn }) {
  const turns = Object.fromEntries(contestants.map(({ key }) => [key, {}]));
  for (let round = 1; round <= rounds; round++) {
    bench.say(`round ${round} of ${rounds} …`);
    for (const heat of shuffled(heats)) {
      await before(heat);
      for (const contestant of shuffled(contestants)) {
        bench.interrupted.throwIfAborted();
        const own = turns[contestant.key];
        own[heat.key] = [...(own[heat.key] ?? []), await turn(contestant, heat, round)];
      }
    }
  }
  return turns;
}

/** Those that `--only` names, and the first, which all are compared with. */
export function chosen({ options: { only } }, contestants) {
  if (!only) return contestants;
  return contestants.filter(({ key }, index) => index === 0 || only.includes(key));
}
