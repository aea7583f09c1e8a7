import { checkCount, checkRenamed, fillRemovable } from './check.mjs';
import { measured, POOL_SIZE } from './contestants.mjs';
import { timeOperations } from './operations.mjs';
import { SEEDED } from './people.mjs';
import { openPostgres } from './servers.mjs';

const WARM_UP_MS = 1000;
/** People to be removed for a second of a turn: more than anybody removes. */
const REMOVABLE_A_SECOND = 60_000;

/** Times operations that contestants are called with in their processes. @returns what `operationTables` shows */
export async function timeInProcess(bench, { contestants, operations }) {
  const { turnMs, rounds = 7 } = bench.options;
  const postgres = await openPostgres(bench);
  const section = { contestants, operations, checked: operations, rounds, warmUpMs: () => WARM_UP_MS };
  const timed = await timeOperations(bench, postgres, section, (contestant, heat, ms) =>
    takeTurn(contestant, heat, ms, postgres),
  );
  const about = `${rounds} rounds of ${turnMs} ms a turn; pool of ${POOL_SIZE}; ${SEEDED} people; PostgreSQL ${postgres.version}.`;
  return { about: [about], ...timed };
}

let turnsTaken = 0;

async function takeTurn(contestant, { operation, callers }, ms, postgres) {
  const { database, ask } = contestant;
  const removable = operation === 'remove' ? Math.ceil((REMOVABLE_A_SECOND * ms) / 1000) : 0;
  if (removable > 0) await fillRemovable(contestant, postgres, removable);
  const before = await postgres.count(database);
  const tag = ++turnsTaken;
  const { renamed, ...result } = await measured(contestant, postgres, () =>
    ask('turn', { operation, ms, callers, tag, removable }),
  );
  const made = { create: result.operations, remove: -result.operations }[operation] ?? 0;
  await checkCount(contestant, postgres, before + made);
  await checkRenamed(contestant, postgres, renamed);
  // So that no turn pays for the dead rows of another.
  if (operation === 'update') await postgres.query(database, 'VACUUM people');
  return result;
}
