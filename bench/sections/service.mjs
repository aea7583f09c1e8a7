import { CONTESTANTS } from '../contestants/of-service.mjs';
import { checkCount, checkRenamed, fillRemovable } from '../harness/check.mjs';
import { measured, POOL_SIZE } from '../harness/contestants.mjs';
import { timeOperations } from '../harness/operations.mjs';
import { SEEDED } from '../harness/people.mjs';
import { openPostgres } from '../harness/servers.mjs';
import { operationTables } from '../report/operation-tables.mjs';

export const title = 'Service: one operation on one person, in the process';

const OPERATIONS = ['get', 'create', 'update', 'remove'];
const WARM_UP_MS = 1000;
/** People to be removed for a second of a turn: more than anybody removes. */
const REMOVABLE_A_SECOND = 60_000;

/** What the operations of PeopleService cost beside other ways to do the same from Node. */
export async function run(bench) {
  const { turnMs, rounds = 7 } = bench.options;
  const postgres = await openPostgres(bench);
  const section = {
    contestants: CONTESTANTS,
    operations: OPERATIONS,
    checked: OPERATIONS,
    rounds,
    warmUpMs: () => WARM_UP_MS,
  };
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

export const render = (result) =>
  operationTables(result, { operations: OPERATIONS, many: '32 callers', one: 'One caller' });
