import { isDeepStrictEqual } from 'node:util';
import { personOf, SEEDED, seededId } from './people.mjs';

/** A contestant does not do what it is measured at: no ratio of this run means anything. */
export class WrongAnswerError extends Error {}

/**
 * Makes sure that a contestant does the work it is measured at.
 *
 * @throws WrongAnswerError naming the contestant and what it answered
 */
export async function checkAnswers(contestant, database) {
  const { get, create } = contestant.url ? overHttp(contestant) : inProcess(contestant);
  for (const n of [0, SEEDED >> 1, SEEDED - 1]) {
    const expected = { id: seededId(n), ...personOf(n) };
    same(contestant, 'get', await get(expected.id), expected);
  }
  const person = personOf(SEEDED);
  const created = await create(person);
  same(contestant, 'create', created, { id: created.id, ...person });
  same(contestant, 'create then SELECT', await database.person(created.id), created);
  same(contestant, 'create then get', await get(created.id), created);
}

/** @throws WrongAnswerError when fewer or more people were stored than the contestant said */
export async function checkCreated({ title }, database, expected) {
  const stored = await database.count();
  if (stored === expected) return;
  throw new WrongAnswerError(
    `${title}: after its creates there are ${stored} people where ${expected} are right.`,
  );
}

const inProcess = ({ ask }) => ({
  get: (id) => ask('get', id),
  create: (person) => ask('create', person),
});

const overHttp = ({ title, url }) => ({
  get: async (id) => answerOf(title, await fetch(`${url}/people/${id}`), 200),
  create: async (person) => {
    const headers = { 'content-type': 'application/json' };
    const body = JSON.stringify(person);
    return answerOf(title, await fetch(`${url}/people`, { method: 'POST', headers, body }), 201);
  },
});

async function answerOf(title, response, status) {
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.startsWith('application/json');
  if (response.status === status && isJson) return JSON.parse(text);
  throw new WrongAnswerError(
    `${title}: ${response.url} answered ${response.status} where ${status} is right: ${text}`,
  );
}

function same({ title }, operation, actual, expected) {
  if (isDeepStrictEqual(actual, expected)) return;
  const [answered, right] = [actual, expected].map((person) => JSON.stringify(person));
  throw new WrongAnswerError(`${title}: ${operation} gave\n  ${answered}\nwhere this is right:\n  ${right}`);
}
