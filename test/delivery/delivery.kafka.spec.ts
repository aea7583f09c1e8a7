import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { randomOf } from '../support/random.js';
import { checkDelivery } from './delivery-check.js';
import { everyFault } from './faults.js';

let directory: string;
beforeEach(() => {
  mkdirSync('.data', { recursive: true });
  directory = mkdtempSync(path.resolve('.data/delivery-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

it('services, broker and database killed at every step lose nothing, apply nothing twice, and keep the order of each key', async () => {
  const counts = await checkDelivery({
    ...{ seed: 7, messages: 3000, seconds: 0, instances: 4, together: 5 },
    directory,
  });
  expect(counts.violations).toEqual([]);
  // Each row of the table happened, and so did what is put in between.
  const names = everyFault(randomOf(0)).map(({ name }) => name);
  expect(counts.faults).toEqual(Object.fromEntries(names.map((name) => [name, 1])));
  expect(counts).toMatchObject({ rounds: 1, messages: 3000 });
  expect(counts.duplicates).toBeGreaterThan(100);
  expect(counts.poisonous).toBeGreaterThan(5);
  expect(counts.requests).toBeGreaterThan(50);
  expect(counts.eventsSentAgain).toBeGreaterThan(0);
}, 300_000);
