import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';

const app = duringTests(() => startPeopleApp());

it('people that are stored without an id have one of version 7, none twice, and each larger than those before', async () => {
  const begun = Date.now();
  const { ids } = await app.people.createMany(Array.from({ length: 20_000 }, () => ({ name: 'Ada' })));
  for (let i = 0; i < 10; i++) ids.push((await app.people.create({ name: 'Eve' })).id);
  const ended = Date.now();
  expect(
    ids.filter((id) => !/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id)),
  ).toEqual([]);
  expect(ids).toEqual([...new Set(ids)].sort());
  const times = ids.map((id) => parseInt(id.replaceAll('-', '').slice(0, 12), 16));
  expect(times[0]).toBeGreaterThanOrEqual(begun);
  expect(times.at(-1)).toBeLessThanOrEqual(ended);
});
