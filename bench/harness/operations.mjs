import { checkAnswers } from './check.mjs';
import { openContestants, shown } from './contestants.mjs';
import { chosen, runRounds } from './rounds.mjs';
import { heatsOf } from '../report/operation-tables.mjs';

/**
 * Times operations of contestants that all have been seen to do the same.
 *
 * @param section its `contestants`, `operations`, those that are `checked`, and how long a contestant warms up (`warmUpMs`)
 * @param turn takes a contestant, a heat and ms
 * @returns what `operationTables` shows
 */
export async function timeOperations(bench, postgres, section, turn) {
  const { contestants: all, operations, checked, warmUpMs } = section;
  const { isQuick, turnMs } = bench.options;
  const { contestants, leftOut } = await openContestants(bench, postgres, chosen(bench, all));
  bench.say('checking that all of them do the same …');
  for (const contestant of contestants) contestant.note = await checkAnswers(contestant, postgres, checked);
  bench.say('warming up …');
  const heats = heatsOf(operations);
  for (const heat of heats.slice(0, operations.length))
    for (const contestant of contestants)
      await turn(contestant, heat, isQuick ? turnMs : warmUpMs(contestant));
  const turns = await runRounds(bench, {
    rounds: section.rounds,
    contestants,
    heats,
    before: postgres.checkpoint,
    turn: (contestant, heat) => turn(contestant, heat, turnMs),
  });
  return { contestants: contestants.map(shown), leftOut, turns };
}
