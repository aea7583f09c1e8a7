import { randomUUID } from 'node:crypto';
import { duringTests } from '../support/during-tests.js';
import { type HeldAnswer, startLossyProxy } from '../support/lossy-proxy.js';
import { startPeopleApp } from '../support/people-app.js';
import { createDatabase, openDatabase } from '../support/test-database.js';

const database = duringTests(() => createDatabase());
const proxy = duringTests(() => startLossyProxy(database.url));
const behind = duringTests(() => openDatabase(proxy.url));
const app = duringTests(() => startPeopleApp({}, behind));
/** Past the proxy. */
const other = duringTests(() => startPeopleApp({}, database));
afterEach(() => proxy.recover());

/** Holds what the server answers to the `nth` piece that names `id`. */
function holdAnswerOf(id: string, nth: number): Promise<HeldAnswer> {
  return new Promise((resolve) => {
    let seen = 0;
    proxy.onRequest = (piece) => (piece.includes(id) && ++seen === nth ? resolve : 'pass');
  });
}

/** What the patch ends with when `meanwhile` happens between its `nth` statement and the next. */
async function patched(id: string, nth: number, meanwhile: () => Promise<unknown>): Promise<number> {
  const held = holdAnswerOf(id, nth);
  const body = JSON.stringify({ data: { a: 1 } });
  const response = app.send('PATCH', `/people/${id}`, body, {
    'content-type': 'application/merge-patch+json',
  });
  const answer = await Promise.race([held, response.then(() => undefined)]);
  await meanwhile();
  answer?.pass();
  return (await response).status;
}

const stored = async (id: string) => (await other.people.get(id)).data;

// The first statement may only read, the second may be the one that writes.
describe.each([1, 2])('a merge patch, at its statement %s,', (nth) => {
  it('whose person is created meanwhile is 404 or merged into it, and drops nothing', async () => {
    const id = randomUUID();
    const status = await patched(id, nth, () => other.people.create({ id, name: 'x', data: { b: 2 } }));
    expect([status, await stored(id)]).toEqual(status === 404 ? [404, { b: 2 }] : [200, { b: 2, a: 1 }]);
  });

  it('whose person is removed and created anew meanwhile is 404 or merged into it', async () => {
    const { id } = await other.people.create({ name: 'x', data: { c: 3 } });
    await other.people.remove(id);
    const status = await patched(id, nth, () => other.people.create({ id, name: 'x', data: { b: 2 } }));
    expect([status, await stored(id)]).toEqual(status === 404 ? [404, { b: 2 }] : [200, { b: 2, a: 1 }]);
  });

  it('whose person is changed by somebody else meanwhile keeps that change', async () => {
    const { id } = await other.people.create({ name: 'x', data: { c: 3 } });
    let change: Promise<unknown> = Promise.resolve();
    // It may have to wait for the patch.
    const begin = () => {
      change = other.people.update(id, { data: { b: 2 } }, { merge: true });
      return Promise.resolve();
    };
    const status = await patched(id, nth, begin);
    await change;
    expect([status, await stored(id)]).toEqual([200, { a: 1, b: 2, c: 3 }]);
  });
});

it('merge patches that race the creation of their person drop nothing of it', async () => {
  const results = await Promise.all(
    Array.from({ length: 200 }, async () => {
      const id = randomUUID();
      const patch = app.people
        .update(id, { data: { a: 1 } }, { merge: true })
        .catch((error: Error) => error.name);
      await other.people.create({ id, name: 'x', data: { b: 2 } });
      const told = await patch;
      const data = await stored(id);
      return told === 'PersonNotFoundError' ? [data, { b: 2 }] : [data, { b: 2, a: 1 }];
    }),
  );
  for (const [found, expected] of results) expect(found).toEqual(expected);
});
