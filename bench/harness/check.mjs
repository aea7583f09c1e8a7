import { isDeepStrictEqual } from 'node:util';
import { personOf, removableId, SEEDED, seededId, toJson } from './people.mjs';

/** A contestant does not do what it is measured at: no ratio of this run means anything. */
export class WrongAnswerError extends Error {}

/**
 * Makes sure that a contestant does the work it is measured at.
 *
 * @returns what it does to the digits of a u64, if it changes one: that is said beside its figures
 * @throws WrongAnswerError naming the contestant and what it answered
 */
export async function checkAnswers(contestant, postgres, operations) {
  const access = contestant.ask ? inProcess(contestant) : undefined;
  const { get, create, update, remove } = contestant.url ? overHttp(contestant) : access;
  const stored = (id) => storedPerson(postgres, contestant, id);
  const changed = new Set();
  const compare = (operation, answer, expected) => {
    if (!same(contestant, operation, answer, expected)) changed.add(operation.split(' ')[0]);
  };

  for (const n of [0, SEEDED >> 1, SEEDED - 1]) {
    compare('get', await get(seededId(n)), toJson({ id: seededId(n), ...personOf(n) }));
  }
  const created = await create(SEEDED);
  const { id } = JSON.parse(created);
  const expected = toJson({ id, ...personOf(SEEDED) });
  compare('create', created, expected);
  compare('create then SELECT', await stored(id), expected);
  if (operations.includes('update')) {
    const renamed = toJson({ id, ...personOf(SEEDED), name: 'Renamed' });
    compare('update', await update(id, 'Renamed'), renamed);
    compare('update then SELECT', await stored(id), renamed);
  }
  if (operations.includes('remove')) {
    await remove(id);
    if (await stored(id)) throw new WrongAnswerError(`${contestant.title}: remove left the person there.`);
  }
  return changed.size > 0 ? `changes digits (${[...changed].join(', ')})` : undefined;
}

/** @throws WrongAnswerError when fewer or more people are stored than the contestant said */
export async function checkCount({ title, database }, postgres, expected, { atMost = expected } = {}) {
  const stored = await postgres.count(database);
  if (stored >= expected && stored <= atMost) return;
  throw new WrongAnswerError(
    `${title}: after its turn there are ${stored} people where ${expected} are right.`,
  );
}

/** @throws WrongAnswerError when what a caller was last told to be stored is not */
export async function checkRenamed(contestant, postgres, renamed) {
  for (const { id, name } of renamed.filter(Boolean)) {
    const [row] = await postgres.query(contestant.database, 'SELECT name FROM people WHERE id = $1', [id]);
    if (row?.name !== name)
      throw new WrongAnswerError(`${contestant.title}: "${row?.name}" is stored where "${name}" is right.`);
  }
}

/** Makes people to be removed, as many as there were, and says how many. */
export async function fillRemovable({ database }, postgres, wanted) {
  await postgres.query(
    database,
    `INSERT INTO people (id, name, data)
      SELECT ('00000000-0000-7001-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'Removable ' || n, template.data
      FROM generate_series(0, $1::int - 1) n, (SELECT data FROM people WHERE id = $2) template
      ON CONFLICT DO NOTHING`,
    [wanted, seededId(0)],
  );
  await postgres.query(database, 'VACUUM ANALYZE people');
  const [{ last }] = await postgres.query(
    database,
    'SELECT max(id::text) AS last FROM people WHERE id <= $1',
    [removableId(wanted - 1)],
  );
  if (last !== removableId(wanted - 1)) throw new Error(`${database}: people to be removed are not there.`);
}

async function storedPerson(postgres, { database }, id) {
  const text = 'SELECT id, name, data::text AS data FROM people WHERE id = $1';
  const [row] = await postgres.query(database, text, [id]);
  return row && `{"id":"${row.id}","name":${JSON.stringify(row.name)},"data":${row.data}}`;
}

const inProcess = ({ ask }) => ({
  get: (id) => ask('get', id),
  create: (n) => ask('create', n),
  update: (id, name) => ask('update', { id, name }),
  remove: (id) => ask('remove', id),
});

const overHttp = ({ title, url }) => {
  const send = async (method, where, status, body) => {
    const headers = body && { 'content-type': 'application/json' };
    return answerOf(title, await fetch(`${url}${where}`, { method, headers, body }), status);
  };
  return {
    get: (id) => send('GET', `/people/${id}`, 200),
    create: (n) => send('POST', '/people', 201, toJson(personOf(n))),
    update: (id, name) => send('PATCH', `/people/${id}`, 200, JSON.stringify({ name })),
  };
};

async function answerOf(title, response, status) {
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.startsWith('application/json');
  if (response.status === status && isJson) return text;
  throw new WrongAnswerError(
    `${title}: ${response.url} answered ${response.status} where ${status} is right: ${text}`,
  );
}

/** @returns false when all is right but digits of numbers */
function same({ title }, operation, actual, expected) {
  const [own, right] = [actual, expected].map((text) => pick(JSON.parse(text ?? 'null')));
  if (!isDeepStrictEqual(own, right))
    throw new WrongAnswerError(
      `${title}: ${operation} gave\n  ${actual}\nwhere this is right:\n  ${expected}`,
    );
  return numbersOf(actual) === numbersOf(expected);
}

/** Others may answer more about a person, as a version. */
const pick = (person) => person && { id: person.id, name: person.name, data: person.data };
const numbersOf = (text) => /"many_many_fields":\s*([^,}\s]+)/.exec(text)?.[1];
