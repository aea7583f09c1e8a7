import { CONTESTANTS } from '../contestants/of-http.mjs';
import { checkCount, WrongAnswerError } from '../harness/check.mjs';
import { measured, POOL_SIZE } from '../harness/contestants.mjs';
import { openLoad } from '../harness/load.mjs';
import { timeOperations } from '../harness/operations.mjs';
import { SEEDED } from '../harness/people.mjs';
import { peopleOf, requestsOf } from '../harness/requests.mjs';
import { openPostgres } from '../harness/servers.mjs';
import { operationTables } from '../report/operation-tables.mjs';
import { setTimeout as sleep } from 'node:timers/promises';

export const title = 'HTTP: one request, one person';

const OPERATIONS = ['get', 'create', 'patch'];
const WARM_UP_MS = 2000;

/** What the service costs over HTTP beside other services that do the same. */
export async function run(bench) {
  const { turnMs, rounds = 7 } = bench.options;
  const postgres = await openPostgres(bench);
  const load = await openLoad(bench);
  const section = {
    contestants: CONTESTANTS,
    operations: OPERATIONS,
    checked: ['get', 'create', 'update'],
    rounds,
    warmUpMs: ({ warmUp = 1 }) => WARM_UP_MS * warmUp,
  };
  const timed = await timeOperations(bench, postgres, section, (contestant, heat, ms) =>
    takeTurn(contestant, heat, ms, { postgres, load }),
  );
  const about = `${rounds} rounds of ${turnMs} ms a turn; pool of ${POOL_SIZE}; ${SEEDED} people; load by ${load.name}, one thread, connections kept; PostgreSQL ${postgres.version}.`;
  return { about: [about], ...timed };
}

let turnsTaken = 0;
const FOR_THE_UNANSWERED_MS = 50;

async function takeTurn(contestant, { operation, callers }, ms, { postgres, load }) {
  const { url, database } = contestant;
  const tag = ++turnsTaken;
  const requests = requestsOf(operation, tag);
  const before = await postgres.count(database);
  const result = await measured(contestant, postgres, () => load.turn({ url, requests, ms, callers }));
  await sleep(FOR_THE_UNANSWERED_MS);
  const unanswered = load.unanswered(callers);
  const expected = before + (operation === 'create' ? result.operations : 0);
  const atMost = operation === 'create' ? expected + unanswered : expected;
  await checkCount(contestant, postgres, expected, { atMost });
  if (operation === 'patch') {
    await checkPatched(contestant, postgres, tag, peopleOf(requests, result.operations));
    // So that no turn pays for the dead rows of another.
    await postgres.query(database, 'VACUUM people');
  }
  return result;
}

/** Requests are sent over and over, so as many people have a name of this turn as the requests are about, if all were sent. */
async function checkPatched({ title: name, database }, postgres, tag, people) {
  const text = 'SELECT count(*)::int AS count FROM people WHERE name LIKE $1';
  const [{ count }] = await postgres.query(database, text, [`Renamed ${tag} %`]);
  // Of autocannon's connections each has requests of its own, and some are slower than others.
  if (count < people / 2)
    throw new WrongAnswerError(`${name}: ${count} people were renamed where about ${people} are right.`);
}

export const render = (result) =>
  operationTables(result, { operations: OPERATIONS, many: '32 connections', one: 'One connection' });
